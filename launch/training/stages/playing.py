"""How a stage plays dialogues: in waves, or each on its own where the human is one that has to be waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colbench_env.episodes import EpisodeFailed, Settings, already_played, failures_file
from colbench_env.rollouts import FailedInARow, Result, RolloutPlan
from colbench_env.types import BadInput, Task, Trajectory
from launch.common.cli import Stopped
from launch.common.run_dir import append_rows, write_rows
from launch.training.run import Run
from sweet_jax import processes
from sweet_jax.generation.batch_sampler import Sampling
from sweet_jax.rollout import process_shards as shares
from sweet_jax.rollout.agent import Drawn, ModelSimulator, Table
from sweet_jax.rollout.lockstep import Step, Wave, play_wave
from sweet_jax.train.metrics import CollapseWatch

WAVE = 4  # dialogues under way: this many sampler batches; also what is written, and redone after a kill, at once


@dataclass(frozen=True)
class Agent:
    """Who plays against the run's human: the name that rows give, weights, temperature."""

    name: str
    params: Any
    temperature: float


def play(
    run: Run, stage: str, path: Path, agent: Agent, tasks: Sequence[Task], samples: int, seed: int
) -> dict[str, int]:
    """Plays what is missing in `path`; how many trajectories there are, and how many episodes have failed.

    A failed episode is in `failures_file(path)` and has no row. Raises Stopped where all have failed.
    """
    simulator = run.config.simulator
    waits = simulator.human == "openai" or (processes.count() > 1 and not run.benchmark.is_synchronous)
    settings = Settings(
        run.config.rollouts.max_turns, run.benchmark.rules, run.system, seed=seed, agent_name=agent.name,
        attempts=simulator.attempts, retry_seconds=1.0 if waits else 0.0, no_leaks=simulator.no_leaks,
    )  # fmt: skip
    way = _one_by_one if waits else _in_waves
    failed = way(run, stage, path, agent, tasks, samples, settings)
    total = len(tasks) * samples
    if failed:
        places = f"{failed} of {total} episodes failed, see {failures_file(path)}"
        if failed == total:
            raise Stopped(f"stage {stage}: {places}; run the same command again to play them")
        run.console.warn(f"stage {stage}: {places}: they are left out")
    return {"trajectories": total - failed} | ({"failed": failed} if failed else {})


def _in_waves(
    run: Run, stage: str, path: Path, agent: Agent, tasks: Sequence[Task], samples: int, settings: Settings
) -> int:
    """Plays in waves of the same episodes whenever they are played, with which humans who answer at once keep up."""
    sampler = run.sampler(agent.params, run.sampling(agent.temperature))
    human, step = _waves_human(run, sampler)
    table = Table(run.chat, Wave(step, sampler), human, settings, _longest(run))
    wanted = RolloutPlan(path, tasks, samples, settings.run_metadata(human))
    episodes, wave = wanted.episodes, WAVE * run.config.rollouts.rows
    done, watch = processes.broadcast_from_process_0(lambda: _whole_waves(wanted, wave)), CollapseWatch(len(episodes))
    while done < len(episodes):
        part, so_far = episodes[done : done + wave], done
        played = play_wave(
            table, step, part, lambda ended, so_far=so_far: run.console.progress(stage, so_far + ended, len(episodes))
        )
        rows = [result for result in played if isinstance(result, Trajectory)]
        append_rows(failures_file(path), [result for result in played if isinstance(result, EpisodeFailed)])
        append_rows(path, rows)
        done += len(part)
        tokens = [turn.extra["tokens"] for row in rows for turn in row.agent_turns]
        for warning in watch.replies(float(np.mean(tokens))) if tokens else ():
            run.console.warn(f"stage {stage}: {warning}")
        run.console.progress(stage, done, len(episodes))
    return processes.broadcast_from_process_0(lambda: len(wanted.missing()))


def _whole_waves(wanted: RolloutPlan, wave: int) -> int:
    """How many episodes an interrupted stage has played in whole waves; rows after them are removed.

    A wave whose last episode has failed counts as half played, and is played again with the same results.
    """
    found = already_played(wanted.output, wanted.episodes, dict(wanted.run_metadata))
    last = max((place for place, row in enumerate(found, start=1) if row is not None), default=0)
    done = last if last == len(found) else last // wave * wave
    if any(row is not None for row in found[done:]):
        write_rows(wanted.output, [row for row in found[:done] if row is not None])
    return done


def _waves_human(run: Run, sampler: Any) -> tuple[Any, Step]:
    simulator = run.config.simulator
    if simulator.human != "model":
        return run.benchmark.human(simulator), Step(sampler)
    sampling = Sampling(simulator.human_temperature, 0, 1.0, simulator.human_max_tokens)
    speaker = run.sampler(run.start_params, sampling)  # the start policy, whoever the agent is
    step, longest = Step(sampler, speaker), run.max_length - simulator.human_max_tokens
    return ModelSimulator(run.chat, Wave(step, speaker), run.config.model, simulator.prompt, sampling, longest), step


def _one_by_one(
    run: Run, stage: str, path: Path, agent: Agent, tasks: Sequence[Task], samples: int, settings: Settings
) -> int:
    """Plays as `launch.rollout` does: every episode on its own, and in the file as soon as it is over."""
    simulator, human = run.config.simulator, run.benchmark.human(run.config.simulator)
    wanted = RolloutPlan(path, tasks, samples, settings.run_metadata(human))
    episodes, total = shares.share(wanted), len(tasks) * samples
    done = total - len(episodes)

    def on_done(result: Result) -> None:
        nonlocal done
        done += 1
        if isinstance(result, EpisodeFailed):
            run.console.warn(f"stage {stage}: {result}")
        run.console.progress(stage, done, total)

    engine = run.engine(agent.params)
    table = Table(run.chat, Drawn(engine, run.sampling(agent.temperature)), human, settings, _longest(run))

    async def roll() -> None:
        async with contextlib.AsyncExitStack() as held:
            if simulator.human == "openai":
                await (await held.enter_async_context(contextlib.aclosing(human.endpoint))).check()
            await shares.play_share(wanted, episodes, table.play, simulator.in_flight, on_done)

    try:
        asyncio.run(roll())
    except FailedInARow as failure:
        raise Stopped(f"stage {stage}: {failure}") from failure
    finally:
        engine.close()
    return shares.gather(wanted)


def _longest(run: Run) -> int:
    """Tokens of a prompt that leave room for a turn."""
    settings, longest = run.config.rollouts, run.max_length - run.config.rollouts.max_new_tokens
    if longest < 1:
        raise BadInput(
            f"rollouts.max_new_tokens is {settings.max_new_tokens}, which leaves no room for a prompt "
            f"in rows of {run.max_length} tokens"
        )
    return longest
