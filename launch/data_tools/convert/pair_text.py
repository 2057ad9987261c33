"""The text of a pair as messages, and what the chat template wrote between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from colbench_env.types import BadInput
from sweet_jax.data.chat_format import ChatFormat
from sweet_jax.data.chat_text import split_text

if TYPE_CHECKING:
    from sweet_jax.data.chat import Chat


@dataclass(frozen=True)
class PairText:
    """A split text. messages: role and content, the agent last. frames: before, between and after the contents."""

    messages: tuple[tuple[str, str], ...]
    frames: tuple[str, ...]


def join_text(contents: Sequence[str], frames: Sequence[str]) -> str:
    """Put a text together again: one frame more than there are contents."""
    return "".join(part for both in zip_longest(frames, contents, fillvalue="") for part in both)


def split_pair_text(text: str, chat: ChatFormat) -> PairText:
    """Split a text in the released layout; `join_text` of the parts is the text.

    Raises BadInput, without a location, where `chat_text.split_text` does, and where a message is not told apart.
    """
    split = split_text(text, chat)
    messages: list[tuple[str, str]] = []
    frames: list[str] = []
    at = (len(chat.bos) * text.startswith(chat.bos) + len(split.prefix)) if split.prefix else 0
    begin = 0
    for piece in split.pieces:
        if not piece.is_content:
            # What lies between is a token that the text has twice; a piece that is not found, the end that it lacks.
            found = text.find(piece.text, at)
            at = len(text) if found < 0 else found + len(piece.text)
            continue
        content = piece.text
        if piece.turn and chat.lead and content.startswith(chat.lead):
            at, content = at + len(chat.lead), content.removeprefix(chat.lead)
        if not text.startswith(content, at):
            raise BadInput(f"message {len(messages) + 1} cannot be told from what the chat template writes around it")
        opens = piece.turn == 0 and not any(role == "assistant" for role, _ in messages)
        messages.append(("assistant" if piece.turn else "opening" if opens else "user", content))
        frames.append(text[begin:at])
        begin = at = at + len(content)
    frames.append(text[begin:])
    return PairText(tuple(_with_roles(messages)), tuple(frames))


def render_pair_text(messages: Sequence[tuple[str, str]], chat: Chat) -> str:
    """Write messages as the chat template does, up to the agent's last end of turn.

    Raises BadInput, without a location, where the text would not give these messages again.
    """
    row = chat.turn_ids([{"role": role, "content": content} for role, content in messages])
    text = chat.decode(row.ids)
    try:
        found = split_pair_text(text, chat.format).messages
    except BadInput as problem:
        raise BadInput(f"{chat.name}: the text of these messages cannot be split again: {problem}") from None
    if found != tuple(messages):
        raise BadInput(f"{chat.name}: the chat template does not show the messages as they are")
    return text


def _with_roles(messages: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Name the messages before the first agent turn: a system prompt and the user's, or the user's alone."""
    opening = [content for role, content in messages if role == "opening"]
    names = {1: ["user"], 2: ["system", "user"]}.get(len(opening))
    if names is None:
        raise BadInput("the text does not begin as the chat template begins a dialogue, so there is no first message")
    named = [*zip(names, opening, strict=True), *messages[len(opening) :]]
    said = [role for role, _ in named if role != "system"]
    if said != ["user", "assistant"] * (len(said) // 2):
        raise BadInput("user and agent do not alternate in the text, the agent last, as the chat template writes them")
    return named
