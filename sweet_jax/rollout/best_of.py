"""Best of N: the policy draws N turns in every position, and the critic chooses the one that is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from colbench_env.types import Candidates, Task
from sweet_jax.data.chat import Chat, privileged_prefix
from sweet_jax.generation import Engine, Request, Sample, Sampling
from sweet_jax.ranking import Turn, TurnScore

ScoreTurns = Callable[[Sequence[Candidates], Sequence[Turn]], Sequence[TurnScore]]


@dataclass(frozen=True)
class BestOf:
    """Draws `count` turns of the engine and keeps the one with the highest score; of equal ones the first.

    score: of turns in positions (`ranking.TurnScorer`). privileged: the critic is shown the task's reference solution.
    """

    engine: Engine
    sampling: Sampling
    chat: Chat
    count: int
    score: ScoreTurns
    privileged: bool = True

    async def draw(self, task: Task, ids: Sequence[int], seed: int) -> tuple[Sample, list[float]]:
        """Return the turn after these ids, and the scores of all that were drawn, in order."""
        requests = [Request(list(ids), seed, self.sampling, sample=number) for number in range(self.count)]
        samples = await asyncio.gather(*map(self.engine.sample, requests))
        scores = self._scores(task, ids, samples)
        return samples[int(np.argmax(scores))], scores

    def _scores(self, task: Task, ids: Sequence[int], samples: Sequence[Sample]) -> list[float]:
        text = self.chat.decode(list(ids))
        prefix = privileged_prefix(task.ground_truth) if self.privileged else ""
        # No log-probs of the sampler: it need not be the reference policy.
        place = {"prompt_ids": list(ids), "output_ids": [], "prefix_length": int(ids[0] == self.chat.bos_id)}
        row = Candidates(text, prefix + text, "", 0.0, task.ground_truth, (), (), (), (), place)
        turns = [Turn(0, tuple(sample.ids.tolist())) for sample in samples]
        return [round(score.advantage, 4) for score in self.score([row], turns)]
