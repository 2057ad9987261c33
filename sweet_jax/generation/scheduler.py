"""The batch: which request sits in which row, what it has to read, and what is drawn next. Runs in the engine's thread.

A request is a script of parts: what is read, what was drawn before and is read again in the same way (a session whose
cache was dropped), and then the turn itself. So a result depends on the ids, how they came in turns, the seed, the
sampling and the parameters, and on nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from colbench_env.types import BadInput
from models.llama import Llama
from sweet_jax.data.batch import bucket
from sweet_jax.generation.programs import READ_ON, RowInputs, make_programs, read_count
from sweet_jax.generation.requests import Letter, Ticket, Token, send
from sweet_jax.generation.sampling import RowSampling
from sweet_jax.generation.sessions import Part, Session, Sessions
from sweet_jax.mesh import put_rows

READ_BETWEEN = 2048  # tokens between two draws: how long a stream waits for prompts


@dataclass(eq=False)
class Seat:
    """A row that is taken. script: parts that still have to be read. length: tokens in the row's cache. ids: drawn."""

    ticket: Ticket
    session: Session
    script: deque[Part]
    length: int
    ids: list[int] = field(default_factory=list)

    @property
    def to_read(self) -> bool:
        """Whether something must be read before the next token."""
        return bool(self.script) and not self.script[0].drawn


class Batch:
    """R rows, their caches on the devices, and who waits for one: first come, first served."""

    def __init__(
        self, model: Llama, params: Any, end_ids: tuple[int, ...], pad_id: int,
        rows: int, buckets: tuple[int, ...], chunk: int, parked_bytes: int,
    ):  # fmt: skip
        self._params, self._mesh, self._pad_id, self._end_ids = params, model.mesh, pad_id, frozenset(end_ids)
        self._rows, self._buckets, self._chunk = rows, buckets, chunk
        self._programs = make_programs(model, end_ids, rows, buckets[-1], chunk)
        self._state = self._programs.state()
        self._sessions = Sessions(parked_bytes)
        self._waiting: deque[Ticket] = deque()
        self._seats: dict[int, Seat] = {}  # row -> who sits there, in the order in which they came
        self._free = deque(range(rows))
        self._letters: list[Letter] = []  # of this step, to be sent together

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._seats

    def tickets(self) -> list[Ticket]:
        """Everybody who waits for something."""
        return [*self._waiting, *(seat.ticket for seat in self._seats.values())]

    def add(self, ticket: Ticket) -> None:
        self._waiting.append(ticket)

    def forget(self, name: Hashable) -> None:
        """Drops a session; a turn that is being drawn is drawn to its end."""
        session = self._sessions.forget(name)
        if session is not None and not session.busy:
            self._release(session)

    def step(self) -> None:
        """Lets go of those who have gone, seats who waits, reads what is to be read, draws.

        While a turn is being drawn, prompts are read up to READ_BETWEEN tokens at a time, and then a token is drawn.
        A token is also all that is drawn of the first turns after a rest, as others may come right behind them: what
        they would miss, they would have to draw alone.
        """
        try:
            self._step()
        finally:
            send(self._letters)
            self._letters.clear()

    def _step(self) -> None:
        for row, seat in list(self._seats.items()):
            if seat.ticket.cancelled:
                self._leave(row, kept=False)
        self._seat()
        under_way = any(seat.ids or (seat.script and not seat.to_read) for seat in self._seats.values())
        read = 0
        while (read < READ_BETWEEN or not under_way) and (size := self._read()):
            read += size
        if self._seats:
            unread = any(seat.to_read for seat in self._seats.values())
            self._draw(self._chunk if under_way and not unread else 1)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _seat(self) -> None:
        while self._waiting:
            ticket = self._waiting[0]
            if ticket.cancelled:
                self._waiting.popleft()
                continue
            if not self._free and len(self._seats) == self._rows:
                return
            self._waiting.popleft()
            try:
                self._take_row(ticket)
            except BadInput as error:  # of this request; it has changed nothing
                self._letters.append((ticket, error))

    def _take_row(self, ticket: Ticket) -> None:
        request = ticket.request
        session = Session() if request.session is None else self._sessions.take(request.session)
        new = Part(session.new_ids(request.ids), drawn=False)
        if session.row is not None:
            row = session.row
        else:
            if not self._free:
                self._park(self._sessions.resting())
            row = self._free.popleft()
            cache = self._sessions.unpark(session)
            if cache is not None:
                self._state = self._programs.unpark(self._state, cache, np.int32(row))
        held = session.row is not None or cache is not None
        script = deque([new] if held else [*session.parts, new])
        session.row, session.busy = row, True
        self._seats[row] = Seat(ticket, session, script, session.length if held else 0)
        session.parts.append(new)

    def _park(self, session: Session) -> None:
        length = bucket(session.length, self._buckets)
        self._sessions.park(session, jax.device_get(self._programs.park(self._state, np.int32(session.row), length)))
        self._release(session)

    def _release(self, session: Session) -> None:
        if session.row is not None:
            self._free.append(session.row)
            session.row = None

    def _leave(self, row: int, kept: bool) -> None:
        """Frees the row, or leaves the session resting there. What was drawn halfway is not kept: the session goes."""
        seat = self._seats.pop(row)
        name, session = seat.ticket.request.session, seat.session
        session.busy = False
        if kept and name is not None and self._sessions.holds(name, session):
            session.parts.append(Part(tuple(seat.ids), drawn=True))
            return
        if self._sessions.holds(name, session):
            self._sessions.forget(name)
        self._release(session)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self) -> int:
        """Reads one part, or READ_ON tokens of one, for as many rows as are read at once; equal prompts are read once.
        The tokens that the program took; 0: nothing is left."""
        waiting = {row: seat for row, seat in self._seats.items() if seat.to_read}
        if not waiting:
            return 0
        fresh = self._fresh(next(iter(waiting.values())))
        size = fresh or READ_ON
        count = read_count(self._mesh, self._rows, size)
        found: dict[Any, list[int]] = {}  # rows that read the same; the first of them is read
        for row, seat in waiting.items():
            if self._fresh(seat) == fresh:
                found.setdefault(seat.script[0].ids if fresh else row, []).append(row)
        groups = list(found.values())[:count]
        tokens_at, length_a = np.full((count, size), self._pad_id, np.int32), np.ones(count, np.int32)
        start_a, row_a = np.zeros(count, np.int32), np.full(count, self._rows, np.int32)  # a row that is not there
        for a, (row, *_) in enumerate(groups):
            seat = self._seats[row]
            part = seat.script.popleft()
            ids, rest = part.ids[:size], part.ids[size:]
            tokens_at[a, : len(ids)], length_a[a], start_a[a], row_a[a] = ids, len(ids), seat.length, row
            seat.length += len(ids)
            if rest:
                seat.script.appendleft(Part(rest, drawn=False))
        tokens_at, start_a, length_a, row_a = put_rows((tokens_at, start_a, length_a, row_a), self._mesh)
        if fresh:
            self._state = self._programs.read(self._params, self._state, tokens_at, length_a, row_a)
        else:
            self._state = self._programs.read_on(self._params, self._state, tokens_at, start_a, length_a, row_a)
        for row, *others in groups:
            for other in others:
                self._state = self._programs.share(self._state, np.int32(row), np.int32(other), fresh)
                self._seats[other].script.popleft()
                self._seats[other].length = self._seats[row].length
        return count * size

    def _fresh(self, seat: Seat) -> int:
        """The bucket of a prompt that an empty row reads; 0 for a row that holds tokens, which reads on."""
        return 0 if seat.length else bucket(len(seat.script[0].ids), self._buckets)

    # --- drawing ------------------------------------------------------------------------------------------------------

    def _draw(self, steps: int) -> None:
        self._state, drawn = self._programs.decode(self._params, self._state, self._inputs(), np.int32(steps))
        drawn = jax.device_get(drawn)
        for row, seat in list(self._seats.items()):
            if seat.to_read:
                continue
            count = int(drawn.count_r[row])
            seat.length += count
            if seat.script:  # drawn before
                part = seat.script.popleft()
                if part.ids[count:]:
                    seat.script.appendleft(Part(part.ids[count:], drawn=True))
                continue
            request = seat.ticket.request
            ids, logps = drawn.ids_rc[row, :count].tolist(), drawn.logps_rc[row, :count].tolist()
            seat.ids += ids
            tops = [()] * count
            if request.tops:
                top_ids, top_logps = drawn.top_ids_rck[row].tolist(), drawn.top_logps_rck[row].tolist()
                tops = [tuple(zip(top_ids[c], top_logps[c], strict=True))[: request.tops] for c in range(count)]
            self._letters.append((seat.ticket, [Token(*token) for token in zip(ids, logps, tops, strict=True)]))
            if ids[-1] in self._end_ids or len(seat.ids) == request.sampling.max_new_tokens:
                self._leave(row, kept=True)
                self._letters.append((seat.ticket, None))

    def _inputs(self) -> RowInputs:
        rows = self._rows
        ints = {name: np.zeros(rows, np.int32) for name in ("length", "step", "left", "top_k")}
        seed_r, sample_r = np.zeros(rows, np.uint32), np.zeros(rows, np.uint32)
        temperature_r, top_p_r = np.zeros(rows, np.float32), np.ones(rows, np.float32)
        forced_rc, tops_r = np.full((rows, self._chunk), -1, np.int32), np.zeros(rows, bool)
        for row, seat in self._seats.items():
            if seat.to_read:  # the row idles
                continue
            request, sampling = seat.ticket.request, seat.ticket.request.sampling
            ints["length"][row], ints["step"][row], ints["top_k"][row] = seat.length, len(seat.ids), sampling.top_k
            seed_r[row], sample_r[row] = request.seed, request.sample
            temperature_r[row], top_p_r[row] = sampling.temperature, sampling.top_p
            if seat.script:
                again = seat.script[0].ids[: self._chunk]
                forced_rc[row, : len(again)], ints["left"][row] = again, len(again)
            else:
                ints["left"][row] = sampling.max_new_tokens - len(seat.ids)
                tops_r[row] = request.tops > 0
        inputs = RowInputs(
            ints["length"], seed_r, sample_r, ints["step"], ints["left"], forced_rc,
            RowSampling(temperature_r, ints["top_k"], top_p_r), tops_r,
        )  # fmt: skip
        return put_rows(inputs, self._mesh)
