"""Which kind of row a file holds, and what is asked of a row beyond the types of its values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from colbench_env.design.html import extract_html
from colbench_env.python_source import NotPython, parse
from colbench_env.rewards import reward_problem, scale_of
from colbench_env.types import BadInput, Candidates, Pair, Ranked, Row, Task, Trajectory
from launch.data_tools.config import Kind

CLASSES: dict[Kind, type[Row]] = {
    "backend": Task,
    "frontend": Task,
    "trajectories": Trajectory,
    "critic-pairs": Pair,
    "turn-pairs": Pair,
    "candidates": Candidates,
    "ranked": Ranked,
}
PRIVILEGED = "In light that the final answer is"  # how the released critic rows begin


def kind_of(value: object) -> Kind | None:
    """Return the kind of row that a JSON value is meant to be, None if its keys are those of no kind."""
    if not isinstance(value, dict):
        return None
    if "additional_outputs" in value:
        return "ranked" if "judge_result" in value else "candidates"
    if "dialogue_history" in value:
        return "trajectories"
    if "chosen" in value or "rejected" in value:
        text = value.get("chosen")
        return "critic-pairs" if isinstance(text, str) and PRIVILEGED in text[:200] else "turn-pairs"
    if "problem_description" in value:
        return "backend" if "test_cases" in value else "frontend"
    return None


def read_row(value: object, kind: Kind | None, location: str) -> Row:
    """Read the row of a JSON value in a file of this kind. Raises BadInput with everything that makes it defective."""
    if kind is None:
        if isinstance(value, dict):
            raise BadInput(
                f"{location}: the keys are those of no known row, expected one of {', '.join(get_args(Kind))}"
            )
        raise BadInput(f"{location}: found no JSON object, expected a row")
    row = CLASSES[kind].from_json(value, location)
    if problems := list(_problems(row, kind)):
        raise BadInput(f"{location}: {'; '.join(problems)}")
    return row


def _problems(row: Row, kind: Kind) -> Iterator[str]:
    match row:
        case Task() if kind == "frontend":
            if extract_html(row.ground_truth) is None:
                yield "'ground_truth' has no <html> and no <body>, expected a page"
        case Task():
            if not row.test_cases:
                yield "'test_cases' is missing or empty, expected an object of call expressions"
            yield from _code_problems(row)
        case Trajectory():
            if problem := reward_problem(row.reward, scale_of(row.task)):
                yield problem
            if row.task.test_cases:
                yield from (f"task: {problem}" for problem in _code_problems(row.task))
        case Candidates() | Ranked():
            candidates = row.candidates if isinstance(row, Ranked) else row
            if problem := reward_problem(candidates.reward, scale_of(Task("", candidates.ground_truth))):
                yield problem


def _code_problems(task: Task) -> Iterator[str]:
    """Name what keeps the tests and the reference from ever being run; a missing reference is not a problem."""
    wrong = {}
    for name, call in task.test_cases.items():
        try:
            parse(call, "eval")
        except NotPython as problem:
            wrong[name] = problem
    if wrong:
        name = next(iter(wrong))
        more = f", and {len(wrong) - 1} more are not" if len(wrong) > 1 else ""
        reason = f"is not an expression ({wrong[name]})"
        yield f"test_cases: {name[:60]!r} {reason}{more}, expected calls such as f(1, 2)"
    try:
        parse(task.ground_truth, "exec")
    except NotPython as problem:
        yield f"'ground_truth' does not parse as Python ({problem})"
