"""Episodes that several processes play together, each on its own devices and into a file of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from colbench_env.rollouts import Result, RolloutPlan, play_into
from colbench_env.types import BadInput, Task, Trajectory
from sweet_jax import processes


@contextlib.contextmanager
def alone(wanted: RolloutPlan) -> Iterator[None]:
    """Inside, the first process holds the lock of the file; every process has to call this."""
    with contextlib.ExitStack() as held:
        processes.broadcast_from_process_0(lambda: held.enter_context(wanted.locked()))
        yield


def share(wanted: RolloutPlan) -> list[tuple[Task, int]]:
    """Give this process's part of what the file has not yet; every process has to call this.

    What a run that was killed has left in parts, of whatever number of processes, goes to the file first.
    """

    def numbers() -> list[int]:
        wanted.gather()
        return wanted.missing_numbers()

    mine = processes.broadcast_from_process_0(numbers)[processes.index() :: processes.count()]
    episodes = wanted.episodes
    return [episodes[number] for number in mine]


async def play_share(
    wanted: RolloutPlan,
    episodes: list[tuple[Task, int]],
    play_one: Callable[[Task, int], Awaitable[Trajectory]],
    in_flight: int,
    on_done: Callable[[Result], None],
) -> None:
    """Plays this process's episodes: into the file where it is alone, else into its part."""
    output = wanted.output if processes.count() == 1 else wanted.part(processes.index())
    await play_into(output, episodes, play_one, in_flight, on_done)


def gather(wanted: RolloutPlan) -> int:
    """Wait for all processes and bring their parts together; how many episodes have failed. All have to call this."""
    sizes = processes.gather(_size(wanted.part(processes.index())))

    def together() -> int:
        for process, size in enumerate(sizes):
            _wait_for(wanted.part(process), size)
        wanted.gather()
        return len(wanted.missing_numbers())

    return processes.broadcast_from_process_0(together)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wait_for(path: Path, size: int) -> None:
    """Until this process sees what another has written, which a network file system shows late."""
    stop = time.monotonic() + processes.VISIBLE_SECONDS
    while _size(path) < size:
        if time.monotonic() > stop:
            raise BadInput(f"{path}: {processes.name()} does not see the {size} bytes that another process has written")
        time.sleep(0.1)
