"""The scheduler: which request has which row, what it has to read, and what is drawn next.

A request is a script of parts: what is read, what was drawn before and is read again in the same way (a session whose
cache was dropped), and then the turn itself. So a result depends on the ids, how they came in turns, the seed, the
sampling and the parameters, and on nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from colbench_env.types import BadInput
from models.config import LlamaConfig
from models.llama import Llama
from sweet_jax.data.batch import bucket, default_buckets
from sweet_jax.generation.programs import EXTEND_BUCKETS, RowInputs, make_programs, prefill_count
from sweet_jax.generation.requests import PendingRequest, Token, TokenEvent
from sweet_jax.generation.sampling import RowSampling
from sweet_jax.generation.sessions import Part, Session, Sessions
from sweet_jax.mesh import check_rows, put_rows

SMALLEST_BUCKET = 64
PREFILL_BETWEEN = 2048  # tokens between two draws: how long a stream waits for prompts


def check_length(max_length: int, config: LlamaConfig) -> None:
    """Raise BadInput unless the network was made for rows of that many tokens, and they have room for a turn."""
    if not 2 <= max_length <= config.max_position_embeddings:
        raise BadInput(
            f"max_length is {max_length}, it must be at least 2 and at most the network's "
            f"{config.max_position_embeddings} positions"
        )


@dataclass(eq=False)
class Slot:
    """A row that is taken. script: parts that still have to be read. length: tokens in the row's cache. ids: drawn."""

    pending: PendingRequest
    session: Session
    script: deque[Part]
    length: int
    ids: list[int] = field(default_factory=list)

    @property
    def to_read(self) -> bool:
        """Whether something must be read before the next token."""
        return bool(self.script) and not self.script[0].drawn


class Scheduler:
    """R rows, their caches on the devices, and who waits for one: first come, first served.

    chunk: tokens drawn at most between two looks at who came and who went.
    send: is given the events of a step when it is over.
    Raises BadInput where the mesh's data axis does not divide the rows, or the network was not made for rows so long.
    refill: None while a stream may wait for every token (a server): prompts are read PREFILL_BETWEEN tokens at a time
    between two draws, and a chunk is drawn to its end. A number of rows where whoever can come has come: everything is
    read first, and drawing stops as soon as so many rows have ended, for others to take them.
    """

    def __init__(
        self,
        model: Llama,
        params: Any,
        end_ids: Sequence[int],
        pad_id: int,
        *,
        rows: int,
        max_length: int,
        chunk: int,
        parked_bytes: int,
        send: Callable[[Sequence[TokenEvent]], None],
        refill: int | None = None,
    ):
        check_rows(rows, model.mesh)
        check_length(max_length, model.config)
        self._params, self._mesh, self._pad_id, self._end_ids = params, model.mesh, pad_id, frozenset(end_ids)
        self._rows, self._chunk, self._send, self._refill = rows, chunk, send, refill
        self._buckets = default_buckets(max_length, SMALLEST_BUCKET)
        self._programs = make_programs(model, tuple(sorted(end_ids)), rows, max_length, chunk)
        self._state = self._programs.init()
        self._sessions = Sessions(parked_bytes)
        self._waiting: deque[PendingRequest] = deque()
        self._slots: dict[int, Slot] = {}  # by row, in the order in which they were taken
        self._free = deque(range(rows))
        self._events: list[TokenEvent] = []  # of this step, to be sent together

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._slots

    def pending(self) -> list[PendingRequest]:
        """Return everything that is not done."""
        return [*self._waiting, *(slot.pending for slot in self._slots.values())]

    def add(self, pending: PendingRequest) -> None:
        """Queue the request."""
        self._waiting.append(pending)

    def forget(self, name: Hashable) -> None:
        """Drop a session; a turn that is being drawn is drawn to its end."""
        session = self._sessions.forget(name)
        if session is not None and not session.busy:
            self._release(session)

    def step(self) -> None:
        """Free the rows of cancelled requests, give rows to who waits, read what is to be read, draw, send events."""
        try:
            self._step()
        finally:
            events, self._events = self._events, []
            self._send(events)

    def _step(self) -> None:
        for row, slot in list(self._slots.items()):
            if slot.pending.cancelled:
                self._leave(row, kept=False)
        self._fill_rows()
        if self._refill is not None:
            while self._prefill():
                pass
            if self._slots:
                self._draw(self._chunk, max(0, len(self._slots) - self._refill))
            return
        under_way = any(slot.ids or (slot.script and not slot.to_read) for slot in self._slots.values())
        tokens = 0
        while (tokens < PREFILL_BETWEEN or not under_way) and (size := self._prefill()):
            tokens += size
        if self._slots:
            # A token is all that is drawn of the first turns after a rest, as others may come right behind them: what
            # they would miss, they would have to draw alone.
            unread = any(slot.to_read for slot in self._slots.values())
            self._draw(self._chunk if under_way and not unread else 1, 0)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _fill_rows(self) -> None:
        while self._waiting:
            pending = self._waiting[0]
            if pending.cancelled:
                self._waiting.popleft()
                continue
            if not self._free and len(self._slots) == self._rows:
                return
            self._waiting.popleft()
            try:
                self._take_row(pending)
            except BadInput as error:  # of this request; it has changed nothing
                self._events.append((pending, error))

    def _take_row(self, pending: PendingRequest) -> None:
        request = pending.request
        session = Session() if request.session is None else self._sessions.take(request.session)
        new = Part(session.new_ids(request.ids), drawn=False)
        cache = None
        if session.row is not None:
            row, held = session.row, True
        else:
            if not self._free:
                self._park()
            row = self._free.popleft()
            cache = self._sessions.unpark(session)
            held = cache is not None
            if held:
                self._state = self._programs.unpark(self._state, cache, np.int32(row))
        script = deque([new] if held else [*session.parts, new])
        session.row, session.busy = row, True
        self._slots[row] = Slot(pending, session, script, session.length if held else 0)
        session.parts.append(new)

    def _park(self) -> None:
        """Move the cache that has rested for longest to the host's memory, as every row is taken or rested in."""
        session = self._sessions.resting()
        assert session is not None and session.row is not None
        length = bucket(session.length, self._buckets)
        self._sessions.park(session, jax.device_get(self._programs.park(self._state, np.int32(session.row), length)))
        self._release(session)

    def _release(self, session: Session) -> None:
        if session.row is not None:
            self._free.append(session.row)
            session.row = None

    def _leave(self, row: int, kept: bool) -> None:
        """Free the row, or leave the session resting there. What was drawn halfway is not kept: the session goes."""
        slot = self._slots.pop(row)
        name, session = slot.pending.request.session, slot.session
        session.busy = False
        if kept and name is not None and self._sessions.holds(name, session):
            session.parts.append(Part(tuple(slot.ids), drawn=True))
            return
        if self._sessions.holds(name, session):
            self._sessions.forget(name)
        self._release(session)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _prefill(self) -> int:
        """Read one part, or a piece of one, for as many rows as one program reads; equal prompts are read once.

        Prompts of one bucket go together. Returns the tokens that the program took; 0: nothing is left to read.
        """
        waiting = {row: slot for row, slot in self._slots.items() if slot.to_read}
        if not waiting:
            return 0
        fresh, size = self._program(next(iter(waiting.values())))
        count = prefill_count(self._mesh, self._rows, size)
        groups: dict[Any, list[int]] = {}  # rows that read the same
        for row, slot in waiting.items():
            if self._program(slot) == (fresh, size):
                groups.setdefault(slot.script[0].ids if fresh else row, []).append(row)
        copied = any(others for _, *others in list(groups.values())[:count])
        read = dict(enumerate(list(groups.values())[:count])) if copied else self._places(groups.values(), count)
        tokens_at, length_a = np.full((count, size), self._pad_id, np.int32), np.ones(count, np.int32)
        start_a, row_a = np.zeros(count, np.int32), np.full(count, self._rows, np.int32)  # a row that is not there
        for a, (row, *others) in read.items():
            slot = self._slots[row]
            part = slot.script.popleft()
            ids, rest = part.ids[:size], part.ids[size:]
            tokens_at[a, : len(ids)], length_a[a], start_a[a], row_a[a] = ids, len(ids), slot.length, row
            slot.length += len(ids)
            if rest:
                slot.script.appendleft(Part(rest, drawn=False))
            for other in others:
                self._slots[other].script.popleft()
                self._slots[other].length = slot.length
        tokens_at, start_a, length_a, row_a = put_rows((tokens_at, start_a, length_a, row_a), self._mesh)
        if fresh:
            copies = self._copies(read) if copied else None
            self._state = self._programs.prefill(self._params, self._state, tokens_at, length_a, row_a, copies)
        else:
            self._state = self._programs.extend(self._params, self._state, tokens_at, start_a, length_a, row_a)
        return count * size

    def _program(self, slot: Slot) -> tuple[bool, int]:
        """Return whether the slot's row is empty, and the bucket of tokens that it reads next."""
        tokens = len(slot.script[0].ids)
        if not slot.length:
            return True, bucket(tokens, self._buckets)
        return False, next((size for size in EXTEND_BUCKETS if tokens <= size), EXTEND_BUCKETS[-1])

    def _places(self, groups: Iterable[list[int]], count: int) -> dict[int, list[int]]:
        """Give rows places in a program of `count`, each on the device that holds the row, while it has some."""
        devices = self._mesh.shape["data"]
        free = [deque(range(d * count // devices, (d + 1) * count // devices)) for d in range(devices)]
        own = self._rows // devices
        return {free[group[0] // own].popleft(): group for group in groups if free[group[0] // own]}

    def _copies(self, read: Mapping[int, Sequence[int]]) -> Any:
        """Return which prompt of the program goes to which row, an entry for every row of the batch, in its place."""
        source_r, row_r = np.zeros(self._rows, np.int32), np.full(self._rows, self._rows, np.int32)
        for a, rows in read.items():
            for row in rows:
                source_r[row], row_r[row] = a, row
        return put_rows((source_r, row_r), self._mesh)

    # --- drawing ------------------------------------------------------------------------------------------------------

    def _draw(self, steps: int, stop_at: int) -> None:
        inputs = self._inputs()
        self._state, output = self._programs.decode(
            self._params, self._state, inputs, np.int32(steps), np.int32(stop_at)
        )
        ids_rc, logps_rc, count_r = jax.device_get((output.ids_rc, output.logps_rc, output.count_r))
        tops: Any = None
        if any(slot.pending.request.tops for slot in self._slots.values()):
            tops = jax.device_get((output.top_ids_rck, output.top_logps_rck))
        for row, slot in list(self._slots.items()):
            if slot.to_read:
                continue
            count = int(count_r[row])
            slot.length += count
            if slot.script:  # drawn before
                part = slot.script.popleft()
                if part.ids[count:]:
                    slot.script.appendleft(Part(part.ids[count:], drawn=True))
                continue
            request, ids = slot.pending.request, ids_rc[row, :count].tolist()
            slot.ids += ids
            found: list[tuple[tuple[int, float], ...]] = [()] * count
            if request.tops:
                top_ids, top_logps = tops[0][row].tolist(), tops[1][row].tolist()
                found = [tuple(zip(top_ids[c], top_logps[c], strict=True))[: request.tops] for c in range(count)]
            logps = logps_rc[row, :count].tolist()
            self._events.append((slot.pending, [Token(*token) for token in zip(ids, logps, found, strict=True)]))
            if ids[-1] in self._end_ids or len(slot.ids) == request.sampling.max_new_tokens:
                self._leave(row, kept=True)
                self._events.append((slot.pending, None))

    def _inputs(self) -> RowInputs:
        rows = self._rows
        ints = {name: np.zeros(rows, np.int32) for name in ("length", "step", "remaining", "top_k")}
        seed_r, sample_r = np.zeros(rows, np.uint32), np.zeros(rows, np.uint32)
        temperature_r, top_p_r = np.zeros(rows, np.float32), np.ones(rows, np.float32)
        forced_rc, tops_r = np.full((rows, self._chunk), -1, np.int32), np.zeros(rows, bool)
        for row, slot in self._slots.items():
            if slot.to_read:  # the row idles
                continue
            request, sampling = slot.pending.request, slot.pending.request.sampling
            ints["length"][row], ints["step"][row], ints["top_k"][row] = slot.length, len(slot.ids), sampling.top_k
            seed_r[row], sample_r[row] = request.seed, request.sample
            temperature_r[row], top_p_r[row] = sampling.temperature, sampling.top_p
            if slot.script:
                again = slot.script[0].ids[: self._chunk]
                forced_rc[row, : len(again)], ints["remaining"][row] = again, len(again)
            else:
                ints["remaining"][row] = sampling.max_new_tokens - len(slot.ids)
                tops_r[row] = request.tops > 0
        inputs = RowInputs(
            ints["length"], seed_r, sample_r, ints["step"], ints["remaining"], forced_rc,
            RowSampling(temperature_r, ints["top_k"], top_p_r), tops_r,
        )  # fmt: skip
        return put_rows(inputs, self._mesh)
