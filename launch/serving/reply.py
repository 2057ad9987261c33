"""Tokens as text while they come: whole characters only, and nothing that a stop string may still swallow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\ufffd"  # what the bytes of half a character are decoded to


class Detokenizer:
    """The text of ids that come in pieces. What `add` and `end` give, joined, is the text of all of them."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown, self._context = 0, 0  # ids whose text was given, and from where they are decoded again

    def add(self, ids: Sequence[int]) -> str:
        """What is certain now, which is all but an unfinished character at the end."""
        self._ids += ids
        return self._more(last=False)

    def end(self) -> str:
        """The rest: what remains of an unfinished character, too."""
        return self._more(last=True)

    def _more(self, last: bool) -> str:
        # A token's text may depend on the tokens before it (blanks), so it is decoded behind those shown last.
        before = self._decode(self._ids[self._context : self._shown])
        for end in range(len(self._ids), self._shown, -1):
            text = self._decode(self._ids[self._context : end])
            if last or not text.endswith(UNFINISHED):
                self._context, self._shown = self._shown, end
                return text[len(before) :]
        return ""

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


class StopStrings:
    """Text up to the first of some strings, which may begin in one piece and end in another."""

    def __init__(self, stops: Sequence[str]):
        self._stops, self._held = tuple(stops), ""
        self.found = False

    def add(self, text: str) -> str:
        """What of the text so far is certain to be shown."""
        if self.found:
            return ""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.found = True
            return self._held[: min(places)]
        keep = max((n for stop in self._stops for n in range(1, len(stop)) if self._held.endswith(stop[:n])), default=0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def end(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return "" if self.found else held
