"""Convert dialogues to token ids and back, with the turn of every token, by the tokenizer's own chat template.

An agent's turn is found by rendering the template for the dialogue and for the prompt before that turn: the turn is the
text after the prompt, compared with the message. Character spans become token spans through the offsets of one
tokenisation of the whole text, so a row never depends on how its parts would be tokenised alone. Sampled ids are never
encoded again: `continue_ids` makes only the ids after them. The content of a message is text, even where it spells a
special token (`control_tokens`).

A token is an action token if its first character lies in the turn. A token that begins in the header and reaches into
the content (possible only where the header does not end in a special token) belongs to the header: the agent did not
begin it. Only blanks may be lost this way.
"""

import datetime
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from colbench_env.types import BadInput, Message
from models.config import LlamaConfig
from sweet_jax.data.batch import TokenRow
from sweet_jax.data.chat_format import AGENT_PROBE, PROMPT_DATE, REPLY_PROBE, USER_PROBE, read_format, set_template_date
from sweet_jax.data.chat_text import Piece, check_end, split_text
from sweet_jax.data.control_tokens import ControlTokens
from sweet_jax.data.tokenizer_files import declared_end_ids, load_tokenizer

Messages = Sequence[Message | Mapping[str, str]]  # of a mapping "role" and "content" are read
Ids = Sequence[int] | np.ndarray


def privileged_prefix(reference: str) -> str:
    """Word the privileged text that shows the critic the reference solution (wording of the released data)."""
    return f"In light that the final answer is: {reference}."


def check_vocabulary(chat: "Chat", config: LlamaConfig) -> None:
    """Raise BadInput where the tokenizer has ids for which the network has no embedding. (Fewer ids are fine.)"""
    highest = max(chat.tokenizer.get_vocab().values())
    if highest >= config.vocab_size:
        raise BadInput(
            f"{chat.name}: the tokenizer has ids up to {highest}, the model's embedding has {config.vocab_size} rows, "
            f"for ids up to {config.vocab_size - 1}"
        )


class Chat:
    """The token ids of dialogues, for one tokenizer.

    date: shown by templates that ask for today's; fixed, so that prompts are the same on every day.
    shows_date: whether this template asks for it.
    format: the template's fixed strings.
    turn_end_id: the template's end-of-turn token.
    end_ids: all ids that stop the sampler, ascending; of the template, the tokenizer, and `generation_config.json` and
    `config.json` in its directory.
    pad_id: may equal an end id.
    bos_id: the begin-of-text token; None when the template writes none of its own.
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
            lambda probe, prompt: self._render([{"role": role, "content": text} for role, text in probe], prompt),
            sorted({*added, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token)),
            tokenizer.bos_token or "",
        )
        shown = self.format.before + self.format.header + self.format.tail + self.format.reply
        self._control = ControlTokens(tokenizer, [token for token in added if token in shown])
        self._check_ten_turns()
        self._blank_after_special = self._puts_a_blank_after_special_tokens()
        self.turn_end_id: int = self._control.id_of(self.format.end)
        self.bos_id: int | None = tokenizer.bos_token_id if self.format.bos else None
        self.end_ids: tuple[int, ...] = tuple(sorted({self.turn_end_id, *declared_end_ids(tokenizer)}))
        self._ends = [text for text in tokenizer.convert_ids_to_tokens(list(self.end_ids)) if text]
        self.pad_id: int = self.turn_end_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @classmethod
    def load(cls, directory: str | Path, date: datetime.date = PROMPT_DATE) -> "Chat":
        """Load a Hugging Face tokenizer directory, without running code of its own. BadInput when there is none."""
        return cls(load_tokenizer(directory), date)

    def prompt_ids(self, messages: Messages) -> list[int]:
        """Encode the prompt of the agent's next turn: the dialogue and the assistant header."""
        return self._control.encode(self._render(self._hide(messages), prompt=True))[0].tolist()

    def turn_ids(self, messages: Messages) -> TokenRow:
        """Encode a whole dialogue in one tokenisation, with the turn of each action token.

        Action tokens are the agent's content and the end-of-turn token. Template text after the last agent turn is left
        out. BadInput where the template changes an agent's content (blanks at its ends may go), or rewrites the text
        before it, so that the dialogue does not begin with the prompt.

            In:  user "hi", assistant "ho"      (Llama-3 format)
            Out: ids   <bos> <start> user <end> \\n\\n hi <eot> <start> assistant <end> \\n\\n ho <eot>
                 turns   0      0     0    0     0   0   0     0        0        0     0   1   1
        """
        hidden = self._hide(messages)
        spans: list[tuple[int, int]] = []
        open_end = bool(hidden) and hidden[-1]["role"] == "assistant"
        # Rendered as part of a longer dialogue, since a template may end a finished one differently.
        text = self._render([*hidden, {"role": "user", "content": REPLY_PROBE}] if open_end else hidden)
        for index, message in enumerate(hidden):
            if message["role"] == "assistant":
                begin = self._header_end(text, hidden[:index], index)
                spans.append((begin, self._turn_end(text, begin, message["content"], index)))
        return self._row(text[: spans[-1][1]] if open_end else text, spans)

    def check_system(self, system: str) -> None:
        """Raise BadInput where the template cannot show this system prompt, or moves it as a dialogue grows."""
        opening = [{"role": "system", "content": system}] if system else []
        exchange = [{"role": "user", "content": USER_PROBE}, {"role": "assistant", "content": AGENT_PROBE}]
        self.prompt_ids([*opening, exchange[0]])
        self.turn_ids([*opening, *exchange, *exchange])

    def continue_ids(self, ids_so_far: Ids, reply_text: str) -> list[int]:
        """Encode what follows an agent turn: the user's reply and the next assistant header.

        The ids begin with the end-of-turn id when `ids_so_far` ends without an end id (the sampler stopped for length);
        that id was not sampled and is no action token. Sampled ids are never encoded again. BadInput where the template
        writes other text around this reply than around others.
        """
        shown = self.format
        exchange = [{"role": "user", "content": USER_PROBE}, {"role": "assistant", "content": AGENT_PROBE}]
        reply = {"role": "user", "content": self._control.hide(reply_text)}
        text = self._render([*exchange, reply], prompt=True)
        so_far = shown.before + USER_PROBE + shown.header + shown.lead + AGENT_PROBE + shown.tail
        if not text.startswith(so_far + shown.reply) or not text.endswith(shown.prompt_end):
            raise BadInput(f"{self.name}: the chat template writes another frame around the reply {reply_text[:60]!r}")
        # Encoded after the end-of-turn token, so that its first token is as in the whole text.
        following = self._control.encode(shown.end + text.removeprefix(so_far))[0][1:].tolist()
        return following if ids_so_far[-1] in self.end_ids else [self.turn_end_id, *following]

    def row_from_turns(self, prompt_ids: Ids, turns: Sequence[tuple[Ids, Ids]]) -> TokenRow:
        """Make the row of a sampled dialogue; a turn is the sampled ids (action tokens), and the ids that follow them.

        In:  prompt_ids [1, 7, 8], turns [([5, 2], [9, 9]), ([6], [])]
        Out: ids [1, 7, 8, 5, 2, 9, 9, 6], turns [0, 0, 0, 1, 1, 0, 0, 2]
        """
        ids, numbers = list(prompt_ids), [0] * len(prompt_ids)
        for number, (output_ids, following_ids) in enumerate(turns, start=1):
            ids += [*output_ids, *following_ids]
            numbers += [number] * len(output_ids) + [0] * len(following_ids)
        return self._kept(np.array(ids, np.int32), np.array(numbers, np.int32))

    def row_from_text(self, text: str) -> TokenRow:
        """Encode a string in the released layout: privileged text, then the dialogue as the template formats it.

        A last turn without its end, as in the released critic pairs, gets one as an action token. BadInput, without a
        location, when there is no agent turn or the text can be read in two ways (see `chat_text`).
        """
        split = split_text(text, self.format)
        row = self._row_of_pieces(split.pieces)
        return self.add_prefix(row, split.prefix) if split.prefix else row

    def text_prompt_ids(self, text: str) -> list[int]:
        """Encode a prompt in the released layout: a dialogue as the template formats it, up to an assistant header.

        BadInput as in `row_from_text`, or where there is text before the dialogue.
        """
        split = split_text(text, self.format, prompt=True)
        if split.prefix:
            raise BadInput(f"text stands before the dialogue, which begins with {self.format.before!r}")
        return self._row_of_pieces(split.pieces).ids.tolist()

    def text_turn_ids(self, text: str) -> list[int]:
        """Encode an agent turn given as text, with or without its end, as it would be sampled after a header.

        BadInput, without a location, where the text may or may not end with an end-of-turn token.
        """
        end, content = self.format.end, self.strip_turn_end(text)
        if content != text:
            check_end(content, text.rstrip().removeprefix(content), "the turn")
        return self._control.encode(end + self._control.hide(content) + end)[0][1:].tolist()

    def strip_turn_end(self, output: str, content: str = "") -> str:
        """Strip the end-of-turn token with which an agent's output may have been recorded.

        content: the message that both sides saw, where it is known: an end in it, too, is text and stays.
        """
        text = output.rstrip()
        end = next((end for end in self._ends if text.endswith(end)), None)
        stripped = output if end is None else text.removesuffix(end)
        is_content = end is not None and content.rstrip().endswith(end) and not stripped.rstrip().endswith(end)
        return output if is_content else stripped

    def drop_prefix(self, row: TokenRow) -> TokenRow:
        """Drop the privileged text of a row; the begin-of-text token stays."""
        front = int(row.ids.size > 0 and row.ids[0] == self.bos_id)
        kept = np.r_[0:front, row.prefix : len(row)]
        return TokenRow(row.ids[kept], row.turns[kept], front) if row.prefix > front else row

    def add_prefix(self, row: TokenRow, text: str) -> TokenRow:
        """Add privileged text to a row: after its begin-of-text token, before all others.

        Raises ValueError where the row has a privileged text already.
        """
        front = row.prefix
        if front > int(self.bos_id is not None):
            raise ValueError(f"the row already has a privileged text: its prefix is {front} tokens long")
        prefix = self._control.encode(self._control.hide(text))[0]
        ids = np.concatenate([row.ids[:front], prefix, row.ids[front:]])
        turns = np.concatenate([row.turns[:front], np.zeros_like(prefix), row.turns[front:]])
        return TokenRow(ids, turns, front + prefix.size)

    def decode(self, ids: Ids) -> str:
        """Decode the ids, special tokens included."""
        if not self._blank_after_special:
            return self._decode(ids)
        runs = itertools.groupby(map(int, ids), key=self.tokenizer.added_tokens_decoder.__contains__)
        return "".join(self._decode(list(run)) for _, run in runs)

    def reply_text(self, output_ids: Ids) -> str:
        """Decode the message of a sampled turn: the text before the first end id, without special tokens."""
        stop = next((t for t, token in enumerate(output_ids) if token in self.end_ids), len(output_ids))
        return self._decode(output_ids[:stop], skip_special_tokens=True)

    def _decode(self, ids: Ids, skip_special_tokens: bool = False) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
            )
        )

    def _puts_a_blank_after_special_tokens(self) -> bool:
        """Say whether text after a special token is encoded with a blank before it that is not in the text.

        Sentencepiece tokenizers in their first form do so (Llama 2's own). Their decoder drops the blank only at the
        beginning of what it decodes, so each such text must be decoded alone.
        """
        text = self.format.end + USER_PROBE
        return self._decode(self._control.encode(text)[0]) != text

    def _hide(self, messages: Messages) -> list[dict[str, str]]:
        """Convert messages for the template, with the control strings of their contents hidden."""
        hidden = []
        for message in messages:
            entry = message if isinstance(message, Message) else Message(message["role"], message["content"])
            hidden.append({"role": entry.role, "content": self._control.hide(entry.content)})
        return hidden

    def _header_end(self, text: str, before: list[dict[str, str]], index: int) -> int:
        """Find where the agent's message `index`, which follows the messages `before`, begins in a dialogue's text."""
        prompt = self._render(before, prompt=True)
        for start in (prompt, prompt.removesuffix(self.format.begun)):
            if text.startswith(start):
                return len(start)
        raise BadInput(f"{self.name}: the chat template rewrites what stands before message {index} when more follows")

    def _turn_end(self, text: str, begin: int, content: str, index: int) -> int:
        for shown in (content, content.strip(), content.rstrip(), content.lstrip()):
            for lead in ("", self.format.lead):
                if text.startswith(turn := lead + shown + self.format.tail, begin):
                    return begin + len(turn)
        raise BadInput(f"{self.name}: the chat template does not show message {index} as it was said")

    def _check_ten_turns(self) -> None:
        """Raise BadInput unless a dialogue of ten turns is written as one of two turns is."""
        messages = [
            {"role": role, "content": text} for role, text in (("user", USER_PROBE), ("assistant", AGENT_PROBE))
        ] * 10
        shown = self.format
        turn = USER_PROBE + shown.header + shown.lead + AGENT_PROBE + shown.tail + shown.reply
        if self._render(messages[:-1], prompt=True) != shown.before + turn * 9 + USER_PROBE + shown.prompt_end:
            raise BadInput(f"{self.name}: the chat template rewrites earlier turns when more messages follow")

    def _render(self, hidden: list[dict[str, str]], prompt: bool = False) -> str:
        """Render the template for messages whose contents are hidden (see `control_tokens`)."""
        variables: dict[str, Any] = self._variables
        try:
            text = self.tokenizer.apply_chat_template(
                hidden, chat_template=self._template, tokenize=False, add_generation_prompt=prompt, **variables
            )
        except Exception as error:  # a template may raise anything, ZeroDivisionError too
            roles = ", ".join(message["role"] for message in hidden) or "none"
            raise BadInput(f"{self.name}: the chat template refuses a dialogue of roles {roles}: {error}") from error
        return self._drop_second_bos(str(text))

    def _drop_second_bos(self, text: str) -> str:
        """Drop repeated begin-of-text tokens at the start; those that a template writes inside (Llama 2) stay."""
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
        text = ""
        spans: dict[int, tuple[int, int]] = {}
        for piece in pieces:
            begin, text = len(text), text + (self._control.hide(piece.text) if piece.is_content else piece.text)
            if piece.turn:
                spans[piece.turn] = spans.get(piece.turn, (begin,))[0], len(text)
        return self._row(text, list(spans.values()))

    def _kept(self, ids: np.ndarray, turns: np.ndarray) -> TokenRow:
        return TokenRow(ids, turns, prefix=int(ids.size > 0 and ids[0] == self.bos_id))
