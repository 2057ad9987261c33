"""What `launch.evaluate` does: reads, studies the references, grades, makes pairs, collects the numbers."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbench_env.grade_file import AnswerGrader, grade_rows, why_ungraded, without_grade
from colbench_env.grading.answers import MAX_CHARACTERS
from colbench_env.tasks import write_rows
from colbench_env.types import BadInput, Pair, Task, Trajectory
from launch.common.benchmarks import Benchmark
from launch.common.console import Console
from launch.common.open_benchmark import open_benchmark
from launch.evaluation.config import EvaluateConfig
from launch.evaluation.inputs import Dialogues, lines_text, read_dialogues, read_suspected, read_tasks
from launch.evaluation.reference_audit import ReferenceAudit, read_references, run_references
from launch.evaluation.report_data import BASELINE, EVALUATED, Evaluation, collect
from launch.reporting.missing_sheets import missing_sheets

if TYPE_CHECKING:
    from colbench_env.design.page_images import SideBySide
    from sweet_jax.data.chat import Chat


@dataclass(frozen=True)
class Graded:
    """The rows of a file with their rewards, in order, and which of them were graded here."""

    rows: tuple[Trajectory, ...]
    here: tuple[bool, ...]


def evaluate(config: EvaluateConfig, console: Console) -> Evaluation:
    """Evaluate a file of dialogues; write graded rows and pairs. Every defect is reported as soon as it is known.

    Raises BadInput where a file has no readable row, or answers cannot be run here.
    """
    with open_benchmark(
        config.benchmark, config.design, config.grader, config.workers, config.unsafe, plugin=config.plugin
    ) as benchmark:
        return _evaluate(config, console, benchmark)


def _evaluate(config: EvaluateConfig, console: Console, benchmark: Benchmark) -> Evaluation:
    started = time.monotonic()
    chat = _chat(config.model) if config.model is not None else None
    suspected = read_suspected(config.suspected, config.tasks) if config.suspected is not None else frozenset()
    tasks, defects = read_tasks(config.tasks) if config.tasks is not None else ({}, [])
    scale = None if config.regrade else benchmark.metric_names.benchmark
    own = read_dialogues(config.trajectories, tasks, config.samples, scale)
    files = [own] if config.baseline is None else [own, read_dialogues(config.baseline, tasks, 0, scale)]
    defects += [defect for file in files for defect in file.defects]
    for defect in defects:
        console.warn(defect)

    gradable = {
        row.task.task_id: row.task for file in files for row in file.rows if not benchmark.grading_error(row.task)
    }
    runs_references = config.references and benchmark.runs_answers
    audit = read_references(list(gradable.values())) if benchmark.runs_answers else ReferenceAudit()
    grader = None
    if gradable and (runs_references or any(any(_prepared(file, audit, config, benchmark).here) for file in files)):
        grader = benchmark.grader
        console.say(f"grader {grader.mode}; {grader.layers_text()}")
        if runs_references:
            audit = _audit_by_running(gradable, audit, grader, console)
    _one_measure(files, [_prepared(file, audit, config, benchmark) for file in files], benchmark, grader)
    for defect in [*_task_defects(files, audit), *_endless_answers(files, audit, config, benchmark)]:
        defects.append(defect)
        console.warn(defect)
    graded = [
        _graded(file, audit, config, benchmark, grader, config.output if file is own else None, console)
        for file in files
    ]
    notes = [
        note
        for file, found in zip(files, graded, strict=True)
        for note in [*_left_out(file, found, config, benchmark), *missing_sheets(str(file.path), found.rows)]
    ]
    if len(graded) == 2 and not _common_tasks(*graded):
        notes.append(f"{config.trajectories} and {config.baseline} have no task in common: {_SAME_TASK}")
    notes += _turn_budgets(files)
    known = {name for row in own.rows for name in (row.task.task_id, row.task.problem_description)}
    if suspected and not suspected & known:
        notes.append(f"{config.suspected}: no dialogue is about a task that it names")
    for note in notes:
        console.warn(note)
    if config.pairs is not None:
        for defect in _write_pairs(config.pairs, config, benchmark, own, graded[0], chat, console):
            defects.append(defect)
            console.warn(defect)
    policies = ({BASELINE: graded[1].rows} if len(graded) == 2 else {}) | {EVALUATED: graded[0].rows}
    sides: tuple[SideBySide, ...] = ()
    try:
        sides = tuple(benchmark.page_images(policies)) if config.html is not None else ()
    except BadInput as problem:
        notes.append(f"the report has no pictures: {problem}")
        console.warn(notes[-1])
    return collect(
        graded[0].rows,
        graded[1].rows if len(graded) == 2 else (),
        audit,
        benchmark,
        chat,
        suspected,
        source=str(config.trajectories),
        layout=own.layout,
        graded=sum(row.reward is not None for row, here in zip(graded[0].rows, graded[0].here, strict=True) if here),
        kept=_kept(graded[0]),
        defects=tuple(defects),
        notes=tuple(notes),
        grader=grader.mode if grader is not None else config.grader if benchmark.runs_answers else "none",
        sandbox="not used: nothing was run" if grader is None else grader.layers_text().removeprefix("sandbox: "),
        python=platform.python_version(),
        seconds=round(time.monotonic() - started, 1),
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        sides=sides,
    )


_SAME_TASK = "a task is the same where description, reference, tests and hidden information are"


def _chat(directory: Path) -> Chat:
    from sweet_jax.data.chat import Chat  # takes seconds to import

    return Chat.load(directory)


def _audit_by_running(
    tasks: Mapping[str, Task], audit: ReferenceAudit, grader: Any, console: Console
) -> ReferenceAudit:
    return run_references(
        list(tasks.values()), audit, grader, lambda done, total: console.progress("references", done, total)
    )


def _prepared(file: Dialogues, audit: ReferenceAudit, config: EvaluateConfig, benchmark: Benchmark) -> Graded:
    """Return the rows before grading, and which of them are to be graded: no reward to keep, no defect of the task."""
    opened = [row.reward is None or config.regrade for row in file.rows]
    rows = [without_grade(row) if needed else row for row, needed in zip(file.rows, opened, strict=True)]
    here = [
        needed and not benchmark.grading_error(row.task) and row.task.task_id not in audit.defects
        for row, needed in zip(rows, opened, strict=True)
    ]
    return Graded(tuple(rows), tuple(here))


def _graded(
    file: Dialogues, audit: ReferenceAudit, config: EvaluateConfig, benchmark: Benchmark, grader: AnswerGrader | None,
    target: Path | None, console: Console,
) -> Graded:  # fmt: skip
    before = _prepared(file, audit, config, benchmark)
    stage = "baseline" if file.path == config.baseline else "answers"
    rows = grade_rows(
        before.rows, before.here, grader, target, lambda done, total: console.progress(stage, done, total)
    )
    return Graded(tuple(rows), before.here)


def _task_defects(files: Sequence[Dialogues], audit: ReferenceAudit) -> list[str]:
    """Name what is wrong with the tasks, at the first dialogue about each."""
    places: dict[str, list[str]] = {}
    for file in files:
        for row, place in zip(file.rows, file.places, strict=True):
            if row.task.task_id in audit.defects:
                places.setdefault(row.task.task_id, []).append(place)
    return [
        f"{found[0]}: {audit.defects[task]}; "
        + ("the dialogue is" if len(found) == 1 else f"the {len(found)} dialogues about the task are")
        + " not graded"
        for task, found in places.items()
    ]


def _endless_answers(
    files: Sequence[Dialogues], audit: ReferenceAudit, config: EvaluateConfig, benchmark: Benchmark
) -> list[str]:
    """Name the answers that are to be graded and too long to be run."""
    if not benchmark.runs_answers:  # a page that is too long is a page that cannot be shown
        return []
    return [
        f"{place}: the answer has {len(row.answer):,} characters, more than the {MAX_CHARACTERS:,} that are run: it "
        "passes no test"
        for file in files
        for row, place, here in zip(file.rows, file.places, _prepared(file, audit, config, benchmark).here, strict=True)
        if here and len(row.answer) > MAX_CHARACTERS
    ]


def _left_out(file: Dialogues, graded: Graded, config: EvaluateConfig, benchmark: Benchmark) -> list[str]:
    """Describe the dialogues that nobody can grade, and those for which the sandbox has failed, a sentence each."""
    places = list(zip(file.places, graded.rows, strict=True))
    unknown = [place for place, row in places if row.reward is None and benchmark.grading_error(row.task)]
    failed = [place for (place, row), here in zip(places, graded.here, strict=True) if here and row.reward is None]
    notes = []
    if unknown:
        hint = "" if config.tasks is not None else "; --tasks=FILE supplies them"
        notes.append(
            f"{file.path}: {len(unknown)} of {len(places)} dialogues have no reward, and their tasks no reference"
            f"{' or no tests' if benchmark.runs_answers else ''}: they are left out, not scored 0 "
            f"({lines_text(unknown)}){hint}"
        )
    if failed:
        rows = [row for (_, row), here in zip(places, graded.here, strict=True) if here and row.reward is None]
        notes.append(
            f"{file.path}: {len(failed)} of {len(places)} answers could not be graded, {why_ungraded(rows)}: they are "
            f"left out, not scored 0 ({lines_text(failed)})"
        )
    return notes


def _turn_budgets(files: Sequence[Dialogues]) -> list[str]:
    """Warn where the rows record different limits of turns; the list is empty where they do not."""
    budgets: set[int] = set()
    for row in (row for file in files for row in file.rows):
        rules = row.extra.get("rules")
        if isinstance(rules, dict) and isinstance(turns := rules.get("max_turns"), int):
            budgets.add(turns)
    if len(budgets) < 2:
        return []
    return [
        f"dialogues of at most {' and '.join(map(str, sorted(budgets)))} agent turns: their scores cannot be compared"
    ]


def _common_tasks(first: Graded, second: Graded) -> set[str]:
    return set.intersection(*({row.task.task_id for row in graded.rows} for graded in (first, second)))


def _one_measure(
    files: Sequence[Dialogues], prepared: Sequence[Graded], benchmark: Benchmark, grader: AnswerGrader | None
) -> None:
    """Raise BadInput where rewards are of different graders, whose figures cannot be compared."""
    if benchmark.runs_answers:  # the report names the mode of that grader
        return
    named: dict[str, Path] = {}
    for file, before in zip(files, prepared, strict=True):
        for row, here in zip(before.rows, before.here, strict=True):
            if here and grader is not None:
                named[grader.mode] = file.path
            elif row.reward is not None:
                named[str(row.extra.get("grader", "not recorded"))] = file.path
    if len(named) > 1:
        graders = " and ".join(f"{name} ({path})" for name, path in named.items())
        raise BadInput(f"the rewards are of different graders, {graders}: --regrade grades all of them anew")


def _kept(graded: Graded) -> dict[str, int]:
    """Count the rewards that were in the file, by the grader that the rows name."""
    found: Counter[str] = Counter()
    for row, here in zip(graded.rows, graded.here, strict=True):
        if row.reward is not None and not here:
            named = row.extra.get("grader")
            found[named if isinstance(named, str) else "not recorded"] += 1
    return dict(found.most_common())


def _write_pairs(
    target: Path, config: EvaluateConfig, benchmark: Benchmark, file: Dialogues, graded: Graded, chat: Chat | None,
    console: Console,
) -> list[str]:  # fmt: skip
    """Write the pairs that can be made; return a sentence for each dialogue that stands in the way of one."""
    from sweet_jax.trajectory_pairs import (  # takes seconds to import
        Sample,
        make_recorded_pair,
        select_pairs,
        tokenise_pair,
    )

    pairs: list[Pair] = []
    defects: dict[str, None] = {}
    preferred = select_pairs(
        (Sample(place, row) for place, row in zip(file.places, graded.rows, strict=True)), benchmark.preference_pairs
    )
    for chosen, rejected in preferred:
        try:
            if config.privileged and not chosen.trajectory.task.ground_truth:
                raise BadInput(
                    f"{chosen.location}: the task has no reference to stand before the pair: --tasks=FILE supplies it, "
                    "--no-privileged leaves it out"
                )
            if chat is not None and not all(_recorded(sample.trajectory) for sample in (chosen, rejected)):
                system = chosen.trajectory.extra.get("system")
                pairs.append(
                    tokenise_pair(chosen, rejected, chat, system if isinstance(system, str) else "", config.privileged)
                )
            else:
                pairs.append(make_recorded_pair(chosen, rejected, config.privileged))
        except BadInput as problem:
            defects[str(problem)] = None
    if not preferred:
        return [f"{file.path}: {benchmark.no_preferences_message}, so there are no pairs and {target} is not written"]
    if pairs:
        write_rows(target, pairs)
        console.say(f"{len(pairs)} trajectory pairs written to {target}")
    return list(defects)


def _recorded(trajectory: Trajectory) -> bool:
    last = trajectory.dialogue_history[-1]
    return last.input is not None and last.output is not None
