"""Dialogue text to token ids and back, with the turn of every token; all read from the tokenizer's own chat template.

The template is rendered for a dialogue and for its beginnings: an agent's turn is what stands behind the prompt that is
a beginning of the dialogue, compared with what was said, never told by lengths. Character spans become token spans
through the offsets of ONE tokenisation of the whole text, so a row never depends on how its pieces would be tokenised
alone. Sampled ids stay as they are: `continue_ids` makes only those after. What somebody said is text, even where it
spells a special token (`control_tokens`).

A token is counted when its first character lies in the turn. A token that begins in the header and reaches into the
content (possible only where the header does not end in a special token) is header: the prompt, not the agent, began it.
More than blanks may not be lost in this way.
"""

import datetime
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from colbench_env.types import BadInput, Message
from models.config import LlamaConfig, check_config_file
from models.json_settings import ModelError, read_object, token_ids
from sweet_jax.data.batch import TokenRow
from sweet_jax.data.chat_format import ASKED, PROMPT_DATE, REPLIED, SAID, read_format, set_template_date
from sweet_jax.data.chat_text import Piece, check_end, split_text
from sweet_jax.data.control_tokens import ControlTokens

Messages = Sequence[Message | Mapping[str, str]]  # the same entry as a row's object: "role" and "content" are looked at
Ids = Sequence[int] | np.ndarray


def privileged_prefix(reference: str) -> str:
    """The text that shows the critic training-time information `reference` (wording of the released data)."""
    return f"In light that the final answer is: {reference}."


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

    date: what templates show that ask for today's; the same on every day, so that prompts are. shows_date: whether
    this one asks.
    format: the template's strings. turn_end_id: the template's end-of-turn token. end_ids: all ids that stop the
    sampler (template, tokenizer, `generation_config.json` and `config.json` beside it), ascending. pad_id: may equal an
    end id. bos_id: None when the template writes no begin-of-text token of its own.
    BadInput: no chat template, or one in which an agent's turn cannot be found (see `chat_format.read_format`).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, date: datetime.date = PROMPT_DATE):
        self.tokenizer = tokenizer
        self.name = tokenizer.name_or_path or "the tokenizer"
        if not tokenizer.is_fast:
            raise BadInput(
                f"{self.name}: {type(tokenizer).__name__} does not tell where in the text a token stands; a tokenizer "
                "that transformers loads as a fast one is needed (tokenizer.json, or a sentencepiece tokenizer.model)"
            )
        if not tokenizer.chat_template:
            raise BadInput(f"{self.name}: the tokenizer has no chat template")
        self._template, self._variables = set_template_date(tokenizer.get_chat_template(), date)
        self.shows_date = bool(self._variables)
        added = [str(token) for token in tokenizer.added_tokens_decoder.values() if str(token).strip()]
        self.format = read_format(
            self.name,
            lambda said, prompt: self._render([{"role": role, "content": text} for role, text in said], prompt),
            sorted({*added, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token)),
            tokenizer.bos_token or "",
        )
        shown = self.format.before + self.format.header + self.format.tail + self.format.reply
        self._control = ControlTokens(tokenizer, [token for token in added if token in shown])
        self._check_ten_turns()
        self._blank_after_special = self._puts_a_blank_after_special_tokens()
        self.turn_end_id: int = tokenizer.convert_tokens_to_ids(self.format.end)
        self.bos_id: int | None = tokenizer.bos_token_id if self.format.bos else None
        self.end_ids: tuple[int, ...] = tuple(sorted({self.turn_end_id, *self._declared_end_ids()}))
        self._ends = [text for text in tokenizer.convert_ids_to_tokens(list(self.end_ids)) if text]
        self.pad_id: int = self.turn_end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @classmethod
    def load(cls, directory: str | Path, date: datetime.date = PROMPT_DATE) -> "Chat":
        """The chat of a Hugging Face tokenizer directory; BadInput when there is none. No code of its own is run."""
        if not Path(directory).is_dir():
            raise BadInput(f"{directory}: no such directory; expected a Hugging Face tokenizer directory")
        try:
            check_config_file(directory)  # it is read to find the tokenizer
        except ModelError as error:
            raise BadInput(str(error)) from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # a malformed tokenizer.json gives a KeyError or a bare Exception, too
            if "trust_remote_code" in str(error):
                raise BadInput(
                    f"{directory}: the tokenizer is code of its own ('auto_map'), which is never run; expected a "
                    "tokenizer that transformers itself has"
                ) from error
            raise BadInput(f"{directory}: the tokenizer cannot be read: {_reason(error)}") from error
        return cls(tokenizer, date)

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Ids the agent goes on from: the dialogue and the next assistant header."""
        return self._control.encode(self._render(self._spoken(messages), prompt=True))[0].tolist()

    def turn_ids(self, messages: Messages) -> TokenRow:
        """The whole dialogue in one tokenisation, with the number of the agent turn for each counted token.

        Counted are what the agent said and the end-of-turn token; template text behind the last agent turn is left out.
        BadInput where the template does not show an agent's turn as it was said (blanks at its ends may go), or
        rewrites what stands before it, so that no prompt is a beginning of the dialogue.

            In:  user "hi", assistant "ho"      (Llama-3 format)
            Out: ids   <bos> <start> user <end> \\n\\n hi <eot> <start> assistant <end> \\n\\n ho <eot>
                 turns   0      0     0    0     0   0   0     0        0        0     0   1   1
        """
        messages, spans = self._spoken(messages), []
        open_end = bool(messages) and messages[-1]["role"] == "assistant"
        # Rendered as part of a longer one: templates may end a finished dialogue in their own way.
        text = self._render([*messages, {"role": "user", "content": REPLIED}] if open_end else messages)
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                begin = self._header_end(text, messages[:index], index)
                spans.append((begin, self._turn_end(text, begin, message["content"], index)))
        return self._row(text[: spans[-1][1]] if open_end else text, spans)

    def check_system(self, system: str) -> None:
        """Raises BadInput where the template cannot show this system prompt, or moves it as a dialogue grows."""
        told = [{"role": "system", "content": system}] if system else []
        exchange = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
        self.prompt_ids([*told, exchange[0]])
        self.turn_ids([*told, *exchange, *exchange])

    def continue_ids(self, ids_so_far: Ids, reply_text: str) -> list[int]:
        """Ids to append after an agent turn: the human's reply and the next assistant header.

        They begin with the end-of-turn id when `ids_so_far` ends with no end id (the sampler stopped for length); that
        id was not sampled and is not counted. Sampled ids are never encoded again. BadInput where the template writes
        this reply in another frame than others.
        """
        shown = self.format
        exchange = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
        reply = {"role": "user", "content": self._control.hide(reply_text)}
        text = self._render([*exchange, reply], prompt=True)
        so_far = shown.before + ASKED + shown.header + shown.lead + SAID + shown.tail
        if not text.startswith(so_far + shown.reply) or not text.endswith(shown.prompt_end):
            raise BadInput(f"{self.name}: the chat template writes another frame around the reply {reply_text[:60]!r}")
        # Encoded behind the end-of-turn token, so that its first token is that of the whole text.
        following = self._control.encode(shown.end + text.removeprefix(so_far))[0][1:].tolist()
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

        A last turn without its end, as in the released critic pairs, is given one, and it is counted. BadInput, without
        a place, when there is no agent turn or the text can be read in two ways (see `chat_text`).
        """
        split = split_text(text, self.format)
        row = self._row_of_pieces(split.pieces)
        return self.add_prefix(row, split.prefix) if split.prefix else row

    def text_prompt_ids(self, text: str) -> list[int]:
        """Ids of a prompt in the released layout: a dialogue as the template formats it, up to an assistant header.

        BadInput as `row_from_text`, or where there is text before the dialogue.
        """
        split = split_text(text, self.format, prompt=True)
        if split.prefix:
            raise BadInput(f"text stands before the dialogue, which begins with {self.format.before!r}")
        return self._row_of_pieces(split.pieces).ids.tolist()

    def text_turn_ids(self, text: str) -> list[int]:
        """Ids of an agent turn given as text, with or without its end, as they would be sampled after a header.

        BadInput, without a place, where it cannot be told whether the text ends with an end-of-turn token.
        """
        end, said = self.format.end, self.said_text(text)
        if said != text:
            check_end(said, text.rstrip().removeprefix(said), "the turn")
        return self._control.encode(end + self._control.hide(said) + end)[0][1:].tolist()

    def said_text(self, output: str, content: str = "") -> str:
        """An agent's output without the end-of-turn token with which it may have been recorded.

        content: what both sides saw of it, where that is known: an end that stands there, too, was said and is text.
        """
        text = output.rstrip()
        end = next((end for end in self._ends if text.endswith(end)), None)
        said = output if end is None else text.removesuffix(end)
        was_said = end is not None and content.rstrip().endswith(end) and not said.rstrip().endswith(end)
        return output if was_said else said

    def drop_prefix(self, row: TokenRow) -> TokenRow:
        """The row without its privileged text; the begin-of-text token stays."""
        front = int(row.ids.size > 0 and row.ids[0] == self.bos_id)
        kept = np.r_[0:front, row.prefix : len(row)]
        return TokenRow(row.ids[kept], row.turns[kept], front) if row.prefix > front else row

    def add_prefix(self, row: TokenRow, text: str) -> TokenRow:
        """The row with privileged text in front: the single begin-of-text token, the text, then the rest as it was."""
        front = row.prefix
        if front > int(self.bos_id is not None):
            raise ValueError(f"the row already has a privileged text: its prefix is {front} tokens long")
        prefix = self._control.encode(self._control.hide(text))[0]
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
        return self._decode(self._control.encode(text)[0]) != text

    def _spoken(self, messages: Messages) -> list[dict[str, str]]:
        """Roles and contents as the template takes them: hidden, for all that somebody said is text."""
        spoken = []
        for message in messages:
            entry = message if isinstance(message, Message) else Message(message["role"], message["content"])
            spoken.append({"role": entry.role, "content": self._control.hide(entry.content)})
        return spoken

    def _header_end(self, text: str, before: list[dict[str, str]], index: int) -> int:
        """Where in the text of a dialogue the agent's words of message `index` begin, which follows `before`."""
        prompt = self._render(before, prompt=True)
        for opened in (prompt, prompt.removesuffix(self.format.begun)):
            if text.startswith(opened):
                return len(opened)
        raise BadInput(f"{self.name}: the chat template rewrites what stands before message {index} when more follows")

    def _turn_end(self, text: str, begin: int, said: str, index: int) -> int:
        for shown in (said, said.strip(), said.rstrip(), said.lstrip()):
            for lead in ("", self.format.lead):
                if text.startswith(turn := lead + shown + self.format.tail, begin):
                    return begin + len(turn)
        raise BadInput(f"{self.name}: the chat template does not show message {index} as it was said")

    def _check_ten_turns(self) -> None:
        """Raises BadInput unless a dialogue of ten turns goes on as the one of two does."""
        messages = [{"role": role, "content": text} for role, text in (("user", ASKED), ("assistant", SAID))] * 10
        shown = self.format
        turn = ASKED + shown.header + shown.lead + SAID + shown.tail + shown.reply
        if self._render(messages[:-1], prompt=True) != shown.before + turn * 9 + ASKED + shown.prompt_end:
            raise BadInput(f"{self.name}: the chat template rewrites earlier turns when more messages follow")

    def _render(self, spoken: list[dict[str, str]], prompt: bool = False) -> str:
        """The template's text of messages whose contents are hidden (see `control_tokens`)."""
        try:
            text = self.tokenizer.apply_chat_template(
                spoken, chat_template=self._template, tokenize=False, add_generation_prompt=prompt, **self._variables
            )
        except Exception as error:  # whatever a template does wrong, ZeroDivisionError among it
            roles = ", ".join(message["role"] for message in spoken) or "none"
            raise BadInput(f"{self.name}: the chat template refuses a dialogue of roles {roles}: {error}") from error
        return self._one_bos(text)

    def _one_bos(self, text: str) -> str:
        """The text without a second begin-of-text token at its start; those a template writes inside (Llama 2) stay."""
        bos, begin = self.tokenizer.bos_token, 0
        while bos and text.startswith(bos + bos, begin):
            begin += len(bos)
        return text[begin:]

    def _row(self, text: str, spans: Sequence[tuple[int, int]]) -> TokenRow:
        ids, offsets = self._control.encode(text)
        first, turns = offsets[:, 0], np.zeros_like(ids)
        for number, (begin, stop) in enumerate(spans, start=1):
            turns[(first >= begin) & (first < stop)] = number
            across = offsets[(first < begin) & (offsets[:, 1] > begin), 1]
            if across.size and text[begin : across.max()].strip():
                raise BadInput(
                    f"{self.name}: a token of the tokenizer reaches from the assistant header into what the agent said "
                    f"in turn {number}, so it cannot be counted: the header should end with a special token"
                )
        return self._kept(ids, turns)

    def _row_of_pieces(self, pieces: Iterable[Piece]) -> TokenRow:
        text, spans = "", {}
        for piece in pieces:
            begin, text = len(text), text + (self._control.hide(piece.text) if piece.said else piece.text)
            if piece.turn:
                spans[piece.turn] = spans.get(piece.turn, (begin,))[0], len(text)
        return self._row(text, list(spans.values()))

    def _kept(self, ids: np.ndarray, turns: np.ndarray) -> TokenRow:
        return TokenRow(ids, turns, prefix=int(ids.size > 0 and ids[0] == self.bos_id))

    def _declared_end_ids(self) -> list[int]:
        """End ids of the tokenizer, and of `generation_config.json` and `config.json` in its directory."""
        ids = [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]
        if self.tokenizer.name_or_path:
            for name in ("generation_config.json", "config.json"):
                path = Path(self.tokenizer.name_or_path) / name
                ids += _end_ids_of(path) if path.is_file() else []
        return ids


def _end_ids_of(path: Path) -> list[int]:
    """`eos_token_id` of a JSON file: an id, a list of ids, or null or missing for none. Raises BadInput."""
    try:
        settings = read_object(path)
    except ModelError as error:
        raise BadInput(str(error)) from error
    try:
        return list(token_ids(settings, "eos_token_id"))
    except ModelError as error:
        raise BadInput(f"{path}: {error}") from error


def _reason(error: Exception) -> str:
    """The error in one line of at most 300 characters."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else f"{text[:299]}…"
