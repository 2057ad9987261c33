"""`python -m launch.rollout`: dialogues between a policy and a simulated human. Read `main`, then `launch.rollouts`."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import sys
from typing import TYPE_CHECKING

from launch.common import cli
from launch.common.distributed import join_processes
from launch.common.settings import toy_of
from launch.rollouts.config import MINI_TASKS, RolloutConfig, settings_of

if TYPE_CHECKING:
    from colbench_env.types import Task


def main() -> None:
    """Parse the flags, seat both sides and play what the file does not have yet."""
    config: RolloutConfig = cli.parse_plain(RolloutConfig, sys.argv[1:], "launch.rollout")
    with join_processes(config.hosts):
        _roll(config)


def _roll(config: RolloutConfig) -> None:
    from colbench_env.episodes import EpisodeFailed, failures_file
    from colbench_env.rollouts import FailedInARow, Result, RolloutPlan
    from launch.common.console import Console
    from launch.common.open_benchmark import open_benchmark
    from launch.common.plugins import settle_simulator
    from launch.common.run_dir import check_same
    from launch.rollouts.participants import Participants, make_participants
    from sweet_jax import processes
    from sweet_jax.rollout import process_shards as shares

    simulator = settle_simulator(config.plugin, config.simulator, RolloutConfig().simulator)
    config = dataclasses.replace(config, simulator=simulator)
    check_same(settings_of(config))
    console, tasks = Console(audible=processes.is_process_0()), _tasks(config)
    choose = None
    if config.critic is not None:
        from launch.ranking.choosing import check_reference, make_best_of

        check_reference(config.critic, tasks)
        choose = functools.partial(make_best_of, console=console)

    async def roll(participants: Participants, wanted: RolloutPlan) -> None:
        async with contextlib.AsyncExitStack() as held:
            for endpoint in participants.endpoints:
                await held.enter_async_context(contextlib.aclosing(endpoint))
                await endpoint.check()
            await play(participants, wanted)

    async def play(participants: Participants, wanted: RolloutPlan) -> None:
        episodes, told = shares.share(wanted), 0
        total = len(tasks) * config.samples
        done = total - len(episodes)
        human = participants.about["human"]["name"]
        console.say(
            f"{participants.about['agent']} (prompt {config.prompt_name}) with human {human}: {total} dialogues, "
            + (
                f"{done} of them are in {config.output}"
                if processes.count() == 1
                else f"{len(episodes)} are played here"
            )
        )

        def on_done(result: Result) -> None:
            nonlocal done, told
            done += 1
            if isinstance(result, EpisodeFailed) and told < 3:
                told += 1
                console.warn(str(result))
            console.progress("rollout", done, total)

        await shares.play_share(wanted, episodes, participants.play, config.at_once, on_done)

    with (
        open_benchmark(
            config.benchmark, config.design, toy=toy_of(config.model, config.toy), plugin=config.plugin
        ) as benchmark,
        make_participants(config, benchmark, choose) as participants,
    ):
        wanted = RolloutPlan(config.output, tasks, config.samples, participants.about)
        with shares.alone(wanted):
            try:
                asyncio.run(roll(participants, wanted))
            except FailedInARow as failure:
                raise cli.Stopped(str(failure)) from failure
            failed = shares.gather(wanted)
    if failed:
        raise cli.Stopped(
            f"{failed} episodes failed for reasons of the machine, see {failures_file(config.output)}; "
            "run the command again to play them, with more --attempts where every reply leaked"
        )
    console.say(f"{len(tasks) * config.samples} dialogues in {config.output}")


def _tasks(config: RolloutConfig) -> list[Task]:
    from colbench_env import mini, scenes
    from colbench_env.design.mini import make_page_tasks
    from colbench_env.tasks import read_rows
    from colbench_env.types import Task
    from sweet_jax.plugins import load_plugins

    plugin = load_plugins(config.plugin or "")
    if plugin.make_tasks and config.tasks is None:
        return plugin.tasks("test", config.num_tasks or MINI_TASKS, config.seed)
    if config.tasks is None:
        backend = scenes if toy_of(config.model, config.toy) == "scenes" else mini
        make = make_page_tasks if config.benchmark == "frontend" else backend.make_tasks
        return make("test", config.num_tasks or MINI_TASKS, config.seed)
    tasks = read_rows(config.tasks, Task)
    if config.num_tasks > len(tasks):
        raise cli.bad_input(f"--num-tasks={config.num_tasks}: {config.tasks} has {len(tasks)} tasks")
    return tasks[: config.num_tasks or None]


if __name__ == "__main__":
    cli.run(main)
