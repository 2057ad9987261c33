"""Which samples are preferred to which: trajectory pairs from rewards, turn pairs from the critic's scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class IndexPair:
    """The numbers of the preferred and of the other sample, from 0."""

    chosen: int
    rejected: int


def trajectory_pairs(rewards: Sequence[float], success: float = 1.0) -> list[IndexPair]:
    """Pair the k samples of one backend task by reward (section 4.1, step 2, of arXiv 2503.15478).

    The first sample with the best reward is chosen if that reward is `success` (all tests passed); every strictly worse
    sample is a rejected one.

    In:  rewards [0.3, 1.0, 1.0, 0.9]     Out: (1, 0), (1, 3)
    """
    if not rewards or max(rewards) < success:
        return []
    best = list(rewards).index(max(rewards))
    return [IndexPair(best, other) for other, reward in enumerate(rewards) if reward < rewards[best]]


def score_pairs(rewards: Sequence[float], margin: float = 0.1) -> list[IndexPair]:
    """Pair the k samples of one frontend task (section 4.1, step 2): every two whose scores differ by `margin` or more.

    The better one is chosen. Pairs are ordered by chosen, then by rejected sample.

    In:  rewards [0.70, 0.85, 0.65, 0.74]     Out: (1, 0), (1, 2), (1, 3)
    """
    least = margin - 1e-9  # a difference of 0.1 in decimals counts, whatever its floating point
    return [
        IndexPair(better, worse)
        for better, high in enumerate(rewards)
        for worse, low in enumerate(rewards)
        if high - low >= least
    ]


def best_sample(rewards: Sequence[float]) -> list[int]:
    """Return the best sample, the first of equals, if it is preferred to another one by `score_pairs`; else none."""
    best = max(range(len(rewards)), key=rewards.__getitem__)
    return [best] if any(pair.chosen == best for pair in score_pairs(rewards)) else []


def turn_pairs(
    scores: Sequence[float], texts: Sequence[object], num_pairs: int, rng: random.Random, min_gap: float = 0.0
) -> list[IndexPair]:
    """Draw `num_pairs` pairs among the C candidates of one turn (section 4.2 of arXiv 2503.15478).

    The chosen one is drawn from the better half by score, the rejected one from the worse half. Pairs of equal texts
    teach nothing and are dropped, so there may be fewer than `num_pairs`.
    min_gap: where it is above 0, only pairs whose scores differ by so much are drawn, all of them where they are few:
    among candidates that are as good as one another, the halves are told apart by the critic's noise alone.

    In:  scores [.1, .9, .5, -.3], all texts different, 1 pair
    Out: chosen 1 or 2, rejected 0 or 3
    """
    ranked = sorted(range(len(scores)), key=lambda index: -scores[index])
    upper, lower = ranked[: len(ranked) // 2], ranked[len(ranked) - len(ranked) // 2 :]
    if not upper:
        return []
    if min_gap > 0:
        clear = [
            IndexPair(better, worse)
            for better in upper
            for worse in lower
            if scores[better] - scores[worse] >= min_gap and texts[better] != texts[worse]
        ]
        return rng.sample(clear, min(num_pairs, len(clear)))
    drawn = [IndexPair(rng.choice(upper), rng.choice(lower)) for _ in range(num_pairs)]
    return [pair for pair in drawn if texts[pair.chosen] != texts[pair.rejected]]


def ties(scores: Sequence[float], texts: Sequence[object], num_pairs: int) -> list[IndexPair]:
    """Pair each of the `num_pairs` best different candidates with itself: nothing is preferred, and the NLL remains.

    In:  scores [.1, .9, .5, .9], texts "abcb", 2 pairs
    Out: (1, 1), (2, 2)
    """
    ranked = sorted(range(len(scores)), key=lambda index: -scores[index])
    first = {texts[index]: index for index in reversed(ranked)}
    return [IndexPair(index, index) for index in ranked if first[texts[index]] == index][:num_pairs]
