"""How well a critic's scores of single turns agree with the truth, on tasks where the truth can be had.

The true advantage of a turn is what playing on from it is worth: the mean success of continuations with the user
simulator, less the mean over the candidates of its position. Rank correlations do not depend on what is subtracted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from colbench_env.statistics import RESAMPLES, Estimate, Figures
from colbench_env.turn_kinds import TurnKind

PREFERENCES: tuple[tuple[str, tuple[TurnKind, ...], tuple[TurnKind, ...]], ...] = (
    ("hidden over not hidden", ("hidden",), ("not hidden",)),
    ("hidden over needless", ("hidden",), ("needless",)),
    ("hidden over repeat", ("hidden",), ("repeat",)),
    ("hidden over early answer", ("hidden",), ("early",)),
    ("not hidden over early answer", ("not hidden",), ("early",)),
    ("right answer over any question", ("right",), ("not hidden", "repeat", "needless")),
    ("right answer over wrong answer", ("right",), ("wrong",)),
)
"""(name, the kinds that should be preferred, the kinds that should not)."""


@dataclass(frozen=True)
class JudgedTurns:
    """The different candidates of one position.

    task_id: its task, over which intervals are drawn. turn: its number in the dialogue, from 1.
    kinds: what each candidate is. scores: of the critic. values: mean success of the continuations of each.
    halves: the same from one half and from the other half of the continuations, where there are two or more.
    """

    task_id: str
    turn: int
    kinds: tuple[TurnKind, ...]
    scores: tuple[float, ...]
    values: tuple[float, ...] = ()
    halves: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True)
class CriticTruth(Figures):
    """What a critic is worth.

    positions: how many there are, of which some have values. rank_correlation: Spearman's, within a position, mean over
    those whose candidates differ in value. top_half: share of the candidates of the upper half by score that are in the
    upper half by value. reliability: the rank correlation between the two halves of the continuations, which bounds
    what can be reached. preferences: name -> how often the mean score of the better kinds is above that of the worse,
    where both occur. counts: name -> in how many positions. scores: kind -> mean score. shares: kind -> share of the
    candidates.
    """

    positions: int
    rank_correlation: Estimate
    top_half: Estimate
    reliability: Estimate
    preferences: dict[str, Estimate] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)


def judge_critic(positions: Sequence[JudgedTurns], seed: int = 0) -> CriticTruth:
    """Compare scores with values and with kinds; 95 % intervals from a bootstrap over tasks."""

    def estimate(figure: Callable[[JudgedTurns], float | None]) -> Estimate:
        return _over_tasks(positions, figure, seed)

    kinds = [kind for position in positions for kind in position.kinds]
    scores = [score for position in positions for score in position.scores]
    by_kind = {kind: [s for k, s in zip(kinds, scores, strict=True) if k == kind] for kind in dict.fromkeys(kinds)}
    prefers = {name: functools.partial(_prefers, better=better, worse=worse) for name, better, worse in PREFERENCES}
    preferences = {name: estimate(figure) for name, figure in prefers.items()}
    counts = {name: sum(figure(p) is not None for p in positions) for name, figure in prefers.items()}
    return CriticTruth(
        len(positions),
        estimate(lambda p: spearman(p.scores, p.values)),
        estimate(lambda p: top_half_precision(p.scores, p.values)),
        estimate(lambda p: None if p.halves is None else spearman(*p.halves)),
        preferences,
        counts,
        {kind: float(np.mean(values)) for kind, values in by_kind.items()},
        {kind: len(values) / len(kinds) for kind, values in by_kind.items()},
    )


def spearman(scores: Sequence[float], values: Sequence[float]) -> float | None:
    """Return Spearman's rank correlation, equal ranks averaged; None where one side has no differences."""
    if len(scores) < 2 or len(scores) != len(values) or len(set(scores)) < 2 or len(set(values)) < 2:
        return None
    return float(np.corrcoef(_ranks(scores), _ranks(values))[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    """Return ranks from 1, equal values their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]


def top_half_precision(scores: Sequence[float], values: Sequence[float]) -> float | None:
    """Return which part of the upper half by score is in the upper half by value; ties of values count as they may.

    None where all values are equal, as any half is then the upper one.
    """
    half = len(scores) // 2
    if half == 0 or len(values) != len(scores) or len(set(values)) < 2:
        return None
    chosen = np.argsort(-np.asarray(scores), kind="stable")[:half]
    limit = np.sort(values)[::-1][half - 1]
    return float(np.mean(np.asarray(values)[chosen] >= limit))


def _prefers(position: JudgedTurns, better: Sequence[TurnKind], worse: Sequence[TurnKind]) -> float | None:
    """1.0 where the better kinds have the higher mean score, 0.5 where they are equal; None where one is missing."""
    sides = [
        [score for kind, score in zip(position.kinds, position.scores, strict=True) if kind in side]
        for side in (better, worse)
    ]
    if not sides[0] or not sides[1]:
        return None
    high, low = map(np.mean, sides)
    return 0.5 if high == low else float(high > low)


def _over_tasks(positions: Sequence[JudgedTurns], figure: Callable[[JudgedTurns], float | None], seed: int) -> Estimate:
    """Return the mean over positions, with all positions of a task drawn or left out together."""
    sums: dict[str, list[float]] = {}
    for position in positions:
        if (value := figure(position)) is not None:
            total = sums.setdefault(position.task_id, [0.0, 0.0])
            total[0] += value
            total[1] += 1
    if not sums:
        return Estimate(*3 * (float("nan"),))
    table: Any = np.array(list(sums.values()))
    drawn = np.random.default_rng(seed).integers(0, len(table), (RESAMPLES, len(table)))
    means = table[drawn, 0].sum(axis=1) / table[drawn, 1].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(float(table[:, 0].sum() / table[:, 1].sum()), float(low), float(high))
