"""Dialogues that go on: what was read and drawn in each."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from colbench_env.types import BadInput
from sweet_jax.generation.prefixes import Part


@dataclass(eq=False)
class Session:
    """A dialogue between two turns or in one.

    ids: said so far. parts: of these what has been computed, all but the last token, in the order in which it was; they
    are found in the cache, or computed again in the same way. busy: a turn is being drawn.
    """

    ids: tuple[int, ...] = ()
    parts: list[Part] = field(default_factory=list)
    busy: bool = False

    def check(self, ids: Sequence[int]) -> None:
        """Raise BadInput where `ids` do not go on from the session."""
        if len(ids) <= len(self.ids):
            raise BadInput(f"the session holds {len(self.ids)} tokens, and the prompt of {len(ids)} adds none")
        for place, (old, new) in enumerate(zip(self.ids, ids, strict=False)):
            if old != new:
                raise BadInput(f"token {place} of the prompt is {new}, and the session holds {old} there")


class Sessions:
    """All sessions by name."""

    def __init__(self) -> None:
        self._by_name: dict[Hashable, Session] = {}

    def take(self, name: Hashable) -> Session:
        """Find the session of that name, new where there is none; BadInput while it is busy."""
        session = self._by_name.setdefault(name, Session())
        if session.busy:
            raise BadInput(f"session {name!r} is drawing a turn already")
        return session

    def holds(self, name: Hashable, session: Session) -> bool:
        """Whether the session has not been forgotten meanwhile."""
        return self._by_name.get(name) is session

    def forget(self, name: Hashable) -> Session | None:
        """Take the session out, if there is one."""
        return self._by_name.pop(name, None)
