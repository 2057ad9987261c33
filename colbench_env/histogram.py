"""Whole numbers in bins whose limits people can read."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Bin:
    """How many whole numbers lie from `low` to `high`, both included."""

    low: int
    high: int
    count: int


def histogram(values: Iterable[int]) -> tuple[Bin, ...]:
    """Count the values in bins that begin at 0, 1, 2, 5, 10, 20, 50, ...; from the first bin that has any to the last.

    In: [3, 4, 12]   Out: Bin(2, 4, 2), Bin(5, 9, 0), Bin(10, 19, 1)
    """
    counts: Counter[int] = Counter()
    for value in values:
        power = 10 ** (len(str(value)) - 1)
        counts[max((start * power for start in (1, 2, 5) if start * power <= value), default=0)] += 1
    starts = [0, *(start * 10**power for power in range(len(str(max(counts, default=0))) + 1) for start in (1, 2, 5))]
    return tuple(
        Bin(low, after - 1, counts[low])
        for low, after in zip(starts, starts[1:], strict=False)
        if min(counts, default=1) <= low <= max(counts, default=0)
    )
