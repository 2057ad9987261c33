"""Who plays: an agent (our engine, or an endpoint) and a human, as the flags name them."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbench_env.dialogue import Episode
from colbench_env.endpoint import Endpoint, EndpointSettings
from colbench_env.episodes import EpisodeFailed, Settings, finished, play_on, seed_of
from colbench_env.humans import Human
from colbench_env.humans.openai import OpenAIHuman
from colbench_env.humans.scripted import ScriptedHuman
from colbench_env.mini import UNKNOWN_REPLIES, keywords
from colbench_env.prompts import read_agent_prompt, read_human_prompt
from colbench_env.types import BadInput, Task, Trajectory
from launch.config import EMBEDDED
from launch.rolling.config import RolloutConfig


@dataclass(frozen=True)
class Sides:
    """play: one episode. about: what every row says of how it was played. endpoints: to be checked at the start."""

    play: Callable[[Task, int], Awaitable[Trajectory]]
    about: dict[str, Any]
    endpoints: tuple[Endpoint, ...]


@contextlib.contextmanager
def seated(config: RolloutConfig) -> Iterator[Sides]:
    """Both sides, ready to play; the engine ends with the context."""
    settings = Settings(
        config.max_turns,
        config.human_limit,
        read_agent_prompt(config.prompt_name, config.max_turns),
        config.seed,
        config.agent_model or config.model,
        config.attempts,
        no_leaks=config.no_leaks,
    )
    sampling = {"temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p}
    sampling |= {"max_new_tokens": config.max_new_tokens, "quirks": list(config.quirks)}
    human, endpoints = _human(config)
    if config.agent_url:
        agent = Endpoint(
            EndpointSettings(
                config.agent_url, config.agent_model, config.temperature, config.top_p, config.max_new_tokens,
                config.agent_key, config.human_timeout, config.human_retries, config.in_flight,
            )
        )  # fmt: skip
        assert human is not None
        about = settings.about(human) | {"sampling": sampling | {"url": config.agent_url}}

        async def play(task: Task, sample: int) -> Trajectory:
            async def turn(episode: Episode) -> Episode:
                seed = seed_of(settings.seed, "agent", task.task_id, sample, episode.turns + 1)
                try:
                    return episode.step_agent(await agent.complete(settings.agent_messages(episode), seed))
                except BadInput:
                    raise
                except Exception as problem:
                    reason = f"{type(problem).__name__}: {problem}"
                    raise EpisodeFailed("agent", episode, sample, reason) from problem

            episode = await play_on(settings.begin(task), turn, human, settings, sample)
            row = finished(episode, human, settings, sample)
            row.extra["sampling"] = about["sampling"]
            return row

        yield Sides(play, about, (*endpoints, agent))
        return
    with contextlib.ExitStack() as held:
        yield _with_engine(config, settings, sampling, human, endpoints, held)


def _with_engine(
    config: RolloutConfig,
    settings: Settings,
    sampling: dict[str, Any],
    human: Human | None,
    endpoints: tuple[Endpoint, ...],
    held: contextlib.ExitStack,
) -> Sides:
    # jax and what imports it only now: an agent behind an endpoint needs none of it.
    from launch.dialogues import Assignment, Drawn, ModelHuman, Player
    from launch.loading import start_drawing
    from launch.run import EMBEDDED_DIRECTORY
    from sweet_jax.mesh import parse_mesh
    from sweet_jax.sampler import Sampling

    drawn = Sampling(config.temperature, config.top_k, config.top_p, config.max_new_tokens)
    directory = EMBEDDED_DIRECTORY if config.model == EMBEDDED else Path(config.model)
    shape = parse_mesh(config.mesh).folded()
    drawing = start_drawing(directory, shape, config.rows, config.max_length, config.compute_dtype)
    held.callback(drawing.engine.close)
    chat, engine = drawing.chat, drawing.engine
    if "double-bos" in config.quirks and chat.bos_id is None:
        raise BadInput(f"--quirks=double-bos: the tokenizer of {config.model} has no begin-of-text token")
    longest = engine.max_length - config.max_new_tokens
    if longest < 1:
        raise BadInput(
            f"max_new_tokens is {config.max_new_tokens}, which leaves no room for a prompt in rows of "
            f"{engine.max_length} tokens"
        )
    if human is None:
        spoken = Sampling(config.human_temperature, 0, 1.0, config.human_max_tokens)
        human = ModelHuman(
            chat, None, config.model, Drawn(engine, spoken), read_human_prompt(config.human_prompt), spoken,
            engine.max_length - config.human_max_tokens,
        )  # fmt: skip
    about = settings.about(human) | {"sampling": sampling | {"max_length": engine.max_length}}

    async def play(task: Task, sample: int) -> Trajectory:
        player = Player(
            chat, Drawn(engine, drawn), Assignment(task, sample), settings.system_prompt, longest, settings.seed,
            "double-bos" in config.quirks,
        )  # fmt: skip
        try:
            player.open(settings.begin(task))
            episode = await play_on(settings.begin(task), player.turn, human, settings, sample)
        finally:
            player.leave()
        row = finished(episode, human, settings, sample)
        row.extra.update({"sampling": about["sampling"]} | player.in_row())
        return row

    return Sides(play, about, endpoints)


def _human(config: RolloutConfig) -> tuple[Human | None, tuple[Endpoint, ...]]:
    """The human and its endpoints; None where it is the model's part."""
    if config.human == "scripted":
        return ScriptedHuman(keywords(), UNKNOWN_REPLIES), ()
    if config.human == "model":
        return None, ()
    endpoint = Endpoint(
        EndpointSettings(
            config.human_url, config.human_model, config.human_temperature, 1.0, config.human_max_tokens,
            config.human_key, config.human_timeout, config.human_retries, config.in_flight, config.template,
        )
    )  # fmt: skip
    return OpenAIHuman(endpoint, read_human_prompt(config.human_prompt)), (endpoint,)
