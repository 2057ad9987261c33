"""Many asynchronous episodes, bounded in number, and the file of their rows, which may be cut off at any moment."""

import asyncio
import contextlib
import fcntl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbench_env.episodes import EpisodeFailed, already_played, failures_file
from colbench_env.tasks import append_rows, write_rows
from colbench_env.types import BadInput, Task, Trajectory

Result = Trajectory | EpisodeFailed
FAILURES_IN_A_ROW = 20  # after so many the fault is not the episodes': the run ends, and can be continued


class FailedInARow(Exception):
    """FAILURES_IN_A_ROW episodes have failed: one sentence."""


@dataclass(frozen=True)
class Wanted:
    """What a file of rollouts shall hold: row j * num_tasks + i is sample j of task i; `about` is in every row."""

    output: Path
    tasks: Sequence[Task]
    samples: int
    about: Mapping[str, Any]

    @property
    def episodes(self) -> list[tuple[Task, int]]:
        """Task and sample of each row, in order."""
        return [(task, sample) for sample in range(self.samples) for task in self.tasks]

    def missing(self) -> list[tuple[Task, int]]:
        """The episodes that the file has not. BadInput where it has rows of another run."""
        episodes = self.episodes
        rows = already_played(self.output, episodes, dict(self.about))
        return [episode for episode, row in zip(episodes, rows, strict=True) if row is None]

    def put_in_order(self) -> int:
        """Puts the rows of the file in order; how many there are. Failed episodes have none."""
        rows = [row for row in already_played(self.output, self.episodes, dict(self.about)) if row is not None]
        if rows:
            write_rows(self.output, rows)
        return len(rows)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process plays into the file. BadInput where one does, or where it cannot be written."""
        path = self.output.with_name(f".{self.output.name}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as problem:
            raise BadInput(f"{self.output}: cannot be written: {problem.strerror}") from problem
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                raise BadInput(f"{self.output}: another process is playing into this file") from problem
            yield


async def play_all(
    wanted: Wanted,
    play_one: Callable[[Task, int], Awaitable[Trajectory]],
    in_flight: int,
    on_done: Callable[[Result], None] = lambda result: None,
) -> None:
    """Plays what is missing, at most `in_flight` episodes at once; each row is in the file as soon as it is played.

    A failed episode is recorded in `failures_file` and has no row, so that another run plays it again. Whatever else
    `play_one` raises ends the run, and so do FAILURES_IN_A_ROW (as
    FailedInARow).
    """
    left = iter(wanted.missing())
    failed_in_a_row = 0

    async def work() -> None:
        nonlocal failed_in_a_row
        for task, sample in left:
            try:
                result: Result = await play_one(task, sample)
            except EpisodeFailed as failure:
                result = failure
            failed = isinstance(result, EpisodeFailed)
            append_rows(failures_file(wanted.output) if failed else wanted.output, [result])
            failed_in_a_row = failed_in_a_row + 1 if failed else 0
            on_done(result)
            if failed_in_a_row >= FAILURES_IN_A_ROW:
                raise FailedInARow(
                    f"{wanted.output}: {failed_in_a_row} episodes failed one after the other, the last one: {result}; "
                    "run the same command again to continue"
                )

    workers = [asyncio.ensure_future(work()) for _ in range(in_flight)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    wanted.put_in_order()
