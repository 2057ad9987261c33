"""The tokens of a reply while they come: as text in whole characters, as log-probs, and up to a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from typing import Any

from sweet_jax.data.token_bytes import TokenBytes
from sweet_jax.generation import Token

LEAST_LOGPROB = -9999.0  # OpenAI's value for a token that cannot be sampled


class Detokenizer:
    """The text of ids that come in pieces. What `add` and `end` give, joined, is the text of all of them."""

    def __init__(self, token_bytes: TokenBytes):
        self._token_bytes, self._begun = token_bytes, False
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, ids: Sequence[int]) -> str:
        """Return the text that is certain now: all but an unfinished character at the end."""
        found, self._begun = self._token_bytes.convert(ids, self._begun)
        return self._characters.decode(b"".join(found))

    def end(self) -> str:
        """Return the rest, the remains of an unfinished character included."""
        return self._characters.decode(b"", final=True)


class LogProbs:
    """The tokens of one reply in OpenAI's format: the bytes, joined, are those of the reply's text.

    Tokens outside the text (special ones and `end_ids`) are shown by their names, without bytes.
    """

    def __init__(self, token_bytes: TokenBytes, end_ids: Collection[int]):
        self._token_bytes, self._end_ids, self._begun = token_bytes, end_ids, False

    def add(self, tokens: Sequence[Token]) -> list[dict[str, Any]]:
        found = []
        for token in tokens:
            tops = [self._token_json(*each) for each in token.top]
            found.append(self._token_json(token.id, token.logp) | {"top_logprobs": tops})
            _, self._begun = self._token_bytes.convert([token.id], self._begun)
        return found

    def _token_json(self, token: int, logp: float) -> dict[str, Any]:
        content = b"" if token in self._end_ids else self._token_bytes.of(token, not self._begun)
        text = content.decode("utf-8", "replace") or self._token_bytes.name(token)
        return {"token": text, "logprob": max(logp, LEAST_LOGPROB), "bytes": list(content)}


class StopStrings:
    """Text up to the first of some strings, which may begin in one piece and end in another."""

    def __init__(self, stops: Sequence[str]):
        self._stops, self._held = tuple(stops), ""
        self.found = False

    def add(self, text: str) -> str:
        """Return what of the text so far is certain to be shown."""
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
        """Return what was held back, when no more text comes."""
        held, self._held = self._held, ""
        return "" if self.found else held
