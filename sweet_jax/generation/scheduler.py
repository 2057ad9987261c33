"""The scheduler: which request has which row, what it has to read, and what is drawn next.

A request is a script of parts: what is read, what was drawn before and is drawn again in the same way (a session whose
cache was dropped), and then the turn itself, which begins with the prompt's last token. Parts that are in the cache
are skipped, whoever computed them. So a result depends on the ids, how they came in turns, the seed, the sampling and
the parameters, and on nothing else.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from colbench_env.types import BadInput
from models.kv_cache import BLOCK
from models.llama import Llama
from sweet_jax.generation.prefixes import Growing, Part, PrefixCache, read_parts
from sweet_jax.generation.programs import RowInputs, TileInputs, make_programs, tiles_of
from sweet_jax.generation.requests import PendingRequest, Token, TokenEvent, check_length
from sweet_jax.generation.sampling import RowSampling
from sweet_jax.generation.sessions import Session, Sessions
from sweet_jax.mesh import check_rows, put_rows

FEW_COPIES = 8  # of blocks, of each device in one program
READ_BETWEEN = 2048  # tokens between two draws: how long a stream waits for prompts


@dataclass(eq=False)
class Slot:
    """A row that is taken. script: parts that still have to be computed. row: what its cache holds, of the first of
    these `done` tokens. ids: drawn."""

    pending: PendingRequest
    session: Session
    script: deque[Part]
    row: Growing
    done: int = 0
    ids: list[int] = field(default_factory=list)

    @property
    def to_read(self) -> bool:
        """Whether something must be read before the next token."""
        return bool(self.script) and not self.script[0].drawn

    @property
    def next_token(self) -> int:
        """The token that the next step begins with."""
        if self.script:
            return self.script[0].ids[self.done]
        return self.ids[-1] if self.ids else int(self.pending.request.ids[-1])

    @property
    def left(self) -> int:
        """Tokens that may be drawn at most, or were and are drawn again."""
        if self.script:
            return len(self.script[0].ids) - self.done
        return self.pending.request.sampling.max_new_tokens - len(self.ids)


class Scheduler:
    """R rows, the blocks of the cache, and who waits for a row: first come, first served.

    chunk: tokens drawn at most between two looks at who came and who went. block: tokens of a block of the cache, which
    has blocks for R rows of `max_length` tokens. send: is given the events of a step when it is over.
    Raises BadInput where the mesh's data axis does not divide the rows, or the network was not made for rows so long.
    refill: None while a stream may wait for every token (a server): prompts are read READ_BETWEEN tokens at a time
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
        send: Callable[[Sequence[TokenEvent]], None],
        block: int = BLOCK,
        refill: int | None = None,
    ):
        check_rows(rows, model.mesh)
        check_length(max_length, model.config)
        self._params, self._mesh, self._pad_id, self._end_ids = params, model.mesh, pad_id, frozenset(end_ids)
        self._rows, self._chunk, self._send, self._refill = rows, chunk, send, refill
        self._devices, self._room, self._tiles = model.mesh.shape["data"], -(-max_length // block), tiles_of(model.mesh)
        blocks = rows // self._devices * (self._room + 1)  # of a device; a row may hold a copy of a block of others
        self._prefixes = PrefixCache(self._devices, blocks, block)
        self._blocks = blocks * self._devices
        self._programs = make_programs(
            model, tuple(sorted(end_ids)), rows, self._blocks, block, self._room, chunk
        )  # fmt: skip
        self._state = self._programs.init()
        self._sessions = Sessions()
        self._waiting: deque[PendingRequest] = deque()
        self._slots: dict[int, Slot] = {}  # by row, in the order in which they were taken
        self._free = [deque(self._rows_of(device)) for device in range(self._devices)]
        self._events: list[TokenEvent] = []  # of this step, to be sent together

    def _rows_of(self, device: int) -> range:
        own = self._rows // self._devices
        return range(device * own, (device + 1) * own)

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
            self._prefixes.forget(session.parts)

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
            while self._read():
                pass
            if self._slots:
                self._draw(self._chunk, max(0, len(self._slots) - self._refill))
            return
        under_way = any(slot.ids or (slot.script and not slot.to_read) for slot in self._slots.values())
        tokens = 0
        while (tokens < READ_BETWEEN or not under_way) and (size := self._read()):
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
            if not any(self._free):
                return
            self._waiting.popleft()
            try:
                self._take_row(pending)
            except BadInput as error:  # of this request; it has changed nothing
                self._events.append((pending, error))

    def _take_row(self, pending: PendingRequest) -> None:
        request = pending.request
        session = Session() if request.session is None else self._sessions.take(request.session)
        session.check(request.ids)
        new = read_parts(request.ids[:-1], request.cuts, max(0, len(session.ids) - 1))
        script = [*session.parts, *new]
        # The device that holds most of it; of several the one with most free rows.
        matches = [len(self._prefixes.match(device, script)) for device in range(self._devices)]
        free = [device for device in range(self._devices) if self._free[device]]
        device = max(free, key=lambda device: (matches[device], len(self._free[device]), -device))
        session.parts, session.busy = script, True
        row = self._free[device].popleft()
        self._slots[row] = Slot(pending, session, deque(script), self._prefixes.begin(device))

    def _leave(self, row: int, kept: bool) -> None:
        """Free the row. What was drawn halfway is not kept: the session goes."""
        slot = self._slots.pop(row)
        name, session, request = slot.pending.request.session, slot.session, slot.pending.request
        session.busy = False
        held = name is not None and self._sessions.holds(name, session)
        if kept and held:
            drawn = Part((int(request.ids[-1]), *slot.ids[:-1]), drawn=True)
            self._prefixes.keep(slot.row, drawn)
            session.ids, session.parts = (*map(int, request.ids), *slot.ids), [*session.parts, drawn]
        elif held:
            self._sessions.forget(name)
        self._free[slot.row.prefix.device].append(row)
        self._prefixes.end(slot.row)
        if not (kept and held):
            self._prefixes.forget(session.parts)

    def _advance(self, slot: Slot) -> None:
        """Skip the parts that are in the cache."""
        while slot.script and not slot.done and self._prefixes.advance(slot.row, slot.script[0]):
            slot.script.popleft()

    def _add(self, slot: Slot, tokens: int) -> None:
        """Note that so many tokens of the script have been computed."""
        while tokens:
            size = min(tokens, len(slot.script[0].ids) - slot.done)
            slot.row.length += size
            slot.done += size
            tokens -= size
            if slot.done < len(slot.script[0].ids):
                return
            slot.done = 0
            if not self._prefixes.keep(slot.row, slot.script.popleft()):
                return  # the row goes on in the blocks of another, which do not have the rest

    def _reserve(self, wanted: Sequence[tuple[int, int]]) -> None:
        """Give rows room for so many tokens more, each at most once."""
        copies: list[list[tuple[int, int]]] = [[] for _ in range(self._devices)]
        for row, tokens in wanted:
            growing = self._slots[row].row
            copied = self._prefixes.reserve(growing, tokens)
            if copied is not None:
                copies[growing.prefix.device].append(copied)
        most = max(map(len, copies))
        if not most:
            return
        size = FEW_COPIES if most <= FEW_COPIES else self._rows // self._devices  # two programs
        source_dc, target_dc = np.zeros((2, self._devices, size), np.int32)
        target_dc[:] = self._blocks  # beyond the last: nothing is written
        for device, own in enumerate(copies):
            if own:
                source_dc[device, : len(own)], target_dc[device, : len(own)] = zip(*own, strict=True)
        self._state = self._programs.copy(self._state, *put_rows((source_dc.ravel(), target_dc.ravel()), self._mesh))

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self) -> int:
        """Read as many tokens as one program does. Returns their number; 0: nothing is left to read."""
        size, count = self._tiles.tokens, self._tiles.count
        tiles: list[list[tuple[int, int, tuple[int, ...]]]] = [[] for _ in range(self._devices)]
        under_way: set[tuple[int, Part]] = set()  # parts that another row reads
        taken: dict[int, int] = {}
        for row, slot in self._slots.items():
            self._advance(slot)
            own = tiles[slot.row.prefix.device]
            if not slot.to_read or len(own) == count or (what := (id(slot.row.prefix), slot.script[0])) in under_way:
                continue
            under_way.add(what)
            done, taken[row] = slot.done, 0
            for part in itertools.takewhile(lambda part: not part.drawn, slot.script):
                ids = part.ids[done:][: size * (count - len(own))]
                first = slot.row.length + taken[row]
                own += [(row, first + start, ids[start : start + size]) for start in range(0, len(ids), size)]
                taken[row] += len(ids)
                if done + len(ids) < len(part.ids):
                    break  # the others have no tile
                done = 0
        if not taken:
            return 0
        self._reserve(list(taken.items()))
        total = count * self._devices
        tokens_at, table_aj = np.full((total, size), self._pad_id, np.int32), np.zeros((total, self._room), np.int32)
        start_a, length_a = np.zeros(total, np.int32), np.zeros(total, np.int32)
        for device, own in enumerate(tiles):
            for a, (row, start, ids) in enumerate(own, device * count):
                tokens_at[a, : len(ids)], start_a[a], length_a[a] = ids, start, len(ids)
                self._write_table(table_aj[a], row)
        inputs = put_rows(TileInputs(tokens_at, start_a, length_a, table_aj), self._mesh)
        self._state = self._programs.read(self._params, self._state, inputs)
        for row, tokens in taken.items():
            self._add(self._slots[row], tokens)
        return total * size

    def _write_table(self, table_j: np.ndarray, row: int) -> None:
        blocks = self._slots[row].row.blocks
        table_j[: len(blocks)] = blocks

    # --- drawing ------------------------------------------------------------------------------------------------------

    def _draw(self, steps: int, stop_at: int) -> None:
        inputs = self._inputs(steps)
        self._state, output = self._programs.decode(
            self._params, self._state, inputs, np.int32(steps), np.int32(stop_at)
        )
        ids_rc, logps_rc, count_r = jax.device_get((output.ids_rc, output.logps_rc, output.count_r))
        tops: Any = None
        if any(slot.pending.request.tops for slot in self._slots.values()):
            tops = jax.device_get((output.top_ids_rck, output.top_logps_rck))
        for row, slot in list(self._slots.items()):
            count = int(count_r[row])
            if slot.to_read or not count:
                continue
            if slot.script:  # drawn before
                self._add(slot, count)
                continue
            slot.row.length += count
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

    def _inputs(self, steps: int) -> RowInputs:
        rows = self._rows
        names = ("length", "token", "step", "remaining", "top_k")
        ints = {name: np.zeros(rows, np.int32) for name in names}
        seed_r, sample_r = np.zeros(rows, np.uint32), np.zeros(rows, np.uint32)
        temperature_r, top_p_r = np.zeros(rows, np.float32), np.ones(rows, np.float32)
        forced_rc, tops_r = np.full((rows, self._chunk), -1, np.int32), np.zeros(rows, bool)
        table_rj = np.zeros((rows, self._room), np.int32)
        drawing = {row: slot for row, slot in self._slots.items() if not slot.to_read}  # the others idle
        self._reserve([(row, min(slot.left, steps)) for row, slot in drawing.items()])
        for row, slot in drawing.items():
            self._write_table(table_rj[row], row)
            ints["length"][row], ints["token"][row], ints["remaining"][row] = (
                slot.row.length,
                slot.next_token,
                slot.left,
            )
            if slot.script:
                again = slot.script[0].ids[slot.done + 1 :][: self._chunk]
                forced_rc[row, : len(again)] = again
                continue
            request, sampling = slot.pending.request, slot.pending.request.sampling
            ints["step"][row], ints["top_k"][row], tops_r[row] = len(slot.ids), sampling.top_k, request.tops > 0
            seed_r[row], sample_r[row] = request.seed, request.sample
            temperature_r[row], top_p_r[row] = sampling.temperature, sampling.top_p
        inputs = RowInputs(
            ints["length"], table_rj, ints["token"], seed_r, sample_r, ints["step"], ints["remaining"], forced_rc,
            RowSampling(temperature_r, ints["top_k"], top_p_r), tops_r,
        )  # fmt: skip
        return put_rows(inputs, self._mesh)
