"""What a run has achieved, as numbers and as the lines of text that the console and the page show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from colbench_env.endings import OUT_OF_TURNS
from colbench_env.statistics import Difference, Summary
from colbench_env.types import BenchmarkName, Verdict
from launch.reporting.metric_names import METRIC_NAMES, MetricNames, p_value, percent, points, share


@dataclass(frozen=True)
class Results:
    """How one policy did, or two on the same tasks.

    policies: of a run "start" and, except after zero-shot, "trained". difference: the second minus the first, None
    where there is one only. metric_names: how the figures are called.
    """

    policies: Mapping[str, Summary]
    difference: Difference | None
    metric_names: MetricNames = METRIC_NAMES["backend"]

    @property
    def benchmark(self) -> BenchmarkName:
        """What the tasks are of."""
        return self.metric_names.benchmark

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a JSON object, with whether the intervals of the two policies overlap."""
        policies = {name: summary.to_json() for name, summary in self.policies.items()}
        row: dict[str, Any] = {"benchmark": self.benchmark, "rewards": self.metric_names.name, "policies": policies}
        if self.difference is None:
            return row | {"difference": None, "intervals_overlap": None}
        first, second = self.policies.values()
        overlap = {
            "reward": first.reward.overlaps(second.reward),
            "success": first.success.overlaps(second.success),
        }
        return row | {"difference": self.difference.to_json(), "intervals_overlap": overlap}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """Read the results that `to_json` wrote."""
        difference = None if row["difference"] is None else Difference.from_json(row["difference"])
        policies = {name: Summary.from_json(summary) for name, summary in row["policies"].items()}
        names = METRIC_NAMES[row.get("rewards", row["benchmark"])]
        return cls(policies, difference, replace(names, benchmark=row["benchmark"]))


@dataclass(frozen=True)
class TableRow:
    """A row of a table as text: a cell for each policy, and the difference where there is one."""

    name: str
    cells: Sequence[str]
    difference: str = ""


def result_rows(results: Results) -> list[TableRow]:
    """List the figures of the policies and their difference."""
    policies, change, metric_names = list(results.policies.values()), results.difference, results.metric_names
    start, last = policies[0], policies[-1]
    passed = solved = ""
    ended, replied = (any(getattr(p, name) for p in policies) for name in ("out_of_turns", "replies"))
    if change:
        passed = f"{points(change.reward)}, {p_value(change.p_reward)}"
        solved = f"{points(change.success)}, {p_value(change.p_success)}"
    lines = [
        TableRow(metric_names.reward, [share(p.reward, metric_names.unit) for p in policies], passed),
        TableRow(metric_names.success, [share(p.success) for p in policies], solved),
        TableRow("turns", [f"{p.turns:.2f}" for p in policies], f"{last.turns - start.turns:+.2f}" if change else ""),
        TableRow("tokens a reply", ["n/a" if p.reply_tokens is None else f"{p.reply_tokens:.1f}" for p in policies]),
        TableRow("answers without a question", [f"{p.unasked} of {p.dialogues}" for p in policies]),
        TableRow("dialogues without an answer", [f"{p.unanswered} of {p.dialogues}" for p in policies]),
        *([TableRow("dialogues out of turns", [f"{p.out_of_turns} of {p.dialogues}" for p in policies])] * ended),
        *([TableRow("replies that leak", [f"{p.leaks} of {p.replies}" for p in policies])] * replied),
        TableRow("tasks counted", [str(p.tasks) for p in policies], f"{change.tasks} in both" if change else ""),
    ]
    if change:
        lines.insert(2, TableRow("win rate, ties half", ["" for _ in policies], share(change.wins)))
    if any(policy.excluded for policy in policies):
        lines.append(TableRow("excluded: not graded", [f"{p.excluded} of {p.dialogues}" for p in policies]))
    return lines


def conclusion(results: Results) -> str:
    """State what training changed, and how sure that is, in one sentence."""
    start, change, metric_names = results.policies["start"], results.difference, results.metric_names
    key, unit = metric_names.headline, metric_names.headline_unit
    name, before = metric_names.headline_name, getattr(start, metric_names.headline)
    if change is None:
        return f"{name} of the start policy on {start.tasks} held-out tasks: {share(before, unit)}."
    after = getattr(results.policies["trained"], key)
    overlap = "overlap" if before.overlaps(after) else "do not overlap"
    return (
        f"{name} went from {percent(before.mean, unit)} to {percent(after.mean, unit)}: "
        f"{points(getattr(change, key))} on the same {change.tasks} held-out tasks; the 95 % intervals of the two "
        f"policies {overlap}."
    )


def remark(critic: Mapping[str, Any] | None) -> str:
    """Describe a critic that had no pairs to learn from, given its stage's note; "" for any other."""
    if critic is None or critic.get("pairs") != 0:
        return ""
    return " No critic was trained: no task had two samples of which one is to be preferred."


def verdict_rows(results: Results) -> list[TableRow]:
    """Count how often each verdict was given, with its share of all tests of that policy.

    The tests of a dialogue that ran out of turns have a verdict of their own, whatever its last turn was graded as.
    """
    policies = list(results.policies.values())
    totals = [max(1, sum(policy.verdicts.values())) for policy in policies]
    rows = [
        (str(verdict), [p.verdicts.get(verdict, 0) - p.out_of_turns_verdicts.get(verdict, 0) for p in policies])
        for verdict in Verdict
    ]
    rows.append((OUT_OF_TURNS, [sum(policy.out_of_turns_verdicts.values()) for policy in policies]))
    return [
        TableRow(name, [f"{n} ({percent(n / total)})" for n, total in zip(given, totals, strict=True)])
        for name, given in rows
        if any(given)
    ]
