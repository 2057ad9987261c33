"""The rows that are evaluated: read, joined with tasks, and every defect named by FILE:LINE."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colbench_env.rewards import Scale, check_rewards
from colbench_env.samples import Layout, check_layout, detect_layout
from colbench_env.tasks import Located, scan_located_rows
from colbench_env.types import BadInput, Task, Trajectory


@dataclass(frozen=True)
class Dialogues:
    """The readable rows of a file and their places, in order; what is wrong with the others.

    layout: in which unreadable rows have their places.
    """

    path: Path
    rows: tuple[Trajectory, ...]
    places: tuple[str, ...]
    defects: tuple[str, ...]
    layout: Layout


def read_dialogues(path: Path, tasks: Mapping[str, Task], samples: int, scale: Scale | None) -> Dialogues:
    """Read the dialogues of a file and complete their tasks from `tasks`.

    samples: the samples of each task, by which the layout is checked; 0: not checked.
    scale: that of the rewards; None where they do not matter.
    Raises BadInput where the file cannot be read or has no readable row, or where a reward is of another scale.
    """
    scanned = [_completed(found, tasks) for found in scan_located_rows(path, Trajectory)]
    read = [Located(found.location, found.line, row) for found in scanned if not isinstance(row := found.row, BadInput)]
    defects = [str(found.row) for found in scanned if isinstance(found.row, BadInput)]
    if not read:
        more = f" (and {len(defects) - 1} more such rows)" if len(defects) > 1 else ""
        raise BadInput(f"{defects[0]}{more}: there is no row that can be read")
    if scale is not None:
        check_rewards(read, scale)
    rows = [found.row for found in scanned]
    if samples:
        try:
            check_layout(rows, samples)
        except BadInput as wrong:
            defects.append(f"{_place(scanned, str(wrong), path)}: {wrong}")
    layout = detect_layout(rows)
    if layout.samples == 1:  # the place of an unreadable row is then no task's
        layout = detect_layout([found.row for found in read])
    return Dialogues(path, tuple(f.row for f in read), tuple(f.location for f in read), tuple(defects), layout)


def _place(scanned: Sequence[Located[Trajectory | BadInput]], sentence: str, path: Path) -> str:
    """Return FILE:LINE of the row that a sentence about the layout begins with ("row 5 is ..."); blank lines count."""
    number = int(re.match(r"row (\d+)", sentence)[1])  # type: ignore[index]
    return scanned[number - 1].location if number <= len(scanned) else f"{path}:{scanned[-1].line + 1}"


def _completed(found: Located[Trajectory | BadInput], tasks: Mapping[str, Task]) -> Located[Trajectory | BadInput]:
    """Complete the task of the row with what the task of the same description has."""
    row = found.row
    if isinstance(row, BadInput) or (other := tasks.get(row.task.problem_description)) is None:
        return found
    own = row.task
    task = replace(
        own,
        ground_truth=own.ground_truth or other.ground_truth,
        test_cases=own.test_cases or other.test_cases,
        hidden_information=other.hidden_information if own.hidden_information is None else own.hidden_information,
    )
    return replace(found, row=replace(row, task=task))


def read_tasks(path: Path) -> tuple[dict[str, Task], list[str]]:
    """Read the tasks of a file by their descriptions, and the defects of the others.

    Of two different tasks with one description neither is used: nobody can say which one a dialogue is about.
    """
    found: dict[str, Located[Task]] = {}
    doubtful: dict[str, str] = {}
    defects = []
    for scanned in scan_located_rows(path, Task):
        row = scanned.row
        if isinstance(row, BadInput):
            defects.append(str(row))
            continue
        first = found.setdefault(row.problem_description, Located(scanned.location, scanned.line, row))
        if first.row != row:
            doubtful[row.problem_description] = (
                f"{scanned.location}: the task has the problem_description of line {first.line} and is another one, so "
                "neither can be used"
            )
    return {text: task.row for text, task in found.items() if text not in doubtful}, [*defects, *doubtful.values()]


def lines_text(places: list[str]) -> str:
    """List the lines of some rows of one file, in few words.

    In: ["f:1", "f:2", "f:3", "f:9"]   Out: "lines 1-3, 9"
    """
    numbers = [int(place.rpartition(":")[2]) for place in places]
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:20]]
    more = f" and {len(runs) - 20} more stretches" if len(runs) > 20 else ""
    return ("line " if len(numbers) == 1 else "lines ") + ", ".join(shown) + more


def read_suspected(path: Path, tasks: Path | None) -> frozenset[str]:
    """Read which tasks are suspected: their ids, and of rows that are named by number the descriptions as well, where
    no other row of the file has the same.

    The text has ids, or numbers of rows of `tasks` from 0; # begins a comment. Raises BadInput for any other word, and
    for a number that is no row.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as problem:
        raise BadInput(f"{path}: is no text in UTF-8 ({problem.reason}), expected ids or numbers of tasks") from None
    found, rows, told = set[str](), list[Task | BadInput](), Counter[str]()
    for number, line in enumerate(lines, start=1):
        for word in filter(None, re.split(r"[\s,]+", line.partition("#")[0])):
            place = f"{path}:{number}"
            if re.fullmatch(r"[0-9a-f]{12}", word):
                found.add(word)
                continue
            if not word.isdecimal():
                raise BadInput(f"{place}: {word[:40]!r}, expected the id of a task (12 digits of 0-9a-f) or a number")
            if tasks is None:
                raise BadInput(f"{place}: {word} is the number of a row: --tasks=FILE is needed, whose row it is")
            if not rows:
                rows = [located.row for located in scan_located_rows(tasks, Task)]
                told = Counter(row.problem_description for row in rows if isinstance(row, Task))
            if int(word) >= len(rows):
                raise BadInput(f"{place}: {word} is no row of {tasks}, which has rows 0 to {len(rows) - 1}")
            row = rows[int(word)]
            if isinstance(row, Task):
                text = row.problem_description
                found |= {row.task_id, text} if told[text] == 1 else {row.task_id}
    if not found:
        raise BadInput(f"{path}: names no task")
    return frozenset(found)
