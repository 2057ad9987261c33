"""Many asynchronous episodes, bounded in number, and the file of their rows, which may be cut off at any moment."""

import asyncio
import contextlib
import glob
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbench_env.episodes import EpisodeFailed, already_played, failures_file
from colbench_env.locking import locked
from colbench_env.tasks import SyncTimer, append_rows, read_complete, write_rows
from colbench_env.types import Task, Trajectory

Result = Trajectory | EpisodeFailed
FAILURES_IN_A_ROW = 20  # after so many the fault is not the episodes': the run ends, and can be continued


class FailedInARow(Exception):
    """FAILURES_IN_A_ROW episodes have failed: one sentence."""


@dataclass(frozen=True)
class RolloutPlan:
    """What a file of rollouts is to hold: row j * num_tasks + i is sample j of task i; `run_metadata` is in each."""

    output: Path
    tasks: Sequence[Task]
    samples: int
    run_metadata: Mapping[str, Any]

    @property
    def episodes(self) -> list[tuple[Task, int]]:
        """Task and sample of each row, in order."""
        return [(task, sample) for sample in range(self.samples) for task in self.tasks]

    def missing(self) -> list[tuple[Task, int]]:
        """List the episodes that the file has not. Raises BadInput where it has rows of another run."""
        episodes = self.episodes
        return [episodes[number] for number in self.missing_numbers()]

    def missing_numbers(self) -> list[int]:
        """Their numbers among `episodes`."""
        rows = already_played(self.output, self.episodes, dict(self.run_metadata))
        return [number for number, row in enumerate(rows) if row is None]

    def put_in_order(self) -> int:
        """Put the rows of the file in order and return how many there are. Failed episodes have none."""
        rows = [row for row in already_played(self.output, self.episodes, dict(self.run_metadata)) if row is not None]
        if rows:
            write_rows(self.output, rows)
        return len(rows)

    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Inside, no other process plays into the file. BadInput where one does, or where it cannot be written."""
        lock, taken = self.output.with_name(f".{self.output.name}.lock"), "another process is playing into this file"
        return locked(lock, f"{self.output}:", f"{self.output}: {taken}")

    def part(self, number: int) -> Path:
        """Name the file next to `output` for the rows of process `number`: `rows.part-1.jsonl` for `rows.jsonl`."""
        return Path(f"{str(self.output).removesuffix('.jsonl')}.part-{number}.jsonl")

    def gather(self) -> None:
        """Move what lies in parts into the file and its failures, and put the rows in order.

        It may be killed at any moment: a row that is in the file and still in a part is one row.
        """
        parts = [path for path in self._parts() if not path.name.endswith(".failures.jsonl")]
        if parts:
            rows = read_complete(self.output, Trajectory)
            there = {json.dumps(row.to_json()) for row in rows}
            found = [row for path in parts for row in read_complete(path, Trajectory)]
            write_rows(self.output, rows + [row for row in found if json.dumps(row.to_json()) not in there])
        for path in set(self._parts()) - set(parts):
            with open(failures_file(self.output), "ab") as file:
                file.write(path.read_bytes())
        for path in self._parts():
            path.unlink()
        self.put_in_order()

    def _parts(self) -> list[Path]:
        name = glob.escape(self.output.name.removesuffix(".jsonl"))
        return sorted(self.output.parent.glob(f"{name}.part-*.jsonl"))


async def play_all(
    wanted: RolloutPlan,
    play_one: Callable[[Task, int], Awaitable[Trajectory]],
    in_flight: int,
    on_done: Callable[[Result], None] = lambda result: None,
) -> None:
    """Plays what the file has not yet, as `play_into`, and puts the file in order."""
    await play_into(wanted.output, wanted.missing(), play_one, in_flight, on_done)
    wanted.put_in_order()


async def play_into(
    output: Path | None,
    episodes: Sequence[tuple[Any, ...]],
    play_one: Callable[..., Awaitable[Trajectory]],
    in_flight: int,
    on_done: Callable[[Result], None] = lambda result: None,
) -> None:
    """Play the episodes, at most `in_flight` at once; each row is in the file as soon as it is played.

    episodes: the arguments of `play_one` for each, as (task, sample).

    A failed episode is recorded in `failures_file` and has no row, so that another run plays it again. Without an
    output nothing is written. Whatever else `play_one` raises ends the run, and so do FAILURES_IN_A_ROW (as
    FailedInARow).
    """
    remaining = iter(episodes)
    failed_in_a_row, sync = 0, SyncTimer()

    async def work() -> None:
        nonlocal failed_in_a_row
        for episode in remaining:
            try:
                result: Result = await play_one(*episode)
            except EpisodeFailed as failure:
                result = failure
            failed = isinstance(result, EpisodeFailed)
            if output is not None:
                append_rows(failures_file(output) if failed else output, [result], sync=failed or sync.due())
            failed_in_a_row = failed_in_a_row + 1 if failed else 0
            on_done(result)
            if failed_in_a_row >= FAILURES_IN_A_ROW:
                raise FailedInARow(
                    f"{output or 'rollouts'}: {failed_in_a_row} episodes failed one after the other, the last one: "
                    f"{result}; run the same command again to continue"
                )

    workers = [asyncio.ensure_future(work()) for _ in range(in_flight)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
