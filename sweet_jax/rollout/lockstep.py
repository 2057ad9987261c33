"""Dialogues in waves: many that begin together and are kept in step, so that their turns make full batches.

What is in a batch, and in which order, does not depend on time, and several processes compute the same batches on one
mesh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from colbench_env.episodes import EpisodeFailed
from colbench_env.rollouts import Result
from colbench_env.types import Task
from sweet_jax.generation.batch_sampler import Sample
from sweet_jax.rollout.agent import Table


@runtime_checkable
class BatchSampler(Protocol):
    """What draws many turns at once, as `sweet_jax.generation.batch_sampler.Sampler` does."""

    def sample(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> Sequence[Sequence[Sample]]:
        """A turn after each prompt, drawn with the seed at the same place."""
        ...


class Step:
    """Keeps episodes in step: a batch begins when every episode under way waits for a turn.

    Of several waiting samplers the one that was named last comes first: humans after agents, so that agents stay in
    step.
    """

    def __init__(self, *samplers: BatchSampler):
        self._players = 0
        self._places: dict[Hashable, int] = {}  # of the sessions, in the order of their first turns
        self._waiting = {id(sampler): (sampler, []) for sampler in reversed(samplers)}

    def begin(self, players: int) -> None:
        """So many episodes begin."""
        self._players = players
        self._places = {}

    async def draw(self, sampler: BatchSampler, ids: Sequence[int], seed: int, session: Hashable | None) -> Sample:
        future: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
        place = self._places.setdefault(session, len(self._places))
        self._waiting[id(sampler)][1].append((place, list(ids), seed, future))
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
        batch = [entry for entry in waiting if not entry[3].cancelled()]  # none is left where an error ends the wave
        batch.sort(key=lambda entry: entry[0])  # humans may have answered in any order
        waiting.clear()
        if not batch:
            return
        drawn = sampler.sample([ids for _, ids, _, _ in batch], [seed for _, _, seed, _ in batch])
        for (_, _, _, future), (sample,) in zip(batch, drawn, strict=True):
            future.set_result(sample)


@dataclass(frozen=True)
class Wave:
    """Turns of a sampler for episodes kept in step. An agent's sessions are episodes: to forget one is to leave."""

    step: Step
    sampler: BatchSampler

    async def draw(self, ids: Sequence[int], seed: int, session: Hashable | None) -> Sample:
        return await self.step.draw(self.sampler, ids, seed, session)

    def forget(self, session: Hashable) -> None:
        self.step.leave()


def play_wave(
    table: Table,
    step: Step,
    episodes: Sequence[tuple[Task, int]],
    progress: Callable[[int], None] = lambda ended: None,
) -> list[Result]:
    """The trajectory, or the failure, of each (task, sample), in order. `progress` is told how many have ended.

    Agent and human of the table draw from `step`, or the human answers at once.
    """
    return asyncio.run(_play(table, step, episodes, progress))


async def _play(
    table: Table, step: Step, episodes: Sequence[tuple[Task, int]], progress: Callable[[int], None]
) -> list[Result]:
    step.begin(len(episodes))
    ended = 0

    async def one(task: Task, sample: int) -> Result:
        nonlocal ended
        try:
            return await table.play(task, sample)
        except EpisodeFailed as failure:
            return failure
        finally:
            ended += 1
            progress(ended)

    tasks = [asyncio.ensure_future(one(*episode)) for episode in episodes]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
