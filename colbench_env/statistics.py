"""What graded trajectories say of a policy: means over tasks with intervals, and the difference between two policies.

Every interval is the 95 % percentile interval of a bootstrap over tasks: all samples of one task are drawn or left out
together. The seed is fixed, so the same rows give the same numbers.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from colbench_env.types import NO_ANSWER, BadInput, Trajectory, Verdict

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval; all three NaN where nothing was counted."""

    mean: float
    low: float
    high: float

    def overlaps(self, other: Self) -> bool:
        """Whether the intervals have a point in common; also true where one of them is unknown."""
        return not (self.high < other.low or other.high < self.low)

    def to_json(self) -> dict[str, float | None]:
        """The numbers as a JSON object, null for NaN."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, float | None]) -> Self:
        """The estimate that `to_json` wrote."""
        return cls(*(math.nan if row[name] is None else row[name] for name in ("mean", "low", "high")))


@dataclass(frozen=True)
class TurnCount:
    """The dialogues with `turns` agent turns: how many, how many of them have a reward, how many of these succeeded."""

    turns: int
    dialogues: int
    counted: int
    successes: int


@dataclass(frozen=True)
class Summary:
    """What the dialogues of one policy are worth.

    tests_passed, success: shares of the tests passed and of the answers that pass them all, means over `tasks` tasks.
    excluded: dialogues without a reward, which count in neither. turns: mean over dialogues. reply_tokens: mean over
    agent turns, None where tokens were not recorded. unasked: answers given in the first turn. unanswered: dialogues
    without an answer. verdicts: tests by verdict, in the order of `Verdict`.
    """

    dialogues: int
    excluded: int
    tasks: int
    tests_passed: Estimate
    success: Estimate
    turns: float
    reply_tokens: float | None
    unasked: int
    unanswered: int
    verdicts: dict[str, int]
    by_turns: tuple[TurnCount, ...]

    def to_json(self) -> dict[str, Any]:
        """The numbers as a JSON object."""
        estimates = {"tests_passed": self.tests_passed.to_json(), "success": self.success.to_json()}
        return asdict(self) | estimates

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The summary that `to_json` wrote."""
        estimates = {name: Estimate.from_json(row[name]) for name in ("tests_passed", "success")}
        return cls(**{**row, **estimates, "by_turns": tuple(TurnCount(**count) for count in row["by_turns"])})


@dataclass(frozen=True)
class Difference:
    """After minus before, on the `tasks` tasks that count for both."""

    tasks: int
    tests_passed: Estimate
    success: Estimate

    def to_json(self) -> dict[str, Any]:
        """The numbers as a JSON object."""
        return {"tasks": self.tasks, "tests_passed": self.tests_passed.to_json(), "success": self.success.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The difference that `to_json` wrote."""
        return cls(row["tasks"], Estimate.from_json(row["tests_passed"]), Estimate.from_json(row["success"]))


def bootstrap(values: Iterable[float], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """The mean of the values, one a task, with the 95 % percentile interval of its bootstrap distribution."""
    drawn_from = np.fromiter(values, np.float64)
    count, rng = len(drawn_from), np.random.default_rng(seed)
    if not count:
        return Estimate(math.nan, math.nan, math.nan)
    means = [drawn_from[rng.integers(0, count, count)].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(drawn_from.mean()), float(low), float(high))


def summarise(trajectories: Sequence[Trajectory]) -> Summary:
    """The summary of a policy's graded dialogues, any number of each task. BadInput where there are none."""
    if not trajectories:
        raise BadInput("there are no trajectories to summarise")
    rewards = rewards_by_task(trajectories)
    agent_turns = [turn for trajectory in trajectories for turn in trajectory.agent_turns]
    tokens = [turn.extra["tokens"] for turn in agent_turns if "tokens" in turn.extra]
    return Summary(
        dialogues=len(trajectories),
        excluded=sum(trajectory.reward is None for trajectory in trajectories),
        tasks=len(rewards),
        tests_passed=bootstrap(_mean(given) for given in rewards.values()),
        success=bootstrap(_success(given) for given in rewards.values()),
        turns=len(agent_turns) / len(trajectories),
        reply_tokens=_mean(tokens) if tokens else None,
        unasked=sum(len(one.agent_turns) == 1 and one.answer != NO_ANSWER for one in trajectories),
        unanswered=sum(one.answer == NO_ANSWER for one in trajectories),
        verdicts=_verdicts(trajectories),
        by_turns=_by_turns(trajectories),
    )


def compare(before: Sequence[Trajectory], after: Sequence[Trajectory]) -> Difference:
    """The paired difference between two policies on the same tasks. BadInput where the tasks are not the same."""
    missing = {one.task.task_id for one in before} ^ {one.task.task_id for one in after}
    if missing:
        raise BadInput(f"the two policies cannot be compared: {len(missing)} tasks were given to only one of them")
    old, new = rewards_by_task(before), rewards_by_task(after)
    both = [task for task in old if task in new]
    return Difference(
        tasks=len(both),
        tests_passed=bootstrap(_mean(new[task]) - _mean(old[task]) for task in both),
        success=bootstrap(_success(new[task]) - _success(old[task]) for task in both),
    )


def rewards_by_task(trajectories: Iterable[Trajectory]) -> dict[str, list[float]]:
    """The rewards of each task that has any, by task id, in the order of the trajectories."""
    found: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.reward is not None:
            found[trajectory.task.task_id].append(trajectory.reward)
    return dict(found)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _success(rewards: Sequence[float]) -> float:
    return sum(reward == 1.0 for reward in rewards) / len(rewards)


def _verdicts(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    counts = Counter(verdict for one in trajectories for verdict in one.extra.get("verdicts", {}).values())
    return {str(verdict): counts[verdict] for verdict in Verdict if counts[verdict]}


def _by_turns(trajectories: Iterable[Trajectory]) -> tuple[TurnCount, ...]:
    rewards: dict[int, list[float | None]] = defaultdict(list)
    for trajectory in trajectories:
        rewards[len(trajectory.agent_turns)].append(trajectory.reward)
    return tuple(
        TurnCount(turns, len(given), sum(reward is not None for reward in given), given.count(1.0))
        for turns, given in sorted(rewards.items())
    )
