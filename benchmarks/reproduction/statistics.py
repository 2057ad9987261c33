"""Means over seeds with intervals, and paired tests over seeds and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from colbench_env.statistics import RESAMPLES, Estimate, sign_flip_p


@dataclass(frozen=True)
class PairedDifference:
    """One method less another on the same seeds and tasks. p: of the exact sign-flip test over seeds, two-sided."""

    difference: Estimate
    p: float
    seeds: int


def over_seeds(bits: Sequence[str]) -> Estimate:
    """Return the success of a method, "0110..." of each seed: intervals over seeds and, within them, over tasks."""
    return _estimate([np.array([bit == "1" for bit in seed], float) for seed in bits])


def compare(first: Sequence[str], second: Sequence[str]) -> PairedDifference:
    """Compare two methods, first less second; both have the same seeds and tasks in the same order."""
    tables = [
        np.array([float(a) - float(b) for a, b in zip(one, other, strict=True)])
        for one, other in zip(first, second, strict=True)
    ]
    return PairedDifference(_estimate(tables), sign_flip_p(float(table.mean()) for table in tables), len(tables))


def _estimate(tables: Sequence[np.ndarray]) -> Estimate:
    """Return 100 times the mean, and its 95 % interval by a bootstrap of seeds and of tasks within each."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        seeds = rng.integers(0, len(tables), len(tables))
        drawn.append(np.mean([rng.choice(tables[seed], len(tables[seed])).mean() for seed in seeds]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    mean = float(np.mean([table.mean() for table in tables]))
    return Estimate(100 * mean, 100 * float(low), 100 * float(high))
