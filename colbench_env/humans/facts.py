"""A fact that a user simulator knows, and the words by which somebody may ask for it."""

import re
from dataclasses import dataclass

_WORD = re.compile(r"[A-Za-z]+|\d+(?:\.\d+)?")
_STOP = frozenset(
    "the and for are was were with from that this what which when where how does should would could will can you your "
    "any there has have had not but its into use used using python function write want need please also than then them "
    "they it is in of to on or be do if an as at by we me my so no one each every given".split()
)


@dataclass(frozen=True)
class Fact:
    """A sentence that somebody can be told. kind: of Kind's names. words: what it is about, as `stems` gives it."""

    kind: str
    sentence: str
    words: frozenset[str]


def stems(text: str) -> frozenset[str]:
    """Cut the words of a text to their first five letters, without those that every text has.

    In: "Is the total_fine rounded?"   Out: {"total", "fine", "round"}
    """
    found = (word.lower() for word in _WORD.findall(text.replace("_", " ")))
    cut = (word[:5] if len(word) > 5 else word.removesuffix("s") for word in found if word not in _STOP)
    return frozenset(word for word in cut if len(word) > 2 or word.isdigit())
