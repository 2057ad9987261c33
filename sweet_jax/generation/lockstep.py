"""An engine without a thread: it computes when all who may ask wait, so that what it computes does not depend on time.

Every process of a mesh that spans processes computes the same, as long as all ask for the same in the same order.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from models.kv_cache import BLOCK
from models.llama import Llama
from sweet_jax.generation.requests import PendingRequest, Request, Token, TokenEvent, check_room
from sweet_jax.generation.sampling import Sample
from sweet_jax.generation.scheduler import Scheduler

CHUNK = 32  # tokens
REFILL = 0.5  # of the rows: drawing stops when as many have ended and others may take them


class Lockstep:
    """Who may ask, and when their engines draw: when as many requests wait as tasks may ask.

    Of several engines with waiting requests each draws once, in the order in which they were made.
    """

    def __init__(self) -> None:
        self.engines: list[LockstepEngine] = []
        self._asking = 0

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Inside, one asyncio task may ask for turns, one at a time."""
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1
            self.plan()

    def plan(self) -> None:
        """Look again when all that is ready to run has run, and then draw."""
        if self._ready:
            asyncio.get_running_loop().call_soon(self._draw)

    @property
    def _ready(self) -> bool:
        waiting = sum(len(engine.waiting) for engine in self.engines)
        return waiting > 0 and waiting >= self._asking

    def _draw(self) -> None:
        while self._ready:
            for engine in self.engines:
                if engine.waiting:
                    engine.step()


class LockstepEngine:
    """Draws many turns side by side, in `rows` rows of at most `max_length` tokens, for one thread.

    Two ways to use it: `sample_all` and `sample_each` for requests that are all known, and `sample` from asyncio tasks
    that each hold an `asking` context while they may ask. A result depends on the ids, how they came in turns of the
    session, the seed, the sampling and the parameters alone.
    params: laid out for inference (`models.inference`). lockstep: shared by engines whose tasks wait for one another.
    block: tokens of a block of the cache.
    BadInput where the mesh's data axis does not divide the rows, or the network was not made for rows so long.
    """

    def __init__(
        self,
        model: Llama,
        params: Any,
        end_ids: Sequence[int],
        pad_id: int,
        rows: int = 32,
        max_length: int = 2048,
        lockstep: Lockstep | None = None,
        block: int = BLOCK,
    ):
        self.max_length, self.rows, self._end_ids = max_length, rows, frozenset(end_ids)
        self.waiting: set[_Turn] = set()  # of asyncio tasks
        self._lockstep = Lockstep() if lockstep is None else lockstep
        self._lockstep.engines.append(self)
        self._scheduler = Scheduler(
            model, params, end_ids, pad_id,
            rows=rows, max_length=max_length, chunk=CHUNK, block=block,
            send=self._collect, refill=max(1, int(REFILL * rows)),
        )  # fmt: skip

    def sample_all(self, requests: Sequence[Request]) -> list[Sample]:
        """Return the turn of every request, in order. Raises BadInput where one has no room."""
        found = dict(self.sample_each(requests))
        return [found[place] for place in range(len(requests))]

    def sample_each(self, requests: Sequence[Request]) -> Iterator[tuple[int, Sample]]:
        """Yield every request's place with its turn, as soon as it has ended. Raises BadInput where one has no room."""
        for request in requests:
            check_room(request, self.max_length)
        ended: deque[int] = deque()
        everything = [
            PendingRequest(request, _Turn(functools.partial(ended.append, place)))
            for place, request in enumerate(requests)
        ]
        for pending in everything:
            self._scheduler.add(pending)
        try:
            for _ in everything:
                while not ended:
                    self._scheduler.step()
                place = ended.popleft()
                yield place, self._sample(everything[place].owner)
        finally:
            for pending in everything:  # where the iterator is left half-way
                pending.cancelled = True

    def asking(self) -> contextlib.AbstractContextManager[None]:
        """Inside, one asyncio task may ask for turns, one at a time."""
        return self._lockstep.asking()

    async def sample(self, request: Request) -> Sample:
        """Return the turn. Raises BadInput where it has no room, or does not go on from its session."""
        check_room(request, self.max_length)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not future.done():
                future.set_result(None)

        turn = _Turn(wake)
        pending = PendingRequest(request, turn)
        self._scheduler.add(pending)
        self.waiting.add(turn)
        self._lockstep.plan()
        try:
            await future
        finally:
            pending.cancelled = True  # of no effect on a turn that is over
            self.waiting.discard(turn)
        return self._sample(turn)

    def forget(self, session: Hashable) -> None:
        """Drop the session and its cache; nothing happens where there is none."""
        self._scheduler.forget(session)

    def step(self) -> None:
        """Draw until rows have ended; an error of the devices reaches everybody who waits."""
        try:
            self._scheduler.step()
        except Exception as error:
            self._collect([(pending, error) for pending in self._scheduler.pending()])

    def _collect(self, events: Sequence[TokenEvent]) -> None:
        for pending, what in events:
            turn: _Turn = pending.owner
            if isinstance(what, list):
                turn.tokens += what
                continue
            turn.error = what
            self.waiting.discard(turn)
            turn.on_end()

    def _sample(self, turn: _Turn) -> Sample:
        if turn.error is not None:
            raise turn.error
        ids = np.array([token.id for token in turn.tokens], np.int32)
        logps = np.array([token.logp for token in turn.tokens], np.float32)
        return Sample(ids, logps, turn.tokens[-1].id in self._end_ids)


class _Turn:
    """What has come of a request so far. on_end: called when nothing more will come."""

    def __init__(self, on_end: Callable[[], None]):
        self.on_end = on_end
        self.tokens: list[Token] = []
        self.error: BaseException | None = None
