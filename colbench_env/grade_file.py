"""Grading the rows of a file: each graded row is written as soon as it and all before it are done.

So a run that was killed has left a beginning of the file it would have written, and goes on from there.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from colbench_env.episodes import with_grade
from colbench_env.grading import Grade
from colbench_env.locking import locked
from colbench_env.tasks import SyncTimer, append_rows, read_complete, scan_lines
from colbench_env.types import BadInput, Trajectory

GRADE_KEYS = ("grader", "verdicts", "tests", "page")  # what a grade adds to a row, besides its reward


class AnswerGrader(Protocol):
    """What grades answers: `grading.Grader` for functions, `design.grading.DesignGrader` for pages."""

    @property
    def mode(self) -> str:
        """The name of the grader that graded rows record."""
        ...

    def layers_text(self) -> str:
        """Name in a line what keeps answers from doing harm."""
        ...

    def grade_many(self, answers: Any, /, on_done: Any = ...) -> list[Any]:
        """Grade (task, answer) pairs, in order; `on_done(index, grade)` is called with each grade."""
        ...


def without_grade(trajectory: Trajectory) -> Trajectory:
    """Return the row without reward and verdicts."""
    rest = {name: value for name, value in trajectory.extra.items() if name not in GRADE_KEYS}
    return replace(trajectory, reward=None, extra=rest)


def why_ungraded(rows: Sequence[Trajectory]) -> str:
    """Why rows that were graded have no reward, as the rest of a sentence."""
    pages = [row.extra.get("page") for row in rows if row.reward is None]
    reasons = {str(page["problem"]) for page in pages if isinstance(page, dict) and page.get("problem")}
    return "; ".join(sorted(reasons)) or "for reasons of this machine"


def grade_rows(
    rows: Sequence[Trajectory],
    wanted: Sequence[bool],
    grader: AnswerGrader | None,
    target: Path | None,
    progress: Callable[[int, int], None],
) -> list[Trajectory]:
    """Grade the rows that are `wanted` and return all in order; what `target` has of them is not graded again.

    grader: may be None where no row is wanted.
    progress: is called with the number of wanted rows that are done, and of all.
    Raises BadInput where `target` holds something else than a beginning of the result.
    """
    mode = "" if grader is None else grader.mode
    done = [] if target is None else read_complete(target, Trajectory)
    if target is not None:
        _check_begins(target, done, rows, wanted, mode)
    found: dict[int, Trajectory] = dict(enumerate(done))
    found |= {index: rows[index] for index in range(len(done), len(rows)) if not wanted[index]}
    remaining = [index for index in range(len(done), len(rows)) if wanted[index]]
    written, graded, total = len(done), sum(wanted[: len(done)]), sum(wanted)
    sync = SyncTimer()

    def write_ready() -> None:
        nonlocal written
        ready = written
        while ready in found:
            ready += 1
        if target is not None:
            append_rows(
                target, [found[index] for index in range(written, ready)], sync=sync.due() or ready == len(rows)
            )
        written = ready

    def keep(position: int, grade: Grade) -> None:
        nonlocal graded
        index = remaining[position]
        found[index] = with_grade(rows[index], grade, mode)
        graded += 1
        write_ready()
        progress(graded, total)

    write_ready()
    if remaining and grader is not None:
        grader.grade_many([(rows[index].task, rows[index].answer) for index in remaining], on_done=keep)
    return [found[index] for index in range(len(rows))]


def _check_begins(
    target: Path, done: Sequence[Trajectory], rows: Sequence[Trajectory], wanted: Sequence[bool], mode: str
) -> None:
    """Raise BadInput with the first row of `target` that is not the row that would be written there."""
    if len(done) > len(rows):
        raise BadInput(f"{_place(target, len(rows) + 1)}: the file has more rows than there are to grade, {len(rows)}")
    for number, (found, row, grade) in enumerate(zip(done, rows, wanted, strict=False), start=1):
        if row.reward is None or grade:
            found, row = without_grade(found), without_grade(row)
        if found != row:
            raise BadInput(
                f"{_place(target, number)}: this is not row {number} of what is graded here, so the file belongs to "
                "another run: name another file, or remove it"
            )
        by = done[number - 1].extra.get("grader")
        if grade and by != mode:
            raise BadInput(f"{_place(target, number)}: the row was graded by {by!r}, not {mode!r}: name another file")


def _place(path: Path, number: int) -> str:
    """FILE:LINE of a row, counted from 1."""
    return next(itertools.islice(scan_lines(path), number - 1, None)).location


def alone_on(target: Path | None) -> contextlib.AbstractContextManager[None]:
    """Inside, no other process grades into the file, which is made where there is none. BadInput where one does."""
    if target is None:
        return contextlib.nullcontext()
    if not target.parent.is_dir():
        raise BadInput(f"{target}: cannot be written: No such file or directory")
    return locked(target, f"{target}:", f"{target}: another process is writing this file")
