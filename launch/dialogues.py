"""Dialogues between an agent and a simulated human, sampled turn by turn through an engine or in waves.

Every turn draws with a seed made of the run's seed, the task, the sample and the turn: an episode does not depend on
which others are played beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from colbench_env.dialogue import Episode, chat_messages
from colbench_env.episodes import Settings, play_on, seed_of
from colbench_env.humans import Human, HumanRequest, NoReply, human_prompt
from colbench_env.prompts import BACKEND_HUMAN, Prompt
from colbench_env.types import BadInput, Task, Trajectory
from sweet_jax.batch import TokenRow
from sweet_jax.chat import Chat
from sweet_jax.engine import Engine, Request
from sweet_jax.rows import TOKENS, row_to_json
from sweet_jax.sampler import Sample, Sampler, Sampling


@dataclass(frozen=True)
class Assignment:
    """One dialogue that is wanted: sample number `sample` about `task`."""

    task: Task
    sample: int


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


class Step:
    """Keeps episodes in step: a batch begins when every episode under way waits for a turn.

    So what is in a batch does not depend on time, and several processes compute the same batches. Of several waiting
    samplers the one that was named last comes first: humans after agents, so that agents stay in step.
    """

    def __init__(self, players: int, *samplers: Sampler):
        self._players, self._waiting = players, {id(sampler): (sampler, []) for sampler in reversed(samplers)}

    async def draw(self, sampler: Sampler, ids: Sequence[int], seed: int) -> Sample:
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        self._waiting[id(sampler)][1].append((list(ids), seed, future))
        self._go()
        return await future

    def leave(self) -> None:
        """An episode has ended."""
        self._players -= 1
        self._go()

    def _go(self) -> None:
        if not self._players or sum(len(waiting) for _, waiting in self._waiting.values()) < self._players:
            return
        sampler, waiting = next(entry for entry in self._waiting.values() if entry[1])
        batch = waiting[:]
        waiting.clear()
        drawn = sampler.sample([ids for ids, _, _ in batch], [seed for _, seed, _ in batch])
        for (_, _, future), (sample,) in zip(batch, drawn, strict=True):
            future.set_result(sample)


@dataclass(frozen=True)
class Wave:
    """Turns of a sampler, in batches, for episodes kept in step."""

    step: Step
    sampler: Sampler

    async def draw(self, ids: Sequence[int], seed: int, session: Hashable | None) -> Sample:
        return await self.step.draw(self.sampler, ids, seed)

    def forget(self, session: Hashable) -> None:
        pass


@dataclass
class Player:
    """The agent of one episode, and the token ids so far (`turns` as in `TokenRow`)."""

    chat: Chat
    source: Source
    wanted: Assignment
    system: str
    max_prompt: int
    seed: int
    double_bos: bool = False
    ids: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    cut: int = 0  # agent turns that ended for length

    def open(self, episode: Episode) -> None:
        """Reads the problem. BadInput where it leaves no room for a turn."""
        ids = self.chat.prompt_ids(chat_messages(episode.messages, self.system))
        ids = [ids[0], *ids] if self.double_bos else ids
        if len(ids) > self.max_prompt:
            task = self.wanted.task
            raise BadInput(
                f"task {task.task_id} ({task.problem_description[:40]!r}...): the first prompt has "
                f"{len(ids)} tokens, more than the {self.max_prompt} that leave room for a turn"
            )
        self._add(ids, 0)

    async def turn(self, episode: Episode) -> Episode:
        """The episode after the agent's next turn; given up where the prompt has outgrown `max_prompt` tokens."""
        task, number = self.wanted.task, episode.turns + 1
        if episode.turns:
            self._add(self.chat.continue_ids(self.ids, episode.history[-1].content), 0)
        if len(self.ids) > self.max_prompt:
            return episode.give_up()
        seed = seed_of(self.seed, "agent", task.task_id, self.wanted.sample, number)
        sample = await self.source.draw(self.ids, seed, id(self))
        prompt = self.chat.decode(self.ids)
        self._add(sample.ids, number)
        self.cut += not sample.ended
        extra = {"logprob": round(float(sample.logps.sum()), 4), "tokens": len(sample.ids)}
        return episode.step_agent(self.chat.reply_text(sample.ids), prompt=prompt, extra=extra)

    def in_row(self) -> dict[str, Any]:
        """What the row keeps: turns cut for length, and the ids as they were sampled."""
        last = int(np.flatnonzero(self.turns)[-1]) + 1  # an unanswered human reply is no part of the dialogue
        prefix = int(self.ids[0] == self.chat.bos_id)
        row = TokenRow(np.array(self.ids[:last], np.int32), np.array(self.turns[:last], np.int32), prefix)
        return {"turns_cut": self.cut, TOKENS: row_to_json(row)}

    def leave(self) -> None:
        self.source.forget(id(self))

    def _add(self, ids: Sequence[int], turn: int) -> None:
        self.ids += [int(token) for token in ids]
        self.turns += [turn] * len(ids)


@dataclass(frozen=True)
class Table:
    """Who plays in waves: the agent's chat, sampler and system prompt, the human, and the rules."""

    chat: Chat
    sampler: Sampler
    human: Human | ModelHuman
    system: str
    max_turns: int
    max_prompt: int
    seed: int

    def play(
        self, wanted: Sequence[Assignment], progress: Callable[[int], None] = lambda finished: None
    ) -> list[Trajectory]:
        """A finished, ungraded trajectory for each assignment, in order. `progress` is told how many have ended.

        An episode whose prompt outgrows `max_prompt` tokens ends there without an answer. Raises EpisodeFailed where
        the human gives no reply.
        """
        return asyncio.run(self._play(wanted, progress))

    async def _play(self, wanted: Sequence[Assignment], progress: Callable[[int], None]) -> list[Trajectory]:
        samplers = (self.sampler, self.human.sampler) if isinstance(self.human, ModelHuman) else (self.sampler,)
        step = Step(len(wanted), *samplers)
        human = self.human.at(Wave(step, self.human.sampler)) if isinstance(self.human, ModelHuman) else self.human
        settings = Settings(self.max_turns, system=self.system, seed=self.seed, attempts=4, retry_seconds=0.0)
        ended = 0

        async def one(assignment: Assignment) -> Trajectory:
            nonlocal ended
            source = Wave(step, self.sampler)
            player = Player(self.chat, source, assignment, self.system, self.max_prompt, self.seed)
            episode = settings.begin(assignment.task)
            player.open(episode)
            episode = await play_on(episode, player.turn, human, settings, assignment.sample)
            ended += 1
            progress(ended)
            step.leave()
            said = {"name": human.name, "settings": dict(human.settings)}
            return episode.to_trajectory(
                {"sample": assignment.sample, "seed": self.seed, "human": said} | player.in_row()
            )

        tasks = [asyncio.ensure_future(one(assignment)) for assignment in wanted]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class ModelHuman:
    """A human played by a Llama of ours; by default the prompt is colbench_env's `backend_human`."""

    chat: Chat
    sampler: Sampler | None
    model_name: str
    source: Source | None = None
    prompt: Prompt = BACKEND_HUMAN
    sampling: Sampling | None = None
    max_prompt: int | None = None

    @property
    def name(self) -> str:
        return "model"

    @property
    def settings(self) -> Mapping[str, Any]:
        sampling = self.sampling or self.sampler.sampling
        return {
            "model": self.model_name,
            "prompt": self.prompt.name,
            "temperature": sampling.temperature,
            "max_new_tokens": sampling.max_new_tokens,
        }

    def at(self, source: Source) -> ModelHuman:
        """This human, its words drawn from `source`."""
        return ModelHuman(self.chat, self.sampler, self.model_name, source, self.prompt, self.sampling, self.max_prompt)

    async def reply(self, request: HumanRequest) -> str:
        """One reply; a blank one is an error, after which the episode asks again with another seed."""
        ids = self.chat.prompt_ids([{"role": "user", "content": human_prompt(request, self.prompt)}])
        if self.max_prompt is not None and len(ids) > self.max_prompt:
            raise NoReply(f"the human's prompt has {len(ids)} tokens, more than {self.max_prompt}")
        sample = await self.source.draw(ids, request.seed, None)
        text = self.chat.reply_text(sample.ids).strip()
        if not text:
            raise ValueError(f"the simulated human gave no reply about task {request.task.task_id}")
        return text
