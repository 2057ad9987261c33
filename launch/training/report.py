"""The end of a run: a table on the console, `report.json` with every number, and `report.html`, one page to look at.

`write_report` collects the numbers (`Report`), has the page drawn (`launch.training.report_page`), and prints the
result. A second start of a finished run only reads the numbers back and prints them again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbench_env.statistics import compare, summarise
from colbench_env.tasks import read_rows
from colbench_env.types import Trajectory
from launch.common.console import Console, peak_memory_gib
from launch.common.files import read_object, write_json, write_text
from launch.common.run_dir import RunDir
from launch.reporting.missing_sheets import missing_sheets
from launch.reporting.result_tables import Results, TableRow, conclusion, remark, result_rows
from launch.training.command_line import command_line, next_commands
from launch.training.config import STAGES, settings_of
from launch.training.curves import read_curves
from launch.training.entropy import entropy_by_turn
from launch.training.report_data import FORMAT, PACKAGES, Report
from models.config import from_hf
from models.parameters import count_params
from sweet_jax import processes
from sweet_jax.train.metrics import mostly_perfect

if TYPE_CHECKING:
    from launch.training.run import Run


def write_report(run: Run, seconds: float | None) -> None:
    """Write report.json and report.html and print the result.

    seconds: how long this start has worked; None if it found nothing to do. A report that is newer than every stage is
    then only printed again.
    Raises BadInput where a file cannot be read or written.
    """
    folder = run.directory.path
    results = _previous_results(run.directory) if seconds is None else None
    if results is None:
        from launch.training.report_page import page  # draws with matplotlib, for which a second start should not wait

        dialogues = _dialogues(run)
        for note in _late_warnings(run.directory, dialogues):
            run.console.warn(note)
        report = _collect(run, dialogues, seconds)
        # The page first: where there is a report.json, there is a whole page as well.
        write_text(
            folder / "report.html", page(report, run.config, folder, dialogues, run.benchmark.page_images(dialogues))
        )
        write_json(folder / "report.json", report.to_json())
        results = report.results
    _print_results(run, results)


def _previous_results(directory: RunDir) -> Results | None:
    """Read the results from report.json; None where there is none or a stage has finished since."""
    folder, row = directory.path, _previous(directory.path)
    if not row or not (folder / "report.html").exists():
        return None
    notes = [directory.note_file(stage) for stage in STAGES]
    newest = max(note.stat().st_mtime_ns for note in notes if note.exists())
    return Results.from_json(row) if (folder / "report.json").stat().st_mtime_ns >= newest else None


def _previous(folder: Path) -> dict[str, Any]:
    """Read the report.json of an earlier start; {} where there is none of this format, which is then written anew."""
    try:
        row = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) and row.get("format") == FORMAT else {}


def _dialogues(run: Run) -> dict[str, list[Trajectory]]:
    """Read the graded held-out dialogues of each policy, the start policy's first."""
    names = ("start",) if run.config.algorithm == "zero-shot" else ("start", "trained")
    return {name: read_rows(run.directory.evaluation_file(name), Trajectory) for name in names}


def _collect(run: Run, dialogues: Mapping[str, Sequence[Trajectory]], seconds: float | None) -> Report:
    before, network = _previous(run.directory.path), run.model_directory / "config.json"
    notes = {stage: run.directory.note(stage) for stage in STAGES}
    difference = compare(dialogues["start"], dialogues["trained"]) if "trained" in dialogues else None
    return Report(
        results=Results(
            {name: summarise(played) for name, played in dialogues.items()}, difference, run.benchmark.metric_names
        ),
        command=command_line(run.config),
        next_commands=next_commands(run.config),
        graders=sorted({row.extra.get("grader", "not recorded") for played in dialogues.values() for row in played}),
        settings=settings_of(run.config),
        stages={stage: note for stage, note in notes.items() if note is not None},
        last_start_seconds=before.get("last_start_seconds") if seconds is None else round(seconds, 1),
        warnings=_warnings(run.directory.log_file, run.console.warnings),
        peak_memory_gib=round(max(peak_memory_gib(), before.get("peak_memory_gib", 0.0)), 3),
        parameters=count_params(from_hf(network)) if network.exists() else None,
        max_turns=run.config.rollouts.max_turns,
        entropy={name: entropy_by_turn(played) for name, played in dialogues.items()},
        devices=str(run.devices),
        mesh=str(run.shape),
        versions={"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        written=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def print_iterations(run_dirs: Sequence[Path]) -> None:
    """Print what each iteration has reached on the held-out tasks, from the reports in their directories."""
    console, lines = Console(audible=processes.is_process_0()), []
    for number, path in enumerate(run_dirs, 1):
        results = Results.from_json(read_object(path / "report.json"))
        for row in result_rows(results)[:2]:
            lines.append((f"iteration {number}", f"{row.name}: {' -> '.join(row.cells)}"))
    console.say()
    console.table(lines)


def _late_warnings(directory: RunDir, dialogues: Mapping[str, Sequence[Trajectory]]) -> Iterator[str]:
    """Yield the warnings that are only known when stages have ended."""
    for stage in ("critic", "policy"):
        accuracies = read_curves(directory.metrics_file(stage)).get("rewards/accuracies", ())
        if warning := mostly_perfect([accuracy for _, accuracy in accuracies]):
            yield f"stage {stage}: {warning}"
    for name, rows in dialogues.items():
        yield from missing_sheets(f"{name} policy", rows)


def _warnings(log: Path, latest: Sequence[str]) -> list[str]:
    """Collect each warning once: those in the log, which has earlier starts as well, and those of this start."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    logged = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
    return list(dict.fromkeys([*logged, *latest]))


# --- the console and the commands it proposes ------------------------------------------------------------------------


def _print_results(run: Run, results: Results) -> None:
    say, folder = run.console.say, run.directory.path
    titles = TableRow(
        "95 % intervals in brackets", list(results.policies), "trained - start" if results.difference else ""
    )
    lines = [titles, *result_rows(results)]
    width = max(len(cell) for line in lines for cell in line.cells)
    say()
    cells = ("  ".join([*(f"{cell:<{width}}" for cell in line.cells), line.difference]).rstrip() for line in lines)
    run.console.table(zip((line.name for line in lines), cells, strict=True))
    say(conclusion(results) + remark(run.directory.note("critic")))
    places = [("page", folder / "report.html"), ("numbers", folder / "report.json")]
    if results.difference is not None:
        places.append(("trained policy", folder / "policy" / "model"))
    tries = zip(("try next", "or"), next_commands(run.config), strict=True)
    run.console.table([*((name, str(path)) for name, path in places), *tries])
