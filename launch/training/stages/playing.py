"""How a stage plays episodes: in lockstep, or each on its own where the simulated user has to be waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from colbench_env.endpoint import Endpoint
from colbench_env.episodes import EpisodeFailed, Settings, failures_file
from colbench_env.humans import UserSimulator
from colbench_env.humans.openai import OpenAISimulator
from colbench_env.humans.vision import VisionSimulator
from colbench_env.rollouts import FailedInARow, Result, RolloutPlan, play_into
from colbench_env.types import BadInput, Task
from launch.common.cli import Stopped
from launch.training.run import Run
from sweet_jax import processes
from sweet_jax.generation import Engine, Lockstep, LockstepEngine, Sampling
from sweet_jax.rollout import process_shards as shares
from sweet_jax.rollout.agent import EngineGenerator, EpisodeRunner, ModelSimulator
from sweet_jax.train.metrics import CollapseWatch

WATCHED = 512  # episodes between two looks at the length of turns


@dataclass(frozen=True)
class Agent:
    """Who plays against the run's human: the name that rows give, weights, temperature."""

    name: str
    params: Any
    temperature: float


def play(
    run: Run, stage: str, path: Path, agent: Agent, tasks: Sequence[Task], samples: int, seed: int
) -> dict[str, int]:
    """Play what is missing in `path`; return how many trajectories there are, and how many episodes have failed.

    A row is in the file as soon as its episode is over. A failed episode is in `failures_file(path)` and has no row.
    Raises Stopped where all have failed, or many in a row.
    """
    simulator = run.config.simulator
    alone = simulator.human in ("openai", "plugin") or (processes.count() > 1 and not run.benchmark.is_synchronous)
    settings = Settings(
        run.config.rollouts.max_turns, run.benchmark.rules, run.system, seed=seed, agent_name=agent.name,
        attempts=simulator.attempts, retry_seconds=1.0 if alone else 0.0, no_leaks=simulator.no_leaks,
        leak_free=simulator.leak_free,
    )  # fmt: skip
    way = _play_share if alone else _play_together
    total = len(tasks) * samples
    try:
        failed = way(run, stage, path, agent, tasks, samples, settings)
    except FailedInARow as failure:
        raise Stopped(f"stage {stage}: {failure}") from failure
    if failed:
        places = f"{failed} of {total} episodes failed, see {failures_file(path)}"
        if failed == total:
            raise Stopped(
                f"stage {stage}: {places}; run the command again to play them, with more --attempts where every reply "
                "leaked"
            )
        run.console.warn(f"stage {stage}: {places}: they are left out")
    return {"trajectories": total - failed} | ({"failed": failed} if failed else {})


def _play_together(
    run: Run, stage: str, path: Path, agent: Agent, tasks: Sequence[Task], samples: int, settings: Settings
) -> int:
    """Play in lockstep on the devices of all processes, which all play the same; the first one writes."""
    lockstep, simulator, rows = Lockstep(), run.config.simulator, run.config.rollouts.rows
    engine = run.lockstep_engine(agent.params, lockstep)
    if simulator.human == "model":
        sampling = Sampling(simulator.human_temperature, 0, 1.0, simulator.human_max_tokens)
        speaker = run.lockstep_engine(run.start_params, lockstep)  # the start policy, whoever the agent is
        longest = run.max_length - simulator.human_max_tokens
        human: UserSimulator = ModelSimulator(
            run.chat, EngineGenerator(speaker, sampling), run.config.model, simulator.prompt, sampling, longest
        )
    else:
        human = run.benchmark.human(simulator)
    runner = _runner(run, engine, agent, human, settings)
    wanted = RolloutPlan(path, tasks, samples, settings.run_metadata(human))
    numbers = processes.broadcast_from_process_0(wanted.missing_numbers)
    episodes = [wanted.episodes[number] for number in numbers]
    output = path if processes.is_process_0() else None
    asyncio.run(play_into(output, episodes, runner.play, rows, _Progress(run, stage, wanted, len(episodes))))
    return processes.broadcast_from_process_0(lambda: len(wanted.episodes) - wanted.put_in_order())


def _play_share(
    run: Run, stage: str, path: Path, agent: Agent, tasks: Sequence[Task], samples: int, settings: Settings
) -> int:
    """Play as `launch.rollout` does: each process a share of the episodes, on its own devices."""
    simulator, human = run.config.simulator, run.benchmark.human(run.config.simulator)
    engine = run.engine(agent.params)
    runner = _runner(run, engine, agent, human, settings)
    wanted = RolloutPlan(path, tasks, samples, settings.run_metadata(human))
    episodes = shares.share(wanted)
    on_done = _Progress(run, stage, wanted, len(episodes))

    async def play_all() -> None:
        async with contextlib.AsyncExitStack() as held:
            if isinstance(human, OpenAISimulator | VisionSimulator) and isinstance(human.endpoint, Endpoint):
                await (await held.enter_async_context(contextlib.aclosing(human.endpoint))).check()
            await shares.play_share(wanted, episodes, runner.play, simulator.in_flight, on_done)

    try:
        asyncio.run(play_all())
    finally:
        engine.close()
    return shares.gather(wanted)


class _Progress:
    """Tells of episodes that are over, begins to grade them, and warns where the agent's turns have become empty."""

    def __init__(self, run: Run, stage: str, wanted: RolloutPlan, missing: int):
        self.run, self.stage, self.total = run, stage, len(wanted.tasks) * wanted.samples
        self.done, self.watch = self.total - missing, CollapseWatch(self.total)
        self.tokens: list[int] = []
        # On a CPU the network and the tests of answers would wait for one another.
        self.begins_grading = processes.is_process_0() and run.mesh.devices.flat[0].platform != "cpu"

    def __call__(self, result: Result) -> None:
        self.done += 1
        console = self.run.console
        if isinstance(result, EpisodeFailed):
            console.warn(f"stage {self.stage}: {result}")
        else:
            if self.begins_grading:
                self.run.benchmark.begin_grading(result.task, result.answer)
            self.tokens += [turn.extra["tokens"] for turn in result.agent_turns]
        if self.tokens and (self.done % WATCHED == 0 or self.done == self.total):
            for warning in self.watch.replies(float(np.mean(self.tokens))):
                console.warn(f"stage {self.stage}: {warning}")
            self.tokens = []
        console.progress(self.stage, self.done, self.total)


def _runner(
    run: Run, engine: Engine | LockstepEngine, agent: Agent, human: UserSimulator, settings: Settings
) -> EpisodeRunner:
    return EpisodeRunner(
        run.chat, EngineGenerator(engine, run.sampling(agent.temperature)), human, settings, longest_prompt(run)
    )


def longest_prompt(run: Run) -> int:
    """Return how many tokens of a prompt leave room for a turn. Raises BadInput where none do."""
    settings, longest = run.config.rollouts, run.max_length - run.config.rollouts.max_new_tokens
    if longest < 1:
        raise BadInput(
            f"rollouts.max_new_tokens is {settings.max_new_tokens}, which leaves no room for a prompt "
            f"in rows of {run.max_length} tokens"
        )
    return longest
