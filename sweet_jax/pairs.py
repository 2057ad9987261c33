"""Which samples are preferred to which: trajectory pairs from rewards, turn pairs from the critic's scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class IndexPair:
    """Numbers of the preferred and of the other sample."""

    chosen: int
    rejected: int


def trajectory_pairs(rewards: Sequence[float], success: float = 1.0) -> list[IndexPair]:
    """Pairs among the k samples of one backend task (section 4.1, step 2).

    The first sample with the best reward is chosen if that reward is `success` (all tests passed); every strictly worse
    sample is a rejected one.

    In:  rewards [0.3, 1.0, 1.0, 0.9]     Out: (1, 0), (1, 3)
    """
    if not rewards or max(rewards) < success:
        return []
    best = list(rewards).index(max(rewards))
    return [IndexPair(best, other) for other, reward in enumerate(rewards) if reward < rewards[best]]


def score_pairs(rewards: Sequence[float], margin: float = 0.1) -> list[IndexPair]:
    """Pairs among the k samples of one frontend task (section 4.1, step 2): every two whose scores differ by `margin`.

    The better one is chosen. Pairs are in the order of the chosen, then of the rejected samples.

    In:  rewards [0.70, 0.85, 0.65, 0.74]     Out: (1, 0), (1, 2), (1, 3)
    """
    least = margin - 1e-9  # a difference of 0.1 in decimals counts, whatever its floating point
    return [
        IndexPair(better, worse)
        for better, high in enumerate(rewards)
        for worse, low in enumerate(rewards)
        if high - low >= least
    ]


def turn_pairs(scores: Sequence[float], texts: Sequence[object], num_pairs: int, rng: random.Random) -> list[IndexPair]:
    """`num_pairs` pairs among the C candidates of one turn (section 4.2).

    The chosen one is drawn from the upper half by score, the rejected one from the lower half. A pair of equal texts
    would teach nothing and is left out, so fewer pairs can come back.

    In:  scores [.1, .9, .5, -.3], all texts different, 1 pair
    Out: chosen 1 or 2, rejected 0 or 3
    """
    ranked = sorted(range(len(scores)), key=lambda index: -scores[index])
    upper, lower = ranked[: len(ranked) // 2], ranked[len(ranked) - len(ranked) // 2 :]
    if not upper:
        return []
    drawn = [IndexPair(rng.choice(upper), rng.choice(lower)) for _ in range(num_pairs)]
    return [pair for pair in drawn if texts[pair.chosen] != texts[pair.rejected]]
