"""Play on from a given turn, so that its worth can be counted: the true advantage of a candidate."""

from __future__ import annotations

from collections.abc import Sequence

from colbench_env.dialogue import Episode
from colbench_env.episodes import make_trajectory, play_async, seed_of, user_turn_async
from colbench_env.types import Trajectory
from sweet_jax.rollout.agent import EpisodeRunner, TokenAgent
from sweet_jax.rollout.candidates import Position


async def play_on(runner: EpisodeRunner, position: Position, ids: Sequence[int], number: int) -> Trajectory:
    """Return the ungraded trajectory in which the agent says `ids` in the position and then plays on as it does.

    number: of the continuation; equal numbers of one turn give equal continuations. Raises as `EpisodeRunner.play`.
    """
    task, settings = position.trajectory.task, runner.settings
    sample = seed_of("continuation", position.index, position.turn, tuple(ids), number)
    agent = TokenAgent(runner, task, sample)
    before = len(position.prompt)
    agent.ids, agent.turns = list(position.prompt), [int(turn) for turn in position.row.turns[:before]]
    history = position.trajectory.dialogue_history[: 2 * position.turn - 1]
    episode = Episode(task, settings.max_turns, settings.rules, tuple(history))
    agent.add(ids, position.turn)
    episode = episode.step_agent(runner.chat.reply_text(ids))
    with runner.generator.asking():
        try:
            if not episode.done:
                episode = await user_turn_async(episode, runner.human, settings, sample)
                episode = await play_async(episode, agent.turn, runner.human, settings, sample)
        finally:
            runner.generator.forget(id(agent))
    return make_trajectory(episode, runner.human, settings, sample)
