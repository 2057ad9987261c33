"""Runs references in the grader's sandbox, each twice: do they give values, and the same ones again?"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from colbench_env.flags import Flag, outcome_flags
from colbench_env.grading import Grader
from colbench_env.grading.verdicts import Outcome
from colbench_env.types import BadInput, Task, Verdict
from launch.checking.facts import References
from launch.console import Console


@dataclass(frozen=True)
class Ran:
    """What running showed. flags: by line. useless: why no answer can pass a test of the task, by line."""

    references: References
    flags: Mapping[int, frozenset[Flag]]
    useless: Mapping[int, str]


def run_references(tasks: Mapping[int, Task], workers: int, console: Console) -> Ran:
    """Runs the reference of every task (by line; all have a reference and tests), `workers` at a time.

    BadInput where this machine has no sandbox.
    """
    calls: Counter[str] = Counter()
    failing: dict[str, list[int]] = defaultdict(list)
    flags: dict[int, frozenset[Flag]] = {}
    useless: dict[int, str] = {}
    try:
        grader = Grader(workers=workers)
    except BadInput as error:
        raise BadInput(f"{error}; with --no-run nothing is run") from None
    with grader, ThreadPoolExecutor(workers) as pool:
        lines = {pool.submit(_run_twice, grader, task): line for line, task in tasks.items()}
        try:
            for done, future in enumerate(as_completed(lines), start=1):
                line, (first, second) = lines[future], future.result()
                calls.update(str(outcome.verdict) for outcome in first)
                for verdict in {outcome.verdict for outcome in first} - {Verdict.PASS}:
                    failing[str(verdict)].append(line)
                flags[line] = outcome_flags(first, second)
                if reason := _useless(tasks[line], first, flags[line]):
                    useless[line] = reason
                console.progress("running references", done, len(lines))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    by_verdict = {verdict: sorted(found) for verdict, found in sorted(failing.items())}
    references = References(len(tasks), grader.layers_text(), dict(sorted(calls.items())), by_verdict)
    return Ran(references, flags, dict(sorted(useless.items())))


def _run_twice(grader: Grader, task: Task) -> tuple[tuple[Outcome, ...], tuple[Outcome, ...]]:
    """The outcomes of two runs; of one, twice, where there was no value that could differ."""
    first = grader.run_reference(task)
    gives_values = any(outcome.verdict == Verdict.PASS for outcome in first)
    return first, grader.run_reference(task) if gives_values else first


def _useless(task: Task, outcomes: tuple[Outcome, ...], flags: frozenset[Flag]) -> str:
    """Why no answer could ever pass a test, "" if one could. A module that is missing here may be there elsewhere."""
    if Flag.MISSING_MODULE in flags or any(
        outcome.verdict in (Verdict.PASS, Verdict.INFRASTRUCTURE_ERROR) for outcome in outcomes
    ):
        return ""
    name, outcome = next(iter(task.test_cases)), outcomes[0]
    detail = f", {outcome.detail.splitlines()[0][:200]}" if outcome.detail else ""
    where = "its only test" if len(outcomes) == 1 else f"any of its {len(outcomes)} tests"
    return (
        f"the reference gives no value in {where}, so no answer can pass one ({name[:60]!r}: {outcome.verdict}{detail})"
    )
