"""Dialogues between an agent and a simulated human, sampled turn by turn.

Every turn draws with a seed made of the run's seed, the task, the sample and the turn: an episode does not depend on
which others are played beside it.
"""

from __future__ import annotations

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
from sweet_jax.generation import Engine, Request
from sweet_jax.generation.batch_sampler import Sample, Sampling


@runtime_checkable
class Source(Protocol):
    """Where turns are drawn from."""

    async def draw(self, ids: Sequence[int], seed: int, session: Hashable | None) -> Sample:
        """The turn after these ids; a session goes on from what was read and drawn in it so far."""
        ...

    def forget(self, session: Hashable) -> None:
        """The session has ended."""
        ...


@dataclass(frozen=True)
class Drawn:
    """Turns of an engine."""

    engine: Engine
    sampling: Sampling

    async def draw(self, ids: Sequence[int], seed: int, session: Hashable | None) -> Sample:
        return await self.engine.sample(Request(ids, seed, self.sampling, session))

    def forget(self, session: Hashable) -> None:
        self.engine.forget(session)


@dataclass(frozen=True)
class Table:
    """An agent whose turns come from `source`, the human, and the rules.

    max_prompt: an episode whose prompt has outgrown so many tokens ends there without an answer. double_bos: prompts
    begin with two begin-of-text tokens.
    """

    chat: Chat
    source: Source
    human: UserSimulator
    settings: Settings
    max_prompt: int
    double_bos: bool = False

    async def play(self, task: Task, sample: int) -> Trajectory:
        """The finished, ungraded trajectory. Raises EpisodeFailed where the human gives no reply."""
        player, episode = Player(self, task, sample), self.settings.begin(task)
        try:
            player.open(episode)
            episode = await play_async(episode, player.turn, self.human, self.settings, sample)
        finally:
            self.source.forget(id(player))
        row = make_trajectory(episode, self.human, self.settings, sample)
        row.extra.update(player.in_row())
        return row


@dataclass
class Player:
    """The agent of one episode, and the token ids so far (`turns` as in `TokenRow`)."""

    table: Table
    task: Task
    sample: int
    ids: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    cut: int = 0  # agent turns that ended for length

    def open(self, episode: Episode) -> None:
        """Reads the problem. BadInput where it leaves no room for a turn."""
        table, task = self.table, self.task
        ids = table.chat.prompt_ids(chat_messages(episode.messages, table.settings.system_prompt))
        ids = [ids[0], *ids] if table.double_bos else ids
        if len(ids) > table.max_prompt:
            raise BadInput(
                f"task {task.task_id} ({task.problem_description[:40]!r}...): the first prompt has "
                f"{len(ids)} tokens, more than the {table.max_prompt} that leave room for a turn"
            )
        self._add(ids, 0)

    async def turn(self, episode: Episode) -> Episode:
        """The episode after the agent's next turn; given up where the prompt has outgrown the table's `max_prompt`."""
        table, number = self.table, episode.turns + 1
        if episode.turns:
            self._add(table.chat.continue_ids(self.ids, episode.history[-1].content), 0)
        if len(self.ids) > table.max_prompt:
            return episode.give_up()
        seed = seed_of(table.settings.seed, "agent", self.task.task_id, self.sample, number)
        sample = await table.source.draw(self.ids, seed, id(self))
        prompt = table.chat.decode(self.ids)
        self._add(sample.ids, number)
        self.cut += not sample.ended
        extra = {"logprob": round(float(sample.logps.sum()), 4), "tokens": len(sample.ids)}
        return episode.step_agent(table.chat.reply_text(sample.ids), prompt=prompt, extra=extra)

    def in_row(self) -> dict[str, Any]:
        """What the row keeps: turns cut for length, and the ids as they were sampled."""
        last = int(np.flatnonzero(self.turns)[-1]) + 1  # an unanswered human reply is no part of the dialogue
        prefix = int(self.ids[0] == self.table.chat.bos_id)
        row = TokenRow(np.array(self.ids[:last], np.int32), np.array(self.turns[:last], np.int32), prefix)
        return {"turns_cut": self.cut, TOKENS: row_to_json(row)}

    def _add(self, ids: Sequence[int] | np.ndarray, turn: int) -> None:
        self.ids += [int(token) for token in ids]
        self.turns += [turn] * len(ids)


@dataclass(frozen=True)
class ModelSimulator:
    """A human played by a Llama of ours, drawn from `source` with `sampling`. max_prompt: tokens of its prompt."""

    chat: Chat
    source: Source
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
        """One reply; a blank one is an error, after which the episode asks again with another seed.

        Where the chat template opens a thought for the model, the reply begins with its mark, so that what is thought
        can be told from what is said.
        """
        ids = self.chat.prompt_ids([{"role": "user", "content": simulator_prompt(request, self.prompt)}])
        if len(ids) > self.max_prompt:
            raise NoReply(f"the human's prompt has {len(ids)} tokens, more than {self.max_prompt}")
        sample = await self.source.draw(ids, request.seed, None)
        text = self.chat.reply_text(sample.ids).strip()
        if not text:
            raise ValueError(f"the simulated human gave no reply about task {request.task.task_id}")
        return opened_thought(self.chat.decode(ids)) + text
