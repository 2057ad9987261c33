"""What the references of the evaluated tasks show when they are read and run: defects, flags, the chance level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from colbench_env.flags import Flag, outcome_flags, source_flags
from colbench_env.grading import Grader
from colbench_env.grading.verdicts import Outcome
from colbench_env.references import commonest_share, outcome_defect, run_each, source_defect
from colbench_env.types import Task


@dataclass(frozen=True)
class ReferenceAudit:
    """By task id: what is wrong with a task's reference or tests, its flags, and the share that guessing passes."""

    defects: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, frozenset[Flag]] = field(default_factory=dict)
    chances: Mapping[str, float] = field(default_factory=dict)


def read_references(tasks: Sequence[Task]) -> ReferenceAudit:
    """Audit references without running anything. Each of the tasks has a reference and tests."""
    defects = {task.task_id: defect for task in tasks if (defect := source_defect(task))}
    return ReferenceAudit(defects, {task.task_id: source_flags(task) for task in tasks})


def run_references(
    tasks: Sequence[Task], read: ReferenceAudit, grader: Grader, progress: Callable[[int, int], None]
) -> ReferenceAudit:
    """Add to `read` the results of one run of each reference that is not defective by its source."""
    defects, flags, chances = dict(read.defects), dict(read.flags), {}
    remaining = {task.task_id: task for task in tasks if task.task_id not in defects}
    done = 0

    def on_done(task_id: str, outcomes: tuple[Outcome, ...]) -> None:
        nonlocal done
        flags[task_id] |= outcome_flags(outcomes, outcomes)
        if defect := outcome_defect(remaining[task_id], outcomes):
            defects[task_id] = defect
        else:
            chances[task_id] = commonest_share(outcomes, grader.mode)
        done += 1
        progress(done, len(remaining))

    run_each(remaining, grader.expected, grader.workers, on_done)
    return ReferenceAudit(defects, flags, chances)
