"""The engine: a thread that draws for everybody who asks, from any asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Hashable, Sequence
from typing import Any

import numpy as np

from colbench_env.types import BadInput
from models.kv_cache import BLOCK
from models.llama import Llama
from sweet_jax.generation.requests import EngineClosed, PendingRequest, Request, Token, TokenEvent, check_room
from sweet_jax.generation.sampling import Sample
from sweet_jax.generation.scheduler import Scheduler


class Engine:
    """Draws turns of one model for many askers at once, in `rows` rows of at most `max_length` tokens.

    A result depends on the ids, how they came in turns of the session, the seed, the sampling and the parameters alone.
    params: laid out for inference (`models.inference`). chunk: tokens drawn between two looks at who came and who went.
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
        chunk: int = 8,
        block: int = BLOCK,
    ):
        if chunk < 1:
            raise BadInput(f"chunk is {chunk}, it must be at least 1")
        self.max_length, self._end_ids = max_length, frozenset(end_ids)
        self._scheduler = Scheduler(
            model, params, end_ids, pad_id,
            rows=rows, max_length=max_length, chunk=chunk, block=block, send=_send,
        )  # fmt: skip
        self._orders: queue.SimpleQueue[PendingRequest | _Forget | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._ended: str | None = None  # why no more is taken
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> str | None:
        """Why nothing is drawn any more; None while the engine works."""
        return self._ended

    async def stream(self, request: Request) -> AsyncGenerator[Token, None]:
        """Yield the tokens of the turn as they are drawn, its end token included; leaving the iterator frees the row.

        Raises as `bursts`.
        """
        async with contextlib.aclosing(self.bursts(request)) as bursts:
            async for burst in bursts:
                for token in burst:
                    yield token

    async def bursts(self, request: Request) -> AsyncGenerator[list[Token], None]:
        """Yield the tokens of the turn, as many together as were drawn between two looks; leaving frees the row.

        A session whose turn is left half-way is forgotten. BadInput where the prompt and the longest turn have no room,
        or the prompt does not go on from its session; EngineClosed where the engine ends before the turn.
        """
        check_room(request, self.max_length)
        pending = PendingRequest(request, _Inbox(asyncio.get_running_loop()))
        self._order(pending)
        try:
            while (event := await pending.owner.queue.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            pending.cancelled = True

    async def sample(self, request: Request) -> Sample:
        """Give the whole turn; raises as `bursts`."""
        tokens = [token async for burst in self.bursts(request) for token in burst]
        ids, logps = np.array([t.id for t in tokens], np.int32), np.array([t.logp for t in tokens], np.float32)
        return Sample(ids, logps, tokens[-1].id in self._end_ids)

    def asking(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: the thread draws whoever waits."""
        return contextlib.nullcontext()

    def forget(self, session: Hashable) -> None:
        """Drop the session and its cache; nothing happens where there is none."""
        with self._gate:
            self._orders.put(_Forget(session))

    def close(self) -> None:
        """End the thread. Who still waits is told EngineClosed."""
        with self._gate:
            self._orders.put(None)
        self._thread.join()

    def _order(self, pending: PendingRequest) -> None:
        with self._gate:  # so that no order comes after the thread has told everybody of its end
            if self._ended is not None:
                raise EngineClosed(self._ended)
            self._orders.put(pending)

    def _work(self) -> None:
        try:
            while self._take_orders():
                self._scheduler.step()
            self._end("the engine was closed", None)
        except BaseException as error:
            self._end(f"the engine has ended: {type(error).__name__}: {error}", error)

    def _take_orders(self) -> bool:
        """Take what was ordered, waiting where there is nothing to do; False: to be closed."""
        while True:
            try:
                order = self._orders.get(block=self._scheduler.idle)
            except queue.Empty:
                return True
            if order is None:
                return False
            if isinstance(order, PendingRequest):
                self._scheduler.add(order)
            else:
                self._scheduler.forget(order.session)

    def _end(self, why: str, cause: BaseException | None) -> None:
        with self._gate:
            self._ended = why
            waiting = self._scheduler.pending()
            while not self._orders.empty():
                order = self._orders.get()
                waiting += [order] if isinstance(order, PendingRequest) else []
        events: list[TokenEvent] = []
        for pending in waiting:
            error = EngineClosed(why)
            error.__cause__ = cause
            events.append((pending, error))
        _send(events)


class _Forget:
    """An order to forget a session."""

    def __init__(self, session: Hashable):
        self.session = session


class _Inbox:
    """Where events reach whoever waits: lists of tokens, then None or an exception, read in the loop that asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.loop = loop
        self.queue: asyncio.Queue[list[Token] | BaseException | None] = asyncio.Queue()


def _send(events: Sequence[TokenEvent]) -> None:
    """Put each event, in order, into its inbox; every loop is woken once for all of its events."""
    by_loop: dict[asyncio.AbstractEventLoop, list[TokenEvent]] = {}
    for event in events:
        by_loop.setdefault(event[0].owner.loop, []).append(event)
    for loop, its in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            loop.call_soon_threadsafe(_put, its)


def _put(events: Sequence[TokenEvent]) -> None:
    for pending, what in events:
        pending.owner.queue.put_nowait(what)
