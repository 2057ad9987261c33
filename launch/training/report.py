"""The end of a run: a table on the console, `report.json` with every number, and `report.html`, one page to look at.

`write_report` collects the numbers (`Report`), has the page drawn (`launch.training.report_page`), and tells the
console. A second start of a finished run only reads the numbers back and tells them again.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import re
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colbench_env.statistics import compare, summarise
from colbench_env.tasks import read_rows
from colbench_env.types import Trajectory
from launch.common.console import peak_memory_gib
from launch.common.settings import Hosts
from launch.common.simulator import FLAT
from launch.reporting.missing_sheets import missing_sheets
from launch.reporting.result_tables import Line, Results, conclusion, remark, result_lines
from launch.training.config import STAGES, TrainConfig, settings_of
from launch.training.curves import read_curves
from launch.training.entropy import TurnEntropy, entropy_by_turn
from launch.training.presets import PRESETS
from launch.training.run_dir import write_json, write_text
from models.config import from_hf
from models.parameters import count_params
from sweet_jax.train.metrics import mostly_perfect

if TYPE_CHECKING:
    from launch.training.run import Run

FORMAT = 3  # of report.json
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "grain", "numpy", "matplotlib")


@dataclass(frozen=True)
class Report:
    """Everything a run has to tell, as `report.json` has it.

    command: makes this run; next_commands: what to try after it. stages: the note of each finished stage, in order.
    last_start_seconds: of the last start that had something to do. warnings: of all starts. peak_memory_gib: the
    highest of all starts that wrote a report. parameters: of the network. max_turns: of the agent in a dialogue.
    entropy: of each policy by turn.
    """

    results: Results
    command: str
    next_commands: Sequence[str]
    graders: Sequence[str]
    settings: Mapping[str, Any]
    stages: Mapping[str, Mapping[str, Any]]
    last_start_seconds: float | None
    warnings: Sequence[str]
    peak_memory_gib: float
    parameters: int | None
    max_turns: int
    entropy: Mapping[str, Sequence[TurnEntropy]]
    devices: str
    mesh: str
    versions: Mapping[str, str]
    written: str

    @property
    def stage_seconds(self) -> float:
        """What the finished stages took together."""
        return round(sum(note.get("seconds", 0.0) for note in self.stages.values()), 1)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        rest = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "results"}
        rest["entropy"] = {name: [dataclasses.asdict(one) for one in found] for name, found in self.entropy.items()}
        return {"format": FORMAT, **self.results.to_json(), "stage_seconds": self.stage_seconds, **_no_nan(rest)}


def write_report(run: Run, seconds: float | None) -> None:
    """Writes report.json and report.html and tells the console the result.

    seconds: how long this start has worked, None if it found nothing to do; a report that is newer than every stage is
    then only told again. BadInput where a file cannot be read or written.
    """
    folder = run.directory.path
    results = _told_before(folder) if seconds is None else None
    if results is None:
        from launch.training.report_page import page  # draws with matplotlib, for which a second start should not wait

        dialogues = _dialogues(run)
        for note in _late_warnings(folder, dialogues):
            run.console.warn(note)
        report = _collect(run, dialogues, seconds)
        # The page first: where there is a report.json, there is a whole page beside it.
        write_text(folder / "report.html", page(report, run.config, folder, dialogues, run.benchmark.sides(dialogues)))
        write_json(folder / "report.json", report.to_json())
        results = report.results
    _tell(run, results)


def _told_before(folder: Path) -> Results | None:
    """The results in report.json, None where there is none or a stage has finished since."""
    row = _previous(folder)
    if not row or not (folder / "report.html").exists():
        return None
    notes = [folder / stage / "done.json" for stage in STAGES]
    newest = max(note.stat().st_mtime_ns for note in notes if note.exists())
    return Results.from_json(row) if (folder / "report.json").stat().st_mtime_ns >= newest else None


def _previous(folder: Path) -> dict[str, Any]:
    """The report.json of an earlier start; empty where there is none of this format, it is then written anew."""
    try:
        row = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) and row.get("format") == FORMAT else {}


def _dialogues(run: Run) -> dict[str, list[Trajectory]]:
    """The graded held-out dialogues of each policy, the start policy's first."""
    names = ("start",) if run.config.algorithm == "zero-shot" else ("start", "trained")
    return {name: read_rows(run.directory.path / "evaluation" / f"{name}.jsonl", Trajectory) for name in names}


def _collect(run: Run, dialogues: Mapping[str, Sequence[Trajectory]], seconds: float | None) -> Report:
    before, network = _previous(run.directory.path), run.model_directory / "config.json"
    notes = {stage: run.directory.note(stage) for stage in STAGES}
    difference = compare(dialogues["start"], dialogues["trained"]) if "trained" in dialogues else None
    return Report(
        results=Results(
            {name: summarise(played) for name, played in dialogues.items()}, difference, run.config.benchmark
        ),
        command=command_line(run.config),
        next_commands=next_commands(run.config),
        graders=sorted({row.extra.get("grader", "not recorded") for played in dialogues.values() for row in played}),
        settings=settings_of(run.config),
        stages={stage: note for stage, note in notes.items() if note is not None},
        last_start_seconds=before.get("last_start_seconds") if seconds is None else round(seconds, 1),
        warnings=_warnings(run.directory.path / "log.txt", run.console.warnings),
        peak_memory_gib=round(max(peak_memory_gib(), before.get("peak_memory_gib", 0.0)), 3),
        parameters=count_params(from_hf(network)) if network.exists() else None,
        max_turns=run.config.rollouts.max_turns,
        entropy={name: entropy_by_turn(played) for name, played in dialogues.items()},
        devices=str(run.devices),
        mesh=str(run.shape),
        versions={"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        written=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _late_warnings(folder: Path, dialogues: Mapping[str, Sequence[Trajectory]]) -> Iterator[str]:
    """What is only known when stages have ended."""
    for stage in ("critic", "policy"):
        accuracies = read_curves(folder / stage / "metrics.jsonl").get("rewards/accuracies", ())
        if warning := mostly_perfect([accuracy for _, accuracy in accuracies]):
            yield f"stage {stage}: {warning}"
    for name, rows in dialogues.items():
        yield from missing_sheets(f"{name} policy", rows)


def _warnings(log: Path, latest: Sequence[str]) -> list[str]:
    """Each warning once: those in the log, which has earlier starts as well, and those of this start."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    logged = [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]
    return list(dict.fromkeys([*logged, *latest]))


def _no_nan(value: Any) -> Any:
    """The same JSON value with null for what is no finite number, which JSON cannot say."""
    if isinstance(value, Mapping):
        return {name: _no_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_no_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the console and the commands it proposes ------------------------------------------------------------------------


def _tell(run: Run, results: Results) -> None:
    say, folder = run.console.say, run.directory.path
    titles = Line("95 % intervals in brackets", list(results.policies), "trained - start" if results.difference else "")
    lines = [titles, *result_lines(results)]
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


def next_commands(config: TrainConfig) -> list[str]:
    """What to try after this run: the same with another seed, and with another algorithm, from its own files on."""
    base = re.sub(r"-(sweet|mtdpo|rft|zero-shot)-seed\d+$", "", str(config.run_dir))
    other = "mtdpo" if config.algorithm == "sweet" else "sweet"
    changes = (
        {"algorithm": config.algorithm, "seed": config.seed + 1},
        {"algorithm": other, "candidates": None, "turn_pairs": None},  # which are sweet's alone
    )
    configs = [dataclasses.replace(config, **change) for change in changes]
    return [
        command_line(dataclasses.replace(one, run_dir=Path(f"{base}-{one.algorithm}-seed{one.seed}")))
        for one in configs
    ]


def command_line(config: TrainConfig) -> str:
    """The command that makes this run with all its stages: the flags in which it differs from its preset."""
    preset = PRESETS[config.preset]
    named = [] if config.preset == TrainConfig().preset else [f"--preset={config.preset}"]
    if config.benchmark != preset(config.algorithm).benchmark:
        named.append(f"--benchmark={config.benchmark}")
    flags = _flags(dataclasses.replace(config, stage="all", hosts=Hosts()), preset(config.algorithm, config.benchmark))
    return shlex.join(["python", "-m", "launch.train", *named, *flags])


def _flags(config: Any, default: Any, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            flat = FLAT in getattr(hints[field.name], "__metadata__", ())
            yield from _flags(value, usual, prefix if flat else f"{prefix}{name}.")
        elif isinstance(value, bool) and value != usual:
            yield f"--{prefix}{name}" if value else f"--{prefix}no-{name}"
        elif value != usual:
            yield f"--{prefix}{name}={value}"
