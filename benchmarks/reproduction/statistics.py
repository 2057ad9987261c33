"""Means over seeds with intervals, and paired tests over seeds and tasks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
EXACT = 16  # seeds up to which every sign is tried


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, in per cent or points."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class PairedDifference:
    """One method less another on the same seeds and tasks. p: of the exact sign-flip test over seeds, two-sided."""

    difference: Interval
    p: float
    seeds: int


def over_seeds(bits: Sequence[str]) -> Interval:
    """Return the success of a method, "0110..." of each seed: intervals over seeds and, within them, over tasks."""
    tables = [np.array([bit == "1" for bit in seed], float) for seed in bits]
    return _interval(tables)


def compare(first: Sequence[str], second: Sequence[str]) -> PairedDifference:
    """Compare two methods, first less second; both have the same seeds and tasks in the same order."""
    tables = [
        np.array([float(a) - float(b) for a, b in zip(one, other, strict=True)])
        for one, other in zip(first, second, strict=True)
    ]
    return PairedDifference(_interval(tables), sign_flip_p([table.mean() for table in tables]), len(tables))


def _interval(tables: Sequence[np.ndarray]) -> Interval:
    """Return 100 times the mean, and its interval by a bootstrap of seeds and of tasks within each."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        seeds = rng.integers(0, len(tables), len(tables))
        drawn.append(np.mean([rng.choice(tables[seed], len(tables[seed])).mean() for seed in seeds]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    mean = float(np.mean([table.mean() for table in tables]))
    return Interval(100 * mean, 100 * float(low), 100 * float(high))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return how likely so large a mean difference is if its sign in each seed is a coin's; all signs are tried."""
    values = np.asarray(differences, float)
    if not len(values) or len(values) > EXACT:
        raise ValueError(f"{len(values)} differences, expected 1 to {EXACT}")
    signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    means = np.abs(signs @ values)
    return float(np.mean(means >= abs(values.sum()) - 1e-12))
