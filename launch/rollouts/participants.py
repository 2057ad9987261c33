"""Who plays: an agent (our engine, or an endpoint) and a human, as the flags name them."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colbench_env.dialogue import Episode
from colbench_env.endpoint import Endpoint
from colbench_env.episodes import EpisodeFailed, Settings, make_trajectory, play_async, seed_of
from colbench_env.humans import UserSimulator
from colbench_env.humans.openai import OpenAISimulator
from colbench_env.humans.vision import VisionSimulator
from colbench_env.prompts import read_agent_prompt
from colbench_env.types import BadInput, Task, Trajectory
from launch.common.benchmarks import Benchmark
from launch.rollouts.config import RolloutConfig

MakeBestOf = Callable[..., Any]
"""(config, loaded engine, sampling, mesh, benchmark) -> sweet_jax.rollout.best_of.BestOf."""


@dataclass(frozen=True)
class Participants:
    """play: one episode. about: what every row says of how it was played. endpoints: to be checked at the start."""

    play: Callable[[Task, int], Awaitable[Trajectory]]
    about: dict[str, Any]
    endpoints: tuple[Endpoint, ...]


@contextlib.contextmanager
def make_participants(
    config: RolloutConfig, benchmark: Benchmark, make_best_of: MakeBestOf | None = None
) -> Iterator[Participants]:
    """Both sides, ready to play; the engine ends with the context. make_best_of: for a critic that chooses turns."""
    simulator, rules = config.simulator, benchmark.rules
    if config.human_limit:
        rules = replace(rules, human_limit=config.human_limit)  # type: ignore[type-var]  # every benchmark's is a dataclass
    settings = Settings(
        config.turns,
        rules,
        read_agent_prompt(config.prompt_name, config.turns),
        config.seed,
        config.agent_model or config.played,
        simulator.attempts,
        no_leaks=simulator.no_leaks,
        leak_free=simulator.leak_free,
    )
    sampling: dict[str, Any] = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
    sampling |= {"max_new_tokens": config.max_new_tokens, "quirks": list(config.quirks)}
    human = None if simulator.human == "model" else benchmark.human(simulator)  # whose words the agent's engine draws
    endpoints: tuple[Endpoint, ...] = ()
    if isinstance(human, OpenAISimulator | VisionSimulator) and isinstance(human.endpoint, Endpoint):
        endpoints = (human.endpoint,)
    if config.agent_url:
        assert human is not None  # no --human=model beside --agent-url
        yield _with_endpoint(config, settings, sampling, human, endpoints)
        return
    with contextlib.ExitStack() as held:
        yield _with_engine(config, settings, sampling, human, endpoints, held, benchmark, make_best_of)


def _with_endpoint(
    config: RolloutConfig,
    settings: Settings,
    sampling: dict[str, Any],
    human: UserSimulator,
    endpoints: tuple[Endpoint, ...],
) -> Participants:
    agent = Endpoint(config.agent_settings())
    told = agent.settings.in_rows
    further = {name: told[name] for name in ("omit", "body") if name in told}
    about = settings.run_metadata(human) | {"sampling": sampling | {"url": config.agent_url} | further}

    async def play(task: Task, sample: int) -> Trajectory:
        async def turn(episode: Episode) -> Episode:
            seed = seed_of(settings.seed, "agent", task.task_id, sample, episode.turns + 1)
            try:
                said = await agent.complete(settings.agent_messages(episode), seed)
                return episode.step_agent(said, extra={"sent": agent.parameters(seed)})
            except BadInput:
                raise
            except Exception as problem:
                raise EpisodeFailed("agent", episode, sample, f"{type(problem).__name__}: {problem}") from problem

        episode = await play_async(settings.begin(task), turn, human, settings, sample)
        row = make_trajectory(episode, human, settings, sample)
        row.extra["sampling"] = about["sampling"]
        return row

    return Participants(play, about, (*endpoints, agent))


def _with_engine(
    config: RolloutConfig,
    settings: Settings,
    sampling: dict[str, Any],
    human: UserSimulator | None,
    endpoints: tuple[Endpoint, ...],
    held: contextlib.ExitStack,
    benchmark: Benchmark,
    make_best_of: MakeBestOf | None,
) -> Participants:
    # jax and what imports it only now: an agent behind an endpoint needs none of it.
    from launch.common.settings import start_model
    from sweet_jax.generation.load import load_engine
    from sweet_jax.generation.sampling import Sampling
    from sweet_jax.mesh import parse_mesh
    from sweet_jax.rollout.agent import EngineGenerator, EpisodeRunner, ModelSimulator

    simulator, directory = config.simulator, start_model(config.played, Path())
    shape = parse_mesh(config.mesh).folded()
    loaded = load_engine(
        directory, shape, config.rows, config.max_length, config.compute_dtype,
        prompt_date=datetime.date.fromisoformat(config.prompt_date),
    )  # fmt: skip
    held.callback(loaded.engine.close)
    chat, engine = loaded.chat, loaded.engine
    if chat.shows_date:
        sampling = sampling | {"prompt_date": config.prompt_date}
    if settings.system_prompt:
        chat.check_system(settings.system_prompt)
    if "double-bos" in config.quirks and chat.bos_id is None:
        raise BadInput(f"--quirks=double-bos: the tokenizer of {config.model} has no begin-of-text token")
    longest = engine.max_length - config.max_new_tokens
    if longest < 1:
        raise BadInput(
            f"max_new_tokens is {config.max_new_tokens}, which leaves no room for a prompt in rows of "
            f"{engine.max_length} tokens"
        )
    if human is None:
        spoken = Sampling(simulator.human_temperature, 0, 1.0, simulator.human_max_tokens)
        prompt, room = simulator.prompt, engine.max_length - simulator.human_max_tokens
        human = ModelSimulator(chat, EngineGenerator(engine, spoken), config.played, prompt, spoken, room)
    about = settings.run_metadata(human) | {"sampling": sampling | {"max_length": engine.max_length}}
    drawing = Sampling(config.temperature, config.top_k, config.top_p, config.max_new_tokens)
    best_of = None
    if config.critic is not None:
        assert make_best_of is not None
        best_of = make_best_of(config, loaded, drawing, shape, benchmark)
        about["sampling"] |= {"best_of": config.best_of, "critic": str(config.critic)}
    generator = EngineGenerator(engine, drawing)
    runner = EpisodeRunner(chat, generator, human, settings, longest, "double-bos" in config.quirks, best_of)

    async def play(task: Task, sample: int) -> Trajectory:
        row = await runner.play(task, sample)
        row.extra["sampling"] = about["sampling"]
        return row

    return Participants(play, about, endpoints)
