"""`python -m launch.rollout`: dialogues between a policy and a simulated human. Read `main`, then `launch.rolling`."""

from __future__ import annotations

import asyncio
import sys

from launch import cli
from launch.rolling.config import MINI_TASKS, RolloutConfig


def main() -> None:
    """Parses the flags, seats both sides and plays what the file does not have yet."""
    config: RolloutConfig = cli.parse_plain(RolloutConfig, sys.argv[1:])

    from colbench_env.episodes import EpisodeFailed, failures_file
    from colbench_env.mini import make_tasks
    from colbench_env.rollouts import FailedInARow, Result, Wanted, play_all
    from colbench_env.tasks import read_rows
    from colbench_env.types import Task
    from launch.console import Console
    from launch.rolling.sides import Sides, seated

    console = Console()
    if config.tasks is None:
        tasks = make_tasks("test", config.num_tasks or MINI_TASKS, config.seed)
    else:
        tasks = read_rows(config.tasks, Task)
        if config.num_tasks > len(tasks):
            raise cli.bad_input(f"--num-tasks={config.num_tasks}: {config.tasks} has {len(tasks)} tasks")
        tasks = tasks[: config.num_tasks or None]

    async def roll(sides: Sides) -> int:
        for endpoint in sides.endpoints:
            await endpoint.check()
        wanted = Wanted(config.output, tasks, config.samples, sides.about)
        failed, total = 0, len(tasks) * config.samples
        with wanted.locked():
            done = total - len(wanted.missing())
            human = sides.about["human"]["name"]
            console.say(
                f"{sides.about['agent']} (prompt {config.prompt_name}) with human {human}: {total} dialogues, "
                f"{done} of them are in {config.output}"
            )

            def on_done(result: Result) -> None:
                nonlocal done, failed
                done += 1
                failed += isinstance(result, EpisodeFailed)
                if isinstance(result, EpisodeFailed) and failed <= 3:
                    console.warn(str(result))
                console.progress("rollout", done, total)

            try:
                await play_all(wanted, sides.play, config.simulator.in_flight, on_done)
            except FailedInARow as failure:
                raise cli.Stopped(str(failure)) from failure
        return failed

    with seated(config) as sides:
        failed = asyncio.run(roll(sides))
    if failed:
        raise cli.Stopped(
            f"{failed} episodes failed for reasons of the machine, see {failures_file(config.output)}; "
            "run the same command again to play them"
        )
    console.say(f"{len(tasks) * config.samples} dialogues in {config.output}")


if __name__ == "__main__":
    cli.run(main)
