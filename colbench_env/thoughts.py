"""What a reasoning model has said, told from what it has only thought.

Servers without a reasoning parser leave the scratchpad in the reply. In a user simulator's words it would give the
hidden solution away, so it is taken out of them; an agent's turn is the agent's own and stays as it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NAMES = "think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis"
_QUOTES = "`'\"“‘"  # a mark behind one of these is spoken of, not used
_MARK = re.compile(
    rf"(?P<open><[ \t]{{0,4}}(?:\w{{1,20}}:)?(?:{_NAMES})(?:\s[^<>]{{0,100}})?>"
    r"|◁\s{0,4}think\s{0,4}▷|\[think\]|<\|begin_of_thought\|>|<\|start_thinking\|>|<\|channel\|>\s?analysis(?:<\|message\|>)?)"
    rf"|<[ \t]{{0,4}}/[ \t]{{0,4}}(?:\w{{1,20}}:)?(?:{_NAMES})[ \t]{{0,4}}>"
    r"|◁\s{0,4}/\s{0,4}think\s{0,4}▷|\[/think\]|<\|end_of_thought\|>|<\|end_thinking\|>|<\|channel\|>\s?final(?:<\|message\|>)?",
    re.IGNORECASE,
)
_NOTHING_SAID = re.compile(r"(?:[\W_]|\b(?:you|user|human|client|assistant|reply|answer)\b)*", re.IGNORECASE)


class UnfinishedThought(ValueError):
    """A reply that is thought from its beginning to its end: nothing was said."""


@dataclass(frozen=True)
class Spoken:
    """text: what was said; it may be empty. thoughts: how many blocks of thought were taken out of it."""

    text: str
    thoughts: int


def without_thoughts(reply: str) -> Spoken:
    """Remove the `<think>...</think>` blocks of a reply, however they are spelled. Raises UnfinishedThought.

    In:  "<think>They want it down.</think> Round down."   Out: Spoken("Round down.", 1)
    In:  "They want it down.</think> Round down."          Out: Spoken("Round down.", 1)
    In:  "<think>They want it d"                           raises UnfinishedThought
    In:  "I see a <think> on my page."                     Out: Spoken("I see a <think> on my page.", 0)

    A closing mark without an opening one ends a thought that the prompt has opened. Takes time linear in the reply.
    """
    kept: list[str] = []
    start, thoughts, opened = 0, 0, None
    for mark in _marks(reply):
        if mark["open"]:
            opened = mark.start() if opened is None else opened
            continue
        if opened is None:
            kept.clear()
        else:
            kept.append(reply[start:opened])
        start, thoughts, opened = mark.end(), thoughts + 1, None
    if opened is not None and _NOTHING_SAID.fullmatch("".join(kept) + reply[start:opened]):
        raise UnfinishedThought(f"the reply is a thought that does not end: {reply[opened : opened + 40]!r}...")
    kept.append(reply[start:])
    return Spoken("".join(kept).strip(), thoughts) if thoughts else Spoken(reply, 0)


def opened_thought(prompt: str) -> str:
    """Return the mark with which a prompt opens a thought that the model is to end, "" where it opens none.

    In: "<|Assistant|><think>\\n"   Out: "<think>"
    """
    marks = list(_marks(prompt[-200:].rstrip()))
    last = marks[-1] if marks else None
    return last["open"] if last and last["open"] and last.end() == len(last.string) else ""


def _marks(text: str) -> Iterator[re.Match[str]]:
    return (mark for mark in _MARK.finditer(text) if text[mark.start() - 1 : mark.start()] not in tuple(_QUOTES))
