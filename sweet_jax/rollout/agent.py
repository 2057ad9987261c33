"""Episodes of an agent, which is a model of ours, with a simulated user, sampled turn by turn.

Every turn draws with a seed made of the run's seed, the task, the sample and the turn: an episode does not depend on
which others are played beside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from colbench_env.dialogue import Episode, chat_messages
from colbench_env.episodes import Settings, make_trajectory, play_async, seed_of
from colbench_env.humans import SimulatorRequest, UserSimulator, simulator_prompt
from colbench_env.prompts import Prompt
from colbench_env.thoughts import opened_thought
from colbench_env.types import BadInput, NoReply, Task, Trajectory
from sweet_jax.data.batch import TokenRow
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import TOKENS, row_to_json
from sweet_jax.generation import Engine, LockstepEngine, Request, Sample, Sampling
from sweet_jax.rollout.best_of import BestOf


@runtime_checkable
class Generator(Protocol):
    """What turns come from."""

    async def generate(self, ids: Sequence[int], seed: int, session: Hashable | None) -> Sample:
        """Draw the turn after these ids; a session goes on from what was read and drawn in it so far."""
        ...

    def asking(self) -> contextlib.AbstractContextManager[None]:
        """Inside, one asyncio task may ask for turns, one at a time."""
        ...

    def forget(self, session: Hashable) -> None:
        """Drop a session that has ended."""
        ...


@dataclass(frozen=True)
class EngineGenerator:
    """Turns of an engine, drawn with `sampling`."""

    engine: Engine | LockstepEngine
    sampling: Sampling

    async def generate(self, ids: Sequence[int], seed: int, session: Hashable | None) -> Sample:
        """Draw the turn after these ids."""
        return await self.engine.sample(Request(ids, seed, self.sampling, session))

    def asking(self) -> contextlib.AbstractContextManager[None]:
        """Tell the engine that one more task may ask."""
        return self.engine.asking()

    def forget(self, session: Hashable) -> None:
        """Drop the session's cache."""
        self.engine.forget(session)


@dataclass(frozen=True)
class EpisodeRunner:
    """Plays episodes of an agent whose turns come from `generator` with a simulated user.

    chat: the agent's tokenizer and template. settings: the rules, the system prompt and the seed.
    max_prompt: an episode whose prompt has outgrown so many tokens ends there without an answer. double_bos: prompts
    begin with two begin-of-text tokens. best_of: draws the turns in the generator's place, with a critic's help.
    """

    chat: Chat
    generator: Generator
    human: UserSimulator
    settings: Settings
    max_prompt: int
    double_bos: bool = False
    best_of: BestOf | None = None

    async def play(self, task: Task, sample: int) -> Trajectory:
        """Return the finished, ungraded trajectory. Raises EpisodeFailed where the user gives no reply, and BadInput
        where the task leaves no room for a turn."""
        agent, episode = TokenAgent(self, task, sample), self.settings.begin(task)
        with self.generator.asking():
            try:
                agent.open(episode)
                episode = await play_async(episode, agent.turn, self.human, self.settings, sample)
            finally:
                self.generator.forget(id(agent))
        row = make_trajectory(episode, self.human, self.settings, sample)
        row.extra.update(agent.in_row())
        return row


@dataclass
class TokenAgent:
    """The agent of one episode, and the token ids so far (`turns` as in `TokenRow`)."""

    runner: EpisodeRunner
    task: Task
    sample: int
    ids: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    cut: int = 0  # agent turns that ended for length

    def open(self, episode: Episode) -> None:
        """Read the problem. Raises BadInput where it leaves no room for a turn."""
        runner, task = self.runner, self.task
        ids = runner.chat.prompt_ids(chat_messages(episode.messages, runner.settings.system_prompt))
        ids = [ids[0], *ids] if runner.double_bos else ids
        if len(ids) > runner.max_prompt:
            raise BadInput(
                f"task {task.task_id} ({task.problem_description[:40]!r}...): the first prompt has "
                f"{len(ids)} tokens, more than the {runner.max_prompt} that leave room for a turn"
            )
        self.add(ids, 0)

    async def turn(self, episode: Episode) -> Episode:
        """Return the episode after the agent's next turn; given up where the prompt has outgrown `max_prompt`."""
        runner, number = self.runner, episode.turns + 1
        if episode.turns:
            self.add(runner.chat.continue_ids(self.ids, episode.history[-1].content), 0)
        if len(self.ids) > runner.max_prompt:
            return episode.give_up()
        seed = seed_of(runner.settings.seed, "agent", self.task.task_id, self.sample, number)
        more: dict[str, Any] = {}
        if runner.best_of is None:
            sample = await runner.generator.generate(self.ids, seed, id(self))
        else:
            sample, more["scores"] = await runner.best_of.draw(self.task, self.ids, seed)
        prompt = runner.chat.decode(self.ids)
        self.add(sample.ids, number)
        self.cut += not sample.ended
        extra = {"logprob": round(float(sample.logps.sum()), 4), "tokens": len(sample.ids)} | more
        return episode.step_agent(runner.chat.reply_text(sample.ids), prompt=prompt, extra=extra)

    def in_row(self) -> dict[str, Any]:
        """Return what the row keeps: turns cut for length, and the ids as they were sampled."""
        last = int(np.flatnonzero(self.turns)[-1]) + 1  # an unanswered reply of the user is no part of the dialogue
        prefix = int(self.ids[0] == self.runner.chat.bos_id)
        row = TokenRow(np.array(self.ids[:last], np.int32), np.array(self.turns[:last], np.int32), prefix)
        return {"turns_cut": self.cut, TOKENS: row_to_json(row)}

    def add(self, ids: Sequence[int] | np.ndarray, turn: int) -> None:
        """Append ids that belong to the agent's turn of that number, 0 for what the agent did not say."""
        self.ids += [int(token) for token in ids]
        self.turns += [turn] * len(ids)


@dataclass(frozen=True)
class ModelSimulator:
    """A simulated user that is a Llama of ours; its replies come from `generator`. max_prompt: tokens of its prompt."""

    chat: Chat
    generator: Generator
    model_name: str
    prompt: Prompt
    sampling: Sampling
    max_prompt: int

    @property
    def name(self) -> str:
        return "model"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "model": self.model_name,
            "prompt": self.prompt.name,
            "temperature": self.sampling.temperature,
            "max_new_tokens": self.sampling.max_new_tokens,
        }

    async def reply(self, request: SimulatorRequest) -> str:
        """Return one reply; a blank one is an error, after which the episode asks again with another seed.

        Where the chat template opens a thought for the model, the reply begins with its mark, so that what is thought
        can be told from what is said.
        """
        ids = self.chat.prompt_ids([{"role": "user", "content": simulator_prompt(request, self.prompt)}])
        if len(ids) > self.max_prompt:
            raise NoReply(f"the human's prompt has {len(ids)} tokens, more than {self.max_prompt}")
        sample = await self.generator.generate(ids, request.seed, None)
        text = self.chat.reply_text(sample.ids).strip()
        if not text:
            raise ValueError(f"the simulated human gave no reply about task {request.task.task_id}")
        return opened_thought(self.chat.decode(ids)) + text
