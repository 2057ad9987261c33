"""What a run has achieved, as numbers and as the lines of text that the console and the page show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from colbench_env.statistics import Difference, Estimate, Summary
from colbench_env.types import Verdict


@dataclass(frozen=True)
class Results:
    """How one policy did, or two on the same tasks.

    policies: of a run "start" and, except after zero-shot, "trained". difference: the second minus the first, None
    where there is one only.
    """

    policies: Mapping[str, Summary]
    difference: Difference | None

    def to_json(self) -> dict[str, Any]:
        """The numbers as a JSON object, with the answer to whether the intervals of the two policies overlap."""
        row: dict[str, Any] = {"policies": {name: summary.to_json() for name, summary in self.policies.items()}}
        if self.difference is None:
            return row | {"difference": None, "intervals_overlap": None}
        first, second = self.policies.values()
        overlap = {
            "tests_passed": first.tests_passed.overlaps(second.tests_passed),
            "success": first.success.overlaps(second.success),
        }
        return row | {"difference": self.difference.to_json(), "intervals_overlap": overlap}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The results that `to_json` wrote."""
        difference = None if row["difference"] is None else Difference.from_json(row["difference"])
        return cls({name: Summary.from_json(summary) for name, summary in row["policies"].items()}, difference)


@dataclass(frozen=True)
class Line:
    """A row of a table as text: a cell for each policy, and the difference where there is one."""

    name: str
    cells: Sequence[str]
    difference: str = ""


def result_lines(results: Results) -> list[Line]:
    """The table of the policies and their difference."""
    policies, change = list(results.policies.values()), results.difference
    start, last = policies[0], policies[-1]
    passed = solved = ""
    if change:
        passed = f"{points(change.tests_passed)}, {p_value(change.p_tests_passed)}"
        solved = f"{points(change.success)}, {p_value(change.p_success)}"
    lines = [
        Line("tests passed", [share(p.tests_passed) for p in policies], passed),
        Line("success", [share(p.success) for p in policies], solved),
        Line("turns", [f"{p.turns:.2f}" for p in policies], f"{last.turns - start.turns:+.2f}" if change else ""),
        Line("tokens a reply", ["n/a" if p.reply_tokens is None else f"{p.reply_tokens:.1f}" for p in policies]),
        Line("answers without a question", [f"{p.unasked} of {p.dialogues}" for p in policies]),
        Line("dialogues without an answer", [f"{p.unanswered} of {p.dialogues}" for p in policies]),
        Line("tasks counted", [str(p.tasks) for p in policies], f"{change.tasks} in both" if change else ""),
    ]
    if any(policy.excluded for policy in policies):
        lines.append(Line("excluded: not graded", [f"{p.excluded} of {p.dialogues}" for p in policies]))
    return lines


def conclusion(results: Results) -> str:
    """One sentence: what training changed, and how sure that is."""
    start, change = results.policies["start"], results.difference
    if change is None:
        return f"Success of the start policy on {start.tasks} held-out tasks: {share(start.success)}."
    trained = results.policies["trained"]
    overlap = "overlap" if start.success.overlaps(trained.success) else "do not overlap"
    return (
        f"Success went from {percent(start.success.mean)} to {percent(trained.success.mean)}: {points(change.success)} "
        f"on the same {change.tasks} held-out tasks; the 95 % intervals of the two policies {overlap}."
    )


def remark(critic: Mapping[str, Any] | None) -> str:
    """A sentence about a critic that had nothing to learn from, given its stage's note; else empty."""
    if critic is None or critic.get("pairs") != 0:
        return ""
    return " No critic was trained: no task had a sample that passed all tests and a worse one."


def verdict_lines(results: Results) -> list[Line]:
    """How often each verdict was given, with its share of all tests of that policy."""
    counts = [policy.verdicts for policy in results.policies.values()]
    totals = [max(1, sum(count.values())) for count in counts]
    return [
        Line(str(verdict), [f"{n} ({percent(n / total)})" for n, total in zip(given, totals, strict=True)])
        for verdict, given in ((verdict, [count.get(verdict, 0) for count in counts]) for verdict in Verdict)
        if any(given)
    ]


def percent(value: float) -> str:
    """In: 0.125   Out: "12.5 %" """
    return "n/a" if math.isnan(value) else f"{100 * value:.1f} %"


def share(estimate: Estimate) -> str:
    """In: Estimate(0.5, 0.25, 0.75)   Out: "50.0 % [25.0, 75.0]" """
    if math.isnan(estimate.mean):
        return "n/a"
    return f"{percent(estimate.mean)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def points(estimate: Estimate) -> str:
    """In: Estimate(0.5, 0.25, 0.75)   Out: "+50.0 points [+25.0, +75.0]" """
    if math.isnan(estimate.mean):
        return "n/a"
    return f"{100 * estimate.mean:+.1f} points [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"


def p_value(p: float) -> str:
    """In: 0.0234   Out: "p = 0.023" """
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def duration(seconds: float) -> str:
    """In: 754.2   Out: "12 min 34 s" """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"
