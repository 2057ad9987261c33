"""What graded trajectories say of a policy: means over tasks with intervals, the best of k samples, the difference
between two policies.

Every interval is the 95 % percentile interval of a bootstrap over tasks: all samples of one task are drawn or left out
together. The seed is fixed, so the same rows give the same numbers.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Self

import numpy as np

from colbench_env.endings import ran_out_of_turns
from colbench_env.simulator_health import human_replies, leaks
from colbench_env.types import NO_ANSWER, BadInput, Trajectory, Verdict

RESAMPLES = 2000
FINEST = 10_000  # of the units in which differences are counted exactly; else they are rounded to COARSE
COARSE = 1000
TIE = 1e-6  # rewards that are closer are equal


@dataclass(frozen=True)
class Figures:
    """Numbers that go into a JSON file."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object, null for NaN."""
        return asdict(self, dict_factory=_without_nan)


def _without_nan(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in items}


@dataclass(frozen=True)
class Estimate(Figures):
    """A mean and its 95 % interval; all three NaN where nothing was counted."""

    mean: float
    low: float
    high: float

    def overlaps(self, other: Self) -> bool:
        """Whether the intervals have a point in common; also true where one of them is unknown."""
        return not (self.high < other.low or other.high < self.low)

    @classmethod
    def from_json(cls, row: Mapping[str, float | None]) -> Self:
        """Read the estimate that `to_json` wrote."""
        values = (row[name] for name in ("mean", "low", "high"))
        return cls(*(math.nan if value is None else value for value in values))


@dataclass(frozen=True)
class TurnCount:
    """The dialogues with `turns` agent turns: how many, how many have a reward, how many of these succeeded, and the
    sum of their rewards."""

    turns: int
    dialogues: int
    counted: int
    successes: int
    rewards: float

    def share(self, figure: str) -> float:
        """Return the mean "reward", or the share of "success", of those that have a reward; NaN where none has."""
        if not self.counted:
            return math.nan
        return (self.rewards if figure == "reward" else self.successes) / self.counted


@dataclass(frozen=True)
class Summary(Figures):
    """What the dialogues of one policy are worth.

    reward, success: the reward (backend: share of the tests passed; frontend: similarity) and the share of the answers
    with a reward of 1, means over `tasks` tasks. excluded: dialogues without a reward, which count in neither. turns:
    mean over dialogues. reply_tokens: mean over agent turns, None where tokens were not recorded. unasked: answers in
    the first turn. unanswered: dialogues without an answer. verdicts: tests by verdict, in the order of `Verdict`.
    out_of_turns: dialogues that ended so (`endings.ran_out_of_turns`); out_of_turns_verdicts: their part of `verdicts`.
    replies: of the user simulator; leaks: those that give the solution away (`simulator_health.leaks`).
    """

    dialogues: int
    excluded: int
    tasks: int
    reward: Estimate
    success: Estimate
    turns: float
    reply_tokens: float | None
    unasked: int
    unanswered: int
    verdicts: dict[str, int]
    by_turns: tuple[TurnCount, ...]
    out_of_turns: int = 0
    out_of_turns_verdicts: dict[str, int] = field(default_factory=dict)
    replies: int = 0
    leaks: int = 0

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read the summary that `to_json` wrote."""
        estimates = {name: Estimate.from_json(row[name]) for name in ("reward", "success")}
        return cls(**{**row, **estimates, "by_turns": tuple(TurnCount(**count) for count in row["by_turns"])})


@dataclass(frozen=True)
class Difference(Figures):
    """After minus before, on the `tasks` tasks that count for both.

    p_reward, p_success: of the exact paired test `sign_flip_p`. wins: share of the pairs of dialogues about one task in
    which the one after has the higher reward, a tie (rewards less than TIE apart) counting half. only_before,
    only_after: tasks that count for one of the two only. gained, lost: tasks whose share of successes rose, and fell.
    """

    tasks: int
    reward: Estimate
    success: Estimate
    wins: Estimate
    p_reward: float
    p_success: float
    only_before: int
    only_after: int
    gained: int
    lost: int

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read the difference that `to_json` wrote."""
        return cls(**{**row, **{name: Estimate.from_json(row[name]) for name in ("reward", "success", "wins")}})


@dataclass(frozen=True)
class Bin:
    """How many whole numbers lie from `low` to `high`, both included."""

    low: int
    high: int
    count: int


@dataclass(frozen=True)
class BestOf(Figures):
    """What the best of `k` samples of a task is worth, a mean over the `tasks` tasks that have so many.

    reward: that sample's reward (best-of-k). success: whether it is 1 (pass@k).
    """

    k: int
    tasks: int
    reward: Estimate
    success: Estimate


def bootstrap(values: Iterable[float], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Estimate the mean of the values, one a task, with the 95 % percentile interval of its bootstrap distribution."""
    drawn_from = np.fromiter(values, np.float64)
    count, rng = len(drawn_from), np.random.default_rng(seed)
    if not count:
        return Estimate(math.nan, math.nan, math.nan)
    means = [drawn_from[rng.integers(0, count, count)].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(drawn_from.mean()), float(low), float(high))


def summarise(trajectories: Sequence[Trajectory]) -> Summary:
    """Summarise a policy's graded dialogues, any number of each task. Raises BadInput where there are none."""
    if not trajectories:
        raise BadInput("there are no trajectories to summarise")
    rewards = rewards_by_task(trajectories)
    ended = [trajectory for trajectory in trajectories if ran_out_of_turns(trajectory)]
    agent_turns = [turn for trajectory in trajectories for turn in trajectory.agent_turns]
    tokens = [count for turn in agent_turns if isinstance(count := turn.extra.get("tokens"), int)]
    replies = [(trajectory.task, reply) for trajectory in trajectories for reply in human_replies(trajectory)]
    return Summary(
        dialogues=len(trajectories),
        excluded=sum(trajectory.reward is None for trajectory in trajectories),
        tasks=len(rewards),
        reward=bootstrap(_mean(given) for given in rewards.values()),
        success=bootstrap(_success(given) for given in rewards.values()),
        turns=len(agent_turns) / len(trajectories),
        reply_tokens=_mean(tokens) if tokens else None,
        unasked=sum(len(one.agent_turns) == 1 and one.answer != NO_ANSWER for one in trajectories),
        unanswered=sum(one.answer == NO_ANSWER for one in trajectories),
        verdicts=_verdicts(trajectories),
        by_turns=_by_turns(trajectories),
        out_of_turns=len(ended),
        out_of_turns_verdicts=_verdicts(ended),
        replies=len(replies),
        leaks=sum(bool(leaks(task, reply)) for task, reply in replies),
    )


def compare(before: Sequence[Trajectory], after: Sequence[Trajectory]) -> Difference:
    """Compare two policies in pairs, on the tasks that both have a reward for."""
    old, new = rewards_by_task(before), rewards_by_task(after)
    both = [task for task in old if task in new]
    passed = [_mean(new[task]) - _mean(old[task]) for task in both]
    solved = [_success(new[task]) - _success(old[task]) for task in both]
    return Difference(
        tasks=len(both),
        reward=bootstrap(passed),
        success=bootstrap(solved),
        wins=bootstrap(_wins(old[task], new[task]) for task in both),
        p_reward=sign_flip_p(passed),
        p_success=sign_flip_p(solved),
        only_before=len(old) - len(both),
        only_after=len(new) - len(both),
        gained=sum(change > 0 for change in solved),
        lost=sum(change < 0 for change in solved),
    )


def sign_flip_p(differences: Iterable[float]) -> float:
    """Compute the two-sided p-value of an exact sign-flip permutation test on paired differences.

    If neither side is better, each difference is as likely to have the other sign: p is the share of all 2^n choices of
    signs whose sum is at least as far from 0 as the one seen. For differences of -1, 0 and 1 this is McNemar's exact
    test. The choices are counted by the sum they give, in units of the differences' common denominator; where that is
    above FINEST, differences are rounded to 1/COARSE.

    In: [1, 1, 1, 0, -1]   Out: 0.625 (of 16 choices of four signs 10 give a sum of 2 or more, or -2 or less)
    """
    exact = [Fraction(value).limit_denominator(COARSE) for value in differences]
    unit = math.lcm(*(value.denominator for value in exact))
    unit = unit if unit <= FINEST else COARSE
    counted = [units for value in exact if (units := round(value * unit))]
    total, seen = sum(map(abs, counted)), abs(sum(counted))
    likely = np.zeros(total + 1)  # of each sum of the differences that get a plus: all signs give 2 * that - total
    likely[0], reach = 1.0, 0
    for units in sorted(map(abs, counted)):
        before = likely[: reach + 1] / 2
        reach += units
        likely[: reach + 1] /= 2
        likely[units : reach + 1] += before
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(likely[sums >= seen].sum()))


def best_of(trajectories: Iterable[Trajectory]) -> tuple[BestOf, ...]:
    """Estimate what the best of 1, 2, 4, ... and all samples of a task is worth; empty where no task has a second
    one."""
    rewards = list(rewards_by_task(trajectories).values())
    most = max(map(len, rewards), default=1)
    sizes = sorted({most, *(2**power for power in range(most.bit_length()))}) if most > 1 else []
    found = []
    for k in sizes:
        enough = [given for given in rewards if len(given) >= k]
        passed = bootstrap(expected_best(given, k) for given in enough)
        solved = bootstrap(expected_best([float(reward == 1.0) for reward in given], k) for given in enough)
        found.append(BestOf(k, len(enough), passed, solved))
    return tuple(found)


def expected_best(values: Sequence[float], k: int) -> float:
    """Compute the mean of the largest of k of the n values, over all choices of k; of 0 and 1 the unbiased pass@k.

    pass@k = 1 - C(n - c, k) / C(n, k) with c ones among n values (arXiv:2107.03374, equation 1); for any values, the
    i-th smallest is the largest of C(i - 1, k - 1) of the C(n, k) choices.

    In: [0, 0.5, 1], k 2   Out: 5/6 (of the pairs (0, 0.5), (0, 1), (0.5, 1))
    """
    n = len(values)
    return sum(value * (math.comb(i, k - 1) / math.comb(n, k)) for i, value in enumerate(sorted(values)))


def histogram(values: Iterable[int]) -> tuple[Bin, ...]:
    """Count whole numbers from 0 in bins that begin at 0, 1, 2, 5, 10, 20, 50, ...; from the first bin that has any to
    the last.

    In: [3, 4, 12]   Out: Bin(2, 4, 2), Bin(5, 9, 0), Bin(10, 19, 1)
    """
    numbers = np.fromiter(values, np.int64)
    powers = 10 ** np.arange(len(str(numbers.max(initial=0))) + 1)
    edges = [0, *np.outer(powers, [1, 2, 5]).flatten().tolist()]
    counts, _ = np.histogram(numbers, edges)
    held = np.flatnonzero(counts)
    bins = [Bin(low, after - 1, int(count)) for low, after, count in zip(edges, edges[1:], counts, strict=False)]
    return tuple(bins[held[0] : held[-1] + 1]) if len(held) else ()


def rewards_by_task(trajectories: Iterable[Trajectory]) -> dict[str, list[float]]:
    """Group the rewards by task id, in the order of the trajectories; tasks without a reward are left out."""
    found: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.reward is not None:
            found[trajectory.task.task_id].append(trajectory.reward)
    return dict(found)


def _wins(before: Sequence[float], after: Sequence[float]) -> float:
    pairs = [(old, new) for old in before for new in after]
    return _mean([0.5 if abs(new - old) < TIE else float(new > old) for old, new in pairs])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _success(rewards: Sequence[float]) -> float:
    return sum(reward == 1.0 for reward in rewards) / len(rewards)


def _verdicts(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    given = (one.extra.get("verdicts") for one in trajectories)
    counts = Counter(str(verdict) for row in given if isinstance(row, dict) for verdict in row.values())
    return {str(verdict): counts[verdict] for verdict in Verdict if counts[verdict]}


def _by_turns(trajectories: Iterable[Trajectory]) -> tuple[TurnCount, ...]:
    rewards: dict[int, list[float | None]] = defaultdict(list)
    for trajectory in trajectories:
        rewards[len(trajectory.agent_turns)].append(trajectory.reward)
    return tuple(
        TurnCount(turns, len(given), len(known), known.count(1.0), sum(known))
        for turns, given in sorted(rewards.items())
        for known in [[reward for reward in given if reward is not None]]
    )
