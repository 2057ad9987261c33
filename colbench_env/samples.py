"""The layout of a file with several samples of each task.

The project's files are sample-major: with T tasks, row `j * T + i` is sample j of task i, so the file is the tasks file
over and over. Others write task-major files, the samples of a task one below the other.

Rows are those of `tasks.scan_rows`. One that could not be read (a BadInput) fits in any place. Rows are counted from 1.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .types import BadInput, Trajectory

MAX_SHOWN = 60  # characters of a task in a sentence


@dataclass(frozen=True)
class Layout:
    """How the rows of a file are ordered: `tasks` different tasks with `samples` rows each.

    first_wrong: of an irregular file, the first row that is not what the rows before it lead to expect, one more than
    the last where a row is missing; `samples` is then the most rows of one task.
    """

    tasks: int
    samples: int
    kind: Literal["sample-major", "task-major", "irregular"]
    first_wrong: int | None = None


def detect_layout(trajectories: Sequence[Trajectory | BadInput]) -> Layout:
    """Detect the layout of the rows; a single row of each task is sample-major. Raises BadInput where there are no
    rows."""
    return layout_of(_task_ids(trajectories))


def layout_of(tasks: Sequence[str | None]) -> Layout:
    """As `detect_layout`, of the rows' task ids; None for a row that could not be read."""
    count, rows_of = len(tasks), Counter(task for task in tasks if task is not None)
    if not count:
        raise BadInput("there are no rows whose layout could be told")
    if max(rows_of.values(), default=1) == 1:
        return Layout(count, 1, "sample-major")
    for period in _divisors(count):
        if period < count and _first_difference(tasks, period) is None:
            return Layout(period, count // period, "sample-major")
    for samples in _divisors(count):
        if samples > 1 and _first_mixed(tasks, samples) is None:
            return Layout(count // samples, samples, "task-major")
    return Layout(len(rows_of), max(rows_of.values()), "irregular", _first_wrong(tasks) + 1)


def check_layout(trajectories: Sequence[Trajectory | BadInput], samples: int) -> None:
    """Raise BadInput with the first row in a wrong place, unless there are `samples` of each task, sample-major."""
    if samples < 1:
        raise BadInput(f"{samples} samples of each task, expected at least 1")
    tasks = _task_ids(trajectories)
    count = len(tasks)
    period = -(-count // samples)
    wrong = _first_difference(tasks, period)
    layout = f"{samples} samples of each task, sample-major (all tasks once, then all of them again)"
    if wrong is not None:
        first = next(row for row in range(wrong % period, count, period) if tasks[row] is not None)
        hint = ""
        if samples > 1 and count % samples == 0 and _first_mixed(tasks, samples) is None:
            hint = "; the file is task-major: the samples of a task lie together"
        raise BadInput(
            f"row {wrong + 1} is of the task {_shown(trajectories[wrong])}, expected that of row {first + 1}, "
            f"{_shown(trajectories[first])}: {count} rows were to be {layout}{hint}"
        )
    if count % samples or not count:
        raise BadInput(f"row {count + 1} is missing: {count} rows cannot be {layout}, expected a multiple of {samples}")


def _task_ids(rows: Sequence[Trajectory | BadInput]) -> list[str | None]:
    return [None if isinstance(row, BadInput) else row.task.task_id for row in rows]


def _divisors(number: int) -> list[int]:
    small = [divisor for divisor in range(1, int(number**0.5) + 1) if number % divisor == 0]
    return sorted({*small, *(number // divisor for divisor in small)})


def _first_difference(tasks: Sequence[str | None], period: int) -> int | None:
    """Find the first row that is of another task than the rows `period`, 2 `period`, ... before it."""
    expected: list[str | None] = [None] * period
    for row, task in enumerate(tasks):
        if task is not None:
            if expected[row % period] not in (None, task):
                return row
            expected[row % period] = task
    return None


def _first_mixed(tasks: Sequence[str | None], samples: int) -> int | None:
    """Find the first row that breaks groups of `samples` rows, each of a task of its own."""
    group_of: dict[str, int] = {}
    expected: list[str | None] = [None] * -(-len(tasks) // samples)
    for row, task in enumerate(tasks):
        if task is not None:
            group = row // samples
            if expected[group] not in (None, task) or group_of.setdefault(task, group) != group:
                return row
            expected[group] = task
    return None


def _first_wrong(tasks: Sequence[str | None]) -> int:
    """Find the first row, from 0, that the rows before it do not lead to expect; the end of the file if one is missing.

    The first task that comes again tells what the file was to be: at once, so groups; after a round, so rounds.
    """
    seen: dict[str, int] = {}
    for row, task in enumerate(tasks):
        first = row if task is None else seen.setdefault(task, row)
        if first < row:
            break
    if row - first == 1:
        end = next((after for after in range(row, len(tasks)) if tasks[after] != tasks[row]), len(tasks))
        wrong = _first_mixed(tasks, end - first)
    else:
        wrong = _first_difference(tasks, row - first)
    return len(tasks) if wrong is None else wrong


def _shown(row: Trajectory | BadInput) -> str:
    assert isinstance(row, Trajectory)  # a row that could not be read is in no wrong place
    text = " ".join(row.task.problem_description[: 4 * MAX_SHOWN].split())
    return repr(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "...")
