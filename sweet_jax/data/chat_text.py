"""Split a dialogue in the released layout, a single string, into privileged text, messages and template text.

The strings of the chat template are searched in the text. A message may contain them, too: a text that can be read in
two ways is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from colbench_env.types import BadInput
from sweet_jax.data.chat_format import ChatFormat


@dataclass(frozen=True)
class Piece:
    """A part of a dialogue.

    is_content: whether it is from a message; otherwise the chat template wrote it.
    turn: the number of the agent turn (from 1) to which its tokens belong as action tokens, 0 for none.
    """

    text: str
    is_content: bool = False
    turn: int = 0


@dataclass(frozen=True)
class SplitText:
    """A split dialogue.

    prefix: the privileged text before the dialogue, "" for none.
    pieces: of the dialogue, in order; every agent turn ends with its end-of-turn token.
    """

    prefix: str
    pieces: tuple[Piece, ...]


def split_text(text: str, chat: ChatFormat, prompt: bool = False) -> SplitText:
    """Split a text in the released layout. A last turn without its end, as in released critic pairs, gets one.

    prompt: whether the text ends with an assistant header. BadInput, without a location, for a text without an agent
    turn (or header), or one that can be read in more than one way.
    """
    finish = chat.tail + chat.after
    if not prompt and chat.after.strip() and text.endswith(finish):
        text = text.removesuffix(chat.after)
    headers = [found.span() for found in re.finditer(re.escape(chat.header), text)]
    if not headers:
        raise BadInput(f"no agent turn in the text, which holds no header {chat.header!r}")
    opening = text[: headers[0][0]]
    start = _start(opening, chat)
    while chat.bos and opening.endswith(chat.bos, 0, start):
        start -= len(chat.bos)
    pieces = list(_opening_pieces(opening[start:], chat))
    for turn, (begin, stop) in enumerate(headers, start=1):
        if chat.begun and text.startswith(chat.begun, stop):
            stop += len(chat.begun)
        pieces.append(Piece(text[begin:stop]))
        if turn < len(headers):
            pieces += _exchange(text[stop : headers[turn][0]], turn, chat)
        elif not prompt:
            pieces += _last_turn(text[stop:], turn, chat)
        elif text[stop:].strip():
            raise BadInput(f"the text ends with {text[-40:]!r}, expected the assistant header {chat.prompt_end!r}")
    if any(chat.before in piece.text for piece in pieces if piece.is_content):
        raise _ambiguous(chat.before, "where a dialogue may begin")
    prefix = opening[:start].removeprefix(chat.bos) if start else ""
    return SplitText(prefix, tuple(pieces))


def leaves_open(content: str, end: str) -> bool:
    """Say whether the end-of-turn token could also close a tag that the text before it leaves open.

    In:  "<p><s>old", "</s>"     Out: True
    In:  "<s>old</s> x", "</s>"  Out: False
    """
    if not (tag := re.fullmatch(r"</(\w+)>", end)):
        return False
    return len(re.findall(rf"<{tag[1]}(?:\s[^<>]*)?>", content)) > content.count(end)


def check_end(content: str, end: str, what: str) -> None:
    """Raise BadInput, without a location, where the `end` of a turn may be text. what: the turn's name."""
    if leaves_open(content, end):
        raise BadInput(
            f"{what} ends with {end!r}, which may be its end-of-turn token or close the tag that the turn leaves open, "
            f"so it cannot be told what was said: where it is text, add the token {end!r}"
        )


def _ambiguous(what: str, location: str) -> BadInput:
    return BadInput(
        f"the text holds {what!r} more than once {location}, so it cannot be told where the dialogue's parts are"
    )


def _start(opening: str, chat: ChatFormat) -> int:
    """Find the position at which the dialogue begins in the text before the first header."""
    for bos in dict.fromkeys((chat.bos, "")):
        exact = _beginnings(opening, chat, bos)
        if len(exact) > 1:
            raise _ambiguous(chat.before, "before the first agent turn")
        if exact:
            return exact[0]
    places = [found.start() for found in re.finditer(re.escape(chat.opening), opening)]
    if len(places) > 1 and (chat.bos or places[0] > 0):
        raise _ambiguous(chat.opening, "before the first agent turn")
    if not places:
        raise BadInput(f"the dialogue does not begin with {chat.before!r}, as the chat template begins one")
    return places[0]


def _beginnings(opening: str, chat: ChatFormat, bos: str) -> list[int]:
    """Find every position where a dialogue of this template may begin, with a system prompt or without."""
    before = bos + chat.before.removeprefix(chat.bos)
    plain = {found.start() for found in re.finditer(re.escape(before), opening)} if before else set()
    with_system = []
    if chat.system is not None and (first := bos + chat.system[0].removeprefix(chat.bos)):
        for found in re.finditer(re.escape(first), opening):
            stop = opening.find(chat.system[1], found.end())
            if stop >= 0:
                with_system.append(found.start())
                # What follows the system prompt may look like the beginning of a dialogue without one (ChatML).
                plain.discard(stop + len(chat.system[1]) - len(before))
    return sorted(plain | set(with_system))


def _opening_pieces(opening: str, chat: ChatFormat) -> Iterator[Piece]:
    """Split the text before the first header; one template piece where this template would not write it so."""
    bos, begin = (chat.bos if opening.startswith(chat.bos) else ""), 0
    while bos and opening.startswith(bos, begin):  # the released code writes it twice
        begin += len(bos)
    written = opening[begin:]
    before = chat.before.removeprefix(chat.bos)
    yield Piece(bos)
    if before and written.startswith(before):
        yield from (Piece(before), Piece(written[len(before) :], is_content=True))
        return
    if chat.system is not None and written.startswith(first := chat.system[0].removeprefix(chat.bos)):
        system, between, user = written[len(first) :].partition(chat.system[1])
        if between:
            yield from (Piece(first), Piece(system, is_content=True), Piece(between), Piece(user, is_content=True))
            return
    yield Piece(written)


def _exchange(text: str, turn: int, chat: ChatFormat) -> Iterator[Piece]:
    """Split the text between two headers: the agent's message, its end, and the user's reply."""
    frame = chat.tail + chat.reply
    if text.count(frame) == 1:
        content, reply = text.split(frame)
        yield from (*_turn(content, chat.tail, turn, chat), Piece(chat.reply), Piece(reply, is_content=True))
    elif frame not in text and text.count(chat.end) == 1:  # the human's turn is not written as this template writes it
        content, reply = text.split(chat.end)
        if chat.before in reply:
            raise _ambiguous(chat.before, "where a dialogue may begin")
        yield from (*_turn(content, chat.end, turn, chat), Piece(reply))
    elif chat.end in text:
        raise _ambiguous(frame if frame in text else chat.end, f"in agent turn {turn} and the reply to it")
    else:
        raise BadInput(f"agent turn {turn} does not end with {chat.end!r}")


def _last_turn(text: str, turn: int, chat: ChatFormat) -> Iterator[Piece]:
    """Split the text after the last header: the agent's message, and whatever follows it."""
    frame = chat.tail + chat.reply
    if chat.reply.strip() and frame in text:
        exchange, end, after = text.rpartition(chat.human_end) if chat.human_end else ("", "", text)
        if frame not in exchange or after.strip():
            raise BadInput(
                f"the text holds {frame!r} in agent turn {turn}, the last one, and does not end as the human's turns "
                "do, so it cannot be told whether the agent or the human said what follows"
            )
        yield from (*_exchange(exchange, turn, chat), Piece(end + after))  # the human has the last word
        return
    content = text.rstrip()
    if content.endswith(chat.end):
        content = content.removesuffix(chat.end)
        check_end(content, chat.end, f"agent turn {turn}")
        yield from _turn(content, chat.end, turn, chat)
    elif chat.end in text:
        raise BadInput(f"agent turn {turn} holds {chat.end!r} before its end, so it cannot be told where the turn ends")
    else:
        yield from _turn(text, chat.end, turn, chat)


def _turn(content: str, tail: str, turn: int, chat: ChatFormat) -> Iterator[Piece]:
    recorded = content.removesuffix(chat.end)  # with its end
    content = content if leaves_open(recorded, chat.end) else recorded
    yield from (Piece(content, is_content=True, turn=turn), Piece(tail, turn=turn))
