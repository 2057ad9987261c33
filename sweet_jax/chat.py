"""Dialogue text to token ids and back, with the turn of every token; all read from the tokenizer's own chat template.

The template is rendered for a dialogue and for its beginnings: what a longer rendering adds to a shorter one is the
turn. Character spans become token spans through the offsets of ONE tokenisation of the whole text, so a row never
depends on how its pieces would be tokenised alone. Sampled ids stay as they are: `continue_ids` makes only those after.

A token is counted when its first character lies in the turn. A token that begins in the header and reaches into the
content (possible only where the header does not end in a special token) is header: the prompt, not the agent, began it.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2.exceptions import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from colbench_env.types import BadInput, Message
from models.config import LlamaConfig
from sweet_jax.batch import TokenRow

Messages = Sequence[Message | Mapping[str, str]]  # the same entry as a row's object: "role" and "content" are looked at
Ids = Sequence[int] | np.ndarray
ASKED, SAID = "zqprobeasked", "zqprobesaid"  # contents of the probe dialogue: plain words no template contains


@dataclass(frozen=True)
class ChatFormat:
    """The fixed strings of a chat template.

    opening: what every dialogue begins with: a special token, else the text before the first human's words.
    bos: the begin-of-text token when the template writes one that is no part of its headers, else "". (SmolLM2 names
         <|im_start|>, the start of each ChatML header, its begin-of-text token: there is none to keep in front.)
    header: from the human's last word to the agent's first: the human's end of turn and the assistant header.
    tail: what follows the agent's content; it holds `end`, the end-of-turn token, once, and then `after`.
    after: template text behind the end-of-turn token (ChatML: a newline), never counted.
    """

    opening: str
    bos: str
    header: str
    tail: str
    end: str
    after: str


def privileged_prefix(reference: str) -> str:
    """The text that shows the critic training-time information `reference` (wording of the released data)."""
    return f"In light that the final answer is: {reference}."


def _role_and_content(message: Message | Mapping[str, str]) -> dict[str, str]:
    if isinstance(message, Message):
        return {"role": message.role, "content": message.content}
    return {"role": message["role"], "content": message["content"]}


def check_vocabulary(chat: "Chat", config: LlamaConfig) -> None:
    """Raises BadInput where the tokenizer has ids for which the network has no embedding. (Fewer ids are fine.)"""
    highest = max(chat.tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise BadInput(
            f"{chat.name}: the tokenizer has ids up to {highest}, the model's embedding has {config.vocab_size} rows, "
            f"for ids up to {config.vocab_size - 1}"
        )


class Chat:
    """Tokens of dialogues for one tokenizer.

    format: the template's strings. turn_end_id: the template's end-of-turn token. end_ids: all ids that stop the
    sampler (template, tokenizer and `generation_config.json` beside it), ascending. pad_id: may equal an end id.
    bos_id: None when the template writes no begin-of-text token of its own.
    BadInput: no chat template, no assistant header in it, or no special token at the end of an agent turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.name = tokenizer.name_or_path or "the tokenizer"
        if not tokenizer.is_fast:
            raise BadInput(
                f"{self.name}: {type(tokenizer).__name__} does not tell where in the text a token stands; a tokenizer "
                "that transformers loads as a fast one is needed (tokenizer.json, or a sentencepiece tokenizer.model)"
            )
        if not tokenizer.chat_template:
            raise BadInput(f"{self.name}: the tokenizer has no chat template")
        self.format = self._read_format()
        self._blank_after_special = self._puts_a_blank_after_special_tokens()
        self.turn_end_id: int = tokenizer.convert_tokens_to_ids(self.format.end)
        self.bos_id: int | None = tokenizer.bos_token_id if self.format.bos else None
        self.end_ids: tuple[int, ...] = tuple(sorted({self.turn_end_id, *self._declared_end_ids()}))
        self.pad_id: int = self.turn_end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @classmethod
    def load(cls, directory: str | Path) -> "Chat":
        """The chat of a Hugging Face tokenizer directory; BadInput when there is none."""
        if not Path(directory).is_dir():
            raise BadInput(f"{directory}: no such directory; expected a Hugging Face tokenizer directory")
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        except Exception as error:  # a malformed tokenizer.json gives a KeyError or a bare Exception, too
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise BadInput(f"{directory}: the tokenizer cannot be read: {type(error).__name__}: {reason}") from error
        return cls(tokenizer)

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Ids the agent goes on from: the dialogue and the next assistant header."""
        return self._encode(self._render(messages, prompt=True))[0].tolist()

    def turn_ids(self, messages: Messages) -> TokenRow:
        """The whole dialogue in one tokenisation, with the number of the agent turn for each counted token.

        Counted are the agent's content and the end-of-turn token; template text behind the last agent turn is left out.
        BadInput when the template rewrites earlier turns as a dialogue grows, so that no prompt is a beginning of it.

            In:  user "hi", assistant "ho"      (Llama-3 format)
            Out: ids   <bos> <start> user <end> \\n\\n hi <eot> <start> assistant <end> \\n\\n ho <eot>
                 turns   0      0     0    0     0   0   0     0        0        0     0   1   1
        """
        text, spans = self._render(messages), []
        for index, message in enumerate(messages):
            if _role_and_content(message)["role"] != "assistant":
                continue
            prompt, shown = self._render(messages[:index], prompt=True), self._render(messages[: index + 1])
            if not (text.startswith(shown) and shown.startswith(prompt) and shown.endswith(self.format.tail)):
                raise BadInput(f"{self.name}: the chat template rewrites message {index} when more messages follow")
            spans.append((len(prompt), len(shown) - len(self.format.after)))
        if spans and _role_and_content(messages[-1])["role"] == "assistant":
            text = text[: spans[-1][1]]
        return self._row(text, spans)

    def continue_ids(self, ids_so_far: Ids, reply_text: str) -> list[int]:
        """Ids to append after an agent turn: the human's reply and the next assistant header.

        They begin with the end-of-turn id when `ids_so_far` ends with no end id (the sampler stopped for length); that
        id was not sampled and is not counted. Sampled ids are never encoded again.
        """
        said = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
        replied = self._render([*said, {"role": "user", "content": reply_text}], prompt=True)
        between = self.format.after + replied[len(self._render(said)) :]
        # Encoded behind the end-of-turn token, so that its first token is that of the whole text.
        following = self._encode(self.format.end + between)[0][1:].tolist()
        return following if ids_so_far[-1] in self.end_ids else [self.turn_end_id, *following]

    def row_from_turns(self, prompt_ids: Ids, turns: Sequence[tuple[Ids, Ids]]) -> TokenRow:
        """The row of a sampled dialogue: a turn is the ids as sampled, all counted, and ids that follow, none counted.

        In:  prompt_ids [1, 7, 8], turns [([5, 2], [9, 9]), ([6], [])]
        Out: ids [1, 7, 8, 5, 2, 9, 9, 6], turns [0, 0, 0, 1, 1, 0, 0, 2]
        """
        ids, numbers = list(prompt_ids), [0] * len(prompt_ids)
        for number, (output_ids, following_ids) in enumerate(turns, start=1):
            ids += [*output_ids, *following_ids]
            numbers += [number] * len(output_ids) + [0] * len(following_ids)
        return self._kept(np.array(ids, np.int32), np.array(numbers, np.int32))

    def row_from_text(self, text: str) -> TokenRow:
        """The row of a string in the released layout: privileged text, then the dialogue as the template formats it.

        Agent turns are found by the template's own header and end-of-turn strings. A last turn without its end, as in
        the released critic pairs, is given one, and it is counted. BadInput when there is no agent turn.
        """
        start = max(text.find(self.format.opening), 0)
        prefix, dialogue, spans, at = text[:start], self._one_bos(text[start:]), [], 0
        while (header := dialogue.find(self.format.header, at)) >= 0:
            begin = header + len(self.format.header)
            if (end := dialogue.find(self.format.end, begin)) < 0:
                end, dialogue = len(dialogue), dialogue + self.format.end
            at = end + len(self.format.end)
            spans.append((begin, at))
        if not spans:
            raise BadInput(f"{self.name}: no agent turn in the text, which holds no header {self.format.header!r}")
        if not dialogue[at:].strip():
            dialogue = dialogue[:at]
        row = self._row(dialogue, spans)
        return self.with_prefix(row, prefix) if prefix else row

    def text_prompt_ids(self, text: str) -> list[int]:
        """Ids of a prompt in the released layout: a dialogue as the template formats it, up to an assistant header."""
        return self._encode(self._one_bos(text))[0].tolist()

    def text_turn_ids(self, text: str) -> list[int]:
        """Ids of an agent turn given as text without its end, as they would be sampled after a header."""
        text = text.removesuffix(self.format.end)
        return self._encode(self.format.end + text + self.format.end)[0][1:].tolist()

    def without_prefix(self, row: TokenRow) -> TokenRow:
        """The row without its privileged text; the begin-of-text token stays."""
        front = int(row.ids.size > 0 and row.ids[0] == self.bos_id)
        kept = np.r_[0:front, row.prefix : len(row)]
        return TokenRow(row.ids[kept], row.turns[kept], front) if row.prefix > front else row

    def with_prefix(self, row: TokenRow, text: str) -> TokenRow:
        """The row with privileged text in front: the single begin-of-text token, the text, then the rest as it was."""
        front = row.prefix
        if front > int(self.bos_id is not None):
            raise ValueError(f"the row already has a privileged text: its prefix is {front} tokens long")
        prefix = self._encode(text)[0]
        ids = np.concatenate([row.ids[:front], prefix, row.ids[front:]])
        turns = np.concatenate([row.turns[:front], np.zeros_like(prefix), row.turns[front:]])
        return TokenRow(ids, turns, front + prefix.size)

    def decode(self, ids: Ids) -> str:
        """The text of the ids, special tokens included."""
        if not self._blank_after_special:
            return self._decode(ids)
        runs = itertools.groupby(map(int, ids), key=self.tokenizer.added_tokens_decoder.__contains__)
        return "".join(self._decode(list(run)) for _, run in runs)

    def reply_text(self, output_ids: Ids) -> str:
        """What the agent said in a sampled turn: the text before the first end id, without special tokens."""
        stop = next((t for t, token in enumerate(output_ids) if token in self.end_ids), len(output_ids))
        return self._decode(output_ids[:stop], skip_special_tokens=True)

    def _decode(self, ids: Ids, skip_special_tokens: bool = False) -> str:
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )

    def _puts_a_blank_after_special_tokens(self) -> bool:
        """Whether each text behind a special token is encoded as the beginning of one, with a blank that is not there.

        So do sentencepiece tokenizers in their first form (Llama 2's own): the decoder takes the blank away from the
        beginning of what it is given, and has to be given each such text alone.
        """
        text = self.format.end + ASKED
        return self._decode(self._encode(text)[0]) != text

    def _render(self, messages: Messages, prompt: bool = False) -> str:
        spoken = [_role_and_content(message) for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(spoken, tokenize=False, add_generation_prompt=prompt)
        except (TemplateError, IndexError, TypeError, ValueError) as error:
            roles = ", ".join(message["role"] for message in spoken) or "none"
            raise BadInput(f"{self.name}: the chat template refuses a dialogue of roles {roles}: {error}") from error
        return self._one_bos(text)

    def _one_bos(self, text: str) -> str:
        """The text without a second begin-of-text token at its start; those a template writes inside (Llama 2) stay."""
        bos = self.tokenizer.bos_token
        while bos and text.startswith(bos + bos):
            text = text[len(bos) :]
        return text

    def _encode(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids [T] and character offsets [T, 2] of one tokenisation; no special token is added."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return np.array(encoded["input_ids"], np.int32), np.array(encoded["offset_mapping"], np.int64).reshape(-1, 2)

    def _row(self, text: str, spans: Sequence[tuple[int, int]]) -> TokenRow:
        ids, offsets = self._encode(text)
        first, turns = offsets[:, 0], np.zeros_like(ids)
        for number, (begin, stop) in enumerate(spans, start=1):
            turns[(first >= begin) & (first < stop)] = number
        return self._kept(ids, turns)

    def _kept(self, ids: np.ndarray, turns: np.ndarray) -> TokenRow:
        return TokenRow(ids, turns, prefix=int(ids.size > 0 and ids[0] == self.bos_id))

    def _read_format(self) -> ChatFormat:
        asked, said = {"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}
        prompt, shown = self._render([asked], prompt=True), self._render([asked, said])
        before, _, header = prompt.partition(ASKED)
        content, found, tail = shown[len(prompt) :].partition(SAID)
        if not shown.startswith(prompt) or not found or content.strip() or header in ("", tail):
            raise BadInput(f"{self.name}: the chat template has no assistant header that a generation prompt ends with")
        ids, offsets = self._encode(tail)
        special = np.isin(ids, [*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder])
        if not special.any():
            raise BadInput(f"{self.name}: the chat template ends an agent turn with {tail!r}, not a special token")
        end, (_, stop) = self.tokenizer.convert_ids_to_tokens(int(ids[special][0])), offsets[special][0]
        bos = self.tokenizer.bos_token or ""
        bos = bos if prompt.startswith(bos) and bos not in header else ""
        specials = sorted((str(token) for token in self.tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
        opening = next((token for token in specials if before.startswith(token)), before)
        return ChatFormat(opening=opening, bos=bos, header=header, tail=tail, end=end, after=tail[stop:])

    def _declared_end_ids(self) -> list[int]:
        """End ids of the tokenizer and of the `generation_config.json` in its directory, which names one or several."""
        ids = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        path = Path(self.tokenizer.name_or_path or "") / "generation_config.json"
        if not self.tokenizer.name_or_path or not path.is_file():
            return ids
        try:
            named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id", [])
            return ids + [int(token) for token in (named if isinstance(named, list) else [named])]
        except (ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"{path}: 'eos_token_id' is not an id or a list of ids: {error}") from error
