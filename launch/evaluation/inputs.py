"""The rows that are evaluated: read, joined with tasks, and every defect named by FILE:LINE."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from colbench_env.samples import Layout, check_layout, detect_layout
from colbench_env.tasks import scan_rows
from colbench_env.types import BadInput, Task, Trajectory


@dataclass(frozen=True)
class Placed:
    """A row and its place, FILE:LINE."""

    where: str
    row: Any

    @property
    def line(self) -> int:
        """The number of its line, from 1."""
        return int(self.where.rpartition(":")[2])


@dataclass(frozen=True)
class PlacedTrajectory(Placed):
    """A trajectory and its place."""

    @classmethod
    def from_json(cls, row: object, where: str) -> Self:
        """As `Trajectory.from_json`."""
        return cls(where, Trajectory.from_json(row, where))


@dataclass(frozen=True)
class PlacedTask(Placed):
    """A task of a tasks file and its place."""

    @classmethod
    def from_json(cls, row: object, where: str) -> Self:
        """As `Task.from_json`."""
        return cls(where, Task.from_json(row, where))


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


def read_dialogues(path: Path, tasks: Mapping[str, Task], samples: int) -> Dialogues:
    """The dialogues of a file, their tasks completed from `tasks`; the layout is checked where `samples` are told.

    BadInput where the file cannot be read or has no readable row at all.
    """
    scanned = [_completed(row, tasks) for row in scan_rows(path, PlacedTrajectory)]
    placed = [row for row in scanned if isinstance(row, Placed)]
    defects = [str(row) for row in scanned if isinstance(row, BadInput)]
    if not placed:
        more = f" (and {len(defects) - 1} more such rows)" if len(defects) > 1 else ""
        raise BadInput(f"{defects[0]}{more}: there is no row that can be read")
    rows = [row.row if isinstance(row, Placed) else row for row in scanned]
    if samples:
        try:
            check_layout(rows, samples)
        except BadInput as wrong:
            defects.append(f"{_place(scanned, str(wrong), path)}: {wrong}")
    layout = detect_layout(rows)
    if layout.samples == 1:  # the place of an unreadable row is then no task's
        layout = detect_layout([row.row for row in placed])
    return Dialogues(path, tuple(row.row for row in placed), tuple(row.where for row in placed), tuple(defects), layout)


def _place(scanned: list[Placed | BadInput], sentence: str, path: Path) -> str:
    """FILE:LINE of the row that a sentence about the layout begins with ("row 5 is ..."), blank lines counted."""
    number = int(re.match(r"row (\d+)", sentence)[1])  # type: ignore[index]
    if number > len(scanned):
        return f"{path}:{scanned_line(scanned[-1], path) + 1}"
    return f"{path}:{scanned_line(scanned[number - 1], path)}"


def scanned_line(row: Placed | BadInput, path: Path) -> int:
    """The line of a row that was read, or of one that could not be."""
    return row.line if isinstance(row, Placed) else int(str(row).removeprefix(f"{path}:").partition(":")[0])


def _completed(row: Placed | BadInput, tasks: Mapping[str, Task]) -> Placed | BadInput:
    """The row with what its own task lacks and the task of the same description has."""
    if isinstance(row, BadInput) or (other := tasks.get(row.row.task.problem_description)) is None:
        return row
    own: Task = row.row.task
    task = replace(
        own,
        ground_truth=own.ground_truth or other.ground_truth,
        test_cases=own.test_cases or other.test_cases,
        hidden_information=other.hidden_information if own.hidden_information is None else own.hidden_information,
    )
    return replace(row, row=replace(row.row, task=task))


def read_tasks(path: Path) -> tuple[dict[str, Task], list[str]]:
    """The tasks of a file by their descriptions, and the defects of the others.

    Of two different tasks with one description neither is used: nobody can say which one a dialogue is about.
    """
    found: dict[str, PlacedTask] = {}
    doubtful: dict[str, str] = {}
    defects = []
    for row in scan_rows(path, PlacedTask):
        if isinstance(row, BadInput):
            defects.append(str(row))
            continue
        first = found.setdefault(row.row.problem_description, row)
        if first.row != row.row:
            doubtful[row.row.problem_description] = (
                f"{row.where}: the task has the problem_description of line {first.line} and is another one, so "
                "neither can be used"
            )
    return {text: row.row for text, row in found.items() if text not in doubtful}, [*defects, *doubtful.values()]


def lines_text(places: list[str]) -> str:
    """The lines of some rows of one file, in few words.

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
