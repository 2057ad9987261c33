"""TRL's preference columns in conversational form: `prompt`, `chosen` and `rejected`, each a list of messages.

The text of a pair is split by the chat template that formatted it. What the template wrote between the messages, the
privileged text of critic pairs included, stands under COLBENCH, so that the way back gives the same text. A text of
messages that came from elsewhere is what the template makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from colbench_env.json_fields import quote, read_list, read_texts
from colbench_env.types import BadInput
from launch.data_tools.convert.chat_messages import CHAT, read_messages
from launch.data_tools.convert.dialogue import (
    COLBENCH,
    DIGEST,
    beside_of,
    check_digest,
    check_free,
    digest,
    pop_extra,
    with_extra,
)
from launch.data_tools.convert.pair_text import PairText, join_text, render_pair_text, split_pair_text
from launch.data_tools.convert.place import Place

if TYPE_CHECKING:
    from sweet_jax.data.chat import Chat

NAME = "trl"
SIDES = ("chosen", "rejected")
FRAMES = ("chosen_frames", "rejected_frames")

Messages = Sequence[tuple[str, str]]


def read(record: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a pair of a record. Raises BadInput."""
    location = place.location
    prompt = read_list(record, "prompt", location)
    extra = {key: value for key, value in record.items() if key not in ("prompt", *SIDES)}
    beside = beside_of(extra, location)
    sides = [_messages(prompt, read_list(record, side, location), f"prompt + {side}", location) for side in SIDES]
    check_digest(beside, digest(*sides), location)
    texts = {}
    for side, frames, messages in zip(SIDES, FRAMES, sides, strict=True):
        texts[side] = _text(beside, frames, messages, f"{location}: {side!r}", _chat(place))
    if len(prompt) != _shared(*sides):
        extra["prompt"] = len(prompt)
    return with_extra(texts | beside, NAME, extra, location)


def write(row: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a record of a pair. Raises BadInput where the chat template has not formatted its texts."""
    location = place.location
    row = dict(row)
    extra = dict(pop_extra(row, NAME, (*SIDES, COLBENCH)))
    check_free(row, (*FRAMES, DIGEST), location)
    split = [_split(row.pop(side), f"{location}: {side!r}", _chat(place)) for side in SIDES]
    sides = [text.messages for text in split]
    cut, same = extra.pop("prompt", _shared(*sides)), _same(*sides)
    if isinstance(cut, bool) or not isinstance(cut, int) or not 0 < cut <= same:
        found = f"begin with the same {same} messages, and the prompt has {cut!r}" if same and cut else "differ at once"
        raise BadInput(f"{location}: the two texts {found}, expected answers to one prompt")
    beside = row | {frames: list(text.frames) for frames, text in zip(FRAMES, split, strict=True)}
    record: dict[str, Any] = {"prompt": _spelled(sides[0][:cut])}
    record |= {side: _spelled(messages[cut:]) for side, messages in zip(SIDES, sides, strict=True)}
    return record | extra | {COLBENCH: beside | {DIGEST: digest(*sides)}}


def _chat(place: Place) -> Chat:
    if place.chat is None:
        raise ValueError("pairs are split by a chat template, and there is none")
    return place.chat


def _messages(prompt: list[Any], values: list[Any], name: str, location: str) -> tuple[tuple[str, str], ...]:
    if not values:
        raise BadInput(f"{location}: {quote(name.removeprefix('prompt + '))} is empty, expected the agent's message")
    dialogue = read_messages(prompt + values, CHAT, {}, location, name)
    for position, said in enumerate(dialogue.messages):
        if said.extra:
            keys = ", ".join(map(quote, said.extra))
            place = f"{location}: {name}[{position + (dialogue.system is not None)}]"
            raise BadInput(f"{place} has {keys}, which the text of a pair has no place for")
    opening = () if dialogue.system is None else (("system", dialogue.system),)
    return (*opening, *((said.role, said.content) for said in dialogue.messages))


def _text(beside: dict[str, Any], key: str, messages: Messages, place: str, chat: Chat) -> str:
    """Take the frames of a text from what stands beside it, or render it where there are none."""
    if key not in beside:
        try:
            return render_pair_text(messages, chat)
        except BadInput as problem:
            raise BadInput(f"{place}: {problem}") from None
    frames = read_texts(beside, key, f"{place}: {COLBENCH}")
    if len(frames) != len(messages) + 1:
        raise BadInput(f"{place}: {COLBENCH}: {key!r} has {len(frames)} texts for {len(messages)} messages")
    del beside[key]
    return join_text([content for _, content in messages], frames)


def _split(text: str, place: str, chat: Chat) -> PairText:
    try:
        return split_pair_text(text, chat.format)
    except BadInput as problem:
        raise BadInput(f"{place}: {problem}") from None


def _same(chosen: Messages, rejected: Messages) -> int:
    """Count the messages with which both begin, at most all but the last of the shorter one."""
    pairs = zip(chosen[:-1], rejected[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _shared(chosen: Messages, rejected: Messages) -> int:
    """Count the messages of the prompt: as many as are the same, if the agent's turns follow on both sides."""
    same = _same(chosen, rejected)
    return same if not same or chosen[same][0] == rejected[same][0] == "assistant" else same - 1


def _spelled(messages: Messages) -> list[dict[str, Any]]:
    return [CHAT.write(role, content, {}) for role, content in messages]
