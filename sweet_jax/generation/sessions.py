"""Dialogues that go on: what was read and drawn in each, and where its cache lies."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from colbench_env.types import BadInput

Parked = tuple[np.ndarray, np.ndarray]
"""Keys and values [L, P, G, H] of one row, cut to a bucket of lengths."""


@dataclass(frozen=True)
class Part:
    """Some ids of a dialogue that were read together, or drawn in one turn."""

    ids: tuple[int, ...]
    drawn: bool


@dataclass(eq=False)
class Session:
    """A dialogue between two turns or in one.

    parts: what its cache holds, in the order in which it came there; read and drawn parts take turns. row: where it
    rests in the batch. parked: its cache in the host's memory. Where both are None the parts are read again, in the
    same way. busy: a turn is being drawn.
    """

    parts: list[Part] = field(default_factory=list)
    row: int | None = None
    parked: Parked | None = None
    busy: bool = False

    @property
    def length(self) -> int:
        return sum(len(part.ids) for part in self.parts)

    def new_ids(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Give what `ids` add to the session; BadInput where they do not go on from it."""
        if len(ids) <= self.length:
            raise BadInput(f"the session holds {self.length} tokens, and the prompt of {len(ids)} adds none")
        ids = tuple(ids)
        place = 0
        for part in self.parts:
            if ids[place : place + len(part.ids)] != part.ids:
                n = next(n for n, old in enumerate(part.ids) if ids[place + n] != old)
                raise BadInput(
                    f"token {place + n} of the prompt is {ids[place + n]}, and the session holds {part.ids[n]} there"
                )
            place += len(part.ids)
        return ids[place:]


class Sessions:
    """All sessions, the least recently used first. Parked caches take at most `limit` bytes of the host's memory: of
    more, those used least recently are dropped, and read again when their sessions go on."""

    def __init__(self, limit: int):
        self._limit, self._bytes = limit, 0
        self._by_name: dict[Hashable, Session] = {}

    def take(self, name: Hashable) -> Session:
        """Find the session of that name, new where there is none, as the one used last; BadInput while it is busy."""
        session = self._by_name.pop(name, None) or Session()
        self._by_name[name] = session
        if session.busy:
            raise BadInput(f"session {name!r} is drawing a turn already")
        return session

    def holds(self, name: Hashable, session: Session) -> bool:
        """Whether the session has not been forgotten meanwhile."""
        return self._by_name.get(name) is session

    def forget(self, name: Hashable) -> Session | None:
        """Take the session out, if there is one."""
        session = self._by_name.pop(name, None)
        if session is not None:
            self.unpark(session)
        return session

    def park(self, session: Session, cache: Parked) -> None:
        """Keep the cache; what is over the limit is dropped."""
        session.parked = cache
        self._bytes += _bytes(cache)
        for other in self._by_name.values():
            if self._bytes <= self._limit:
                return
            self.unpark(other)

    def unpark(self, session: Session) -> Parked | None:
        """Take the parked cache, which is kept no longer."""
        cache, session.parked = session.parked, None
        self._bytes -= 0 if cache is None else _bytes(cache)
        return cache

    def resting(self) -> Session | None:
        """Find the session that has rested in a row for longest."""
        return next(
            (session for session in self._by_name.values() if session.row is not None and not session.busy), None
        )


def _bytes(cache: Parked) -> int:
    return sum(array.nbytes for array in cache)
