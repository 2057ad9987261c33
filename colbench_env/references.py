"""What the references of a benchmark tell of it: which tasks cannot be graded, and what blind guessing would score."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from .flags import Flag, outcome_flags
from .grading import encoding
from .grading.verdicts import Outcome, equal
from .python_source import NotPython, parse
from .types import Task, Verdict

Key = TypeVar("Key")
Result = TypeVar("Result")

USELESS = {
    Verdict.TIMEOUT: "runs for too long",
    Verdict.MEMORY: "needs too much memory",
    Verdict.CRASH: "ends its process",
    Verdict.SYNTAX_ERROR: "does not parse",
    Verdict.UNSUPPORTED: "gives a value that cannot be compared",
}


def source_defect(task: Task) -> str:
    """Say what is seen to be wrong with the reference or a test without running them, or "".

    In: tests {"test1": "f(1)", "test2": "x = f(2)"}   Out: "test2 is no expression (invalid syntax ...): 'x = f(2)'"
    """
    try:
        parse(task.ground_truth, "exec")
    except NotPython as reason:
        return f"the reference is not Python ({reason})"
    for name, call in task.test_cases.items():
        try:
            parse(call, "eval")
        except NotPython as reason:
            return f"{name} is not an expression ({reason}): {_shown(call)}"
    return ""


def outcome_defect(task: Task, outcomes: Sequence[Outcome]) -> str:
    """Say what a run of the reference has shown to be wrong with it, or "".

    An exception in some tests is no defect, nor is a module that is missing here and may be there elsewhere.
    """
    for name, outcome in zip(task.test_cases, outcomes, strict=True):
        if outcome.verdict in USELESS:
            return f"the reference {USELESS[outcome.verdict]} in {name} ({outcome.detail})"
    first = outcomes[0]
    if all(one.verdict == Verdict.ERROR for one in outcomes) and Flag.MISSING_MODULE not in outcome_flags(
        tuple(outcomes), tuple(outcomes)
    ):
        return f"the reference gives no value in any of its {len(outcomes)} tests ({first.detail})"
    return ""


def run_each(
    tasks: Mapping[Key, Task], run: Callable[[Task], Result], workers: int, on_done: Callable[[Key, Result], None]
) -> None:
    """Run every task and give its key and result to `on_done`, in this thread, as soon as it is done.

    `run` is called in `workers` threads. What it or `on_done` raises ends everything that has not begun.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(run, task): key for key, task in tasks.items()}
        try:
            for future in as_completed(waiting):
                on_done(waiting[future], future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def commonest_share(outcomes: Sequence[Outcome], mode: str) -> float:
    """Compute the share of a task's tests that an answer passes which always gives the commonest of the reference's
    results.

    Compares as the grader does. NaN where the machine has failed in a test, which then is unknown.

    In: results 3, None, 3, 5 and an exception   Out: 0.4
    """
    if any(outcome.verdict == Verdict.INFRASTRUCTURE_ERROR for outcome in outcomes):
        return math.nan
    values = [value for outcome in outcomes if (value := _value(outcome, mode)) is not _NOTHING]
    most = max((sum(equal(value, other, mode) for other in values) for value in values), default=0)
    return most / len(outcomes)


_NOTHING = object()  # no value that counts


def _value(outcome: Outcome, mode: str) -> object:
    if outcome.verdict != Verdict.PASS:
        return _NOTHING
    try:
        value = encoding.decode(outcome.encoded, encoding.NAN if mode == "strict" else None)
    except encoding.Malformed:
        return _NOTHING
    return _NOTHING if value is None and mode == "official" else value


def _shown(text: str, most: int = 60) -> str:
    return repr(text if len(text) <= most else text[: most - 3] + "...")
