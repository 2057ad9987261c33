"""Runs references in the grader's sandbox, each twice: do they give values, and the same ones again?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from colbench_env.flags import Flag, outcome_flags
from colbench_env.grading import Grader
from colbench_env.grading.verdicts import Outcome
from colbench_env.references import outcome_defect, run_each
from colbench_env.types import BadInput, Task, Verdict
from launch.common.console import Console
from launch.data_tools.report_data import References


@dataclass(frozen=True)
class ReferenceRun:
    """What running showed. flags: by line. defects: what is wrong with the reference, by line."""

    references: References
    flags: Mapping[int, frozenset[Flag]]
    defects: Mapping[int, str]


def run_references(tasks: Mapping[int, Task], workers: int, console: Console) -> ReferenceRun:
    """Run the reference of every task (by line; all have a reference and tests), `workers` at a time.

    Raises BadInput where this machine has no sandbox.
    """
    calls: Counter[str] = Counter()
    failing: dict[str, list[int]] = defaultdict(list)
    flags: dict[int, frozenset[Flag]] = {}
    defects: dict[int, str] = {}

    def ran(line: int, outcomes: tuple[tuple[Outcome, ...], tuple[Outcome, ...]]) -> None:
        first, second = outcomes
        calls.update(str(outcome.verdict) for outcome in first)
        for verdict in {outcome.verdict for outcome in first} - {Verdict.PASS}:
            failing[str(verdict)].append(line)
        flags[line] = outcome_flags(first, second)
        if defect := outcome_defect(tasks[line], first):
            defects[line] = defect
        console.progress("running references", len(flags), len(tasks))

    try:
        grader = Grader(workers=workers)
    except BadInput as error:
        raise BadInput(f"{error}; with --no-run nothing is run") from None
    with grader:
        run_each(tasks, lambda task: _run_twice(grader, task), workers, ran)
    by_verdict = {verdict: sorted(found) for verdict, found in sorted(failing.items())}
    references = References(len(tasks), grader.layers_text(), dict(sorted(calls.items())), by_verdict)
    return ReferenceRun(references, flags, dict(sorted(defects.items())))


def _run_twice(grader: Grader, task: Task) -> tuple[tuple[Outcome, ...], tuple[Outcome, ...]]:
    """Return the outcomes of two runs; of one run, twice, where no call gave a value that could differ."""
    first = grader.run_reference(task)
    gives_values = any(outcome.verdict == Verdict.PASS for outcome in first)
    return first, grader.run_reference(task) if gives_values else first
