"""`report.html`: what happened in a run, as one page that opens from the disk and needs nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from colbench_env.endings import OUT_OF_TURNS, ran_out_of_turns
from colbench_env.types import Task, Trajectory, Verdict
from launch.common.files import read_object
from launch.common.run_dir import RunDir
from launch.reporting.critic_table import critic_table
from launch.reporting.html import template
from launch.reporting.metric_names import MetricNames, percent
from launch.reporting.paper_numbers import PAPER, paper_differences
from launch.reporting.plots import bars, curve
from launch.reporting.result_plots import Plot, turn_plots
from launch.reporting.result_tables import conclusion, remark, result_rows, verdict_rows
from launch.training.config import TrainConfig
from launch.training.curves import read_curves
from launch.training.entropy import TurnEntropy
from launch.training.summary import deeds

if TYPE_CHECKING:
    from colbench_env.design.page_images import SideBySide
    from launch.training.report_data import Report

PAIR_METRICS = ("loss", "rewards/accuracies", "rewards/margins")
NUM_EXAMPLES = 3
KINDS = (
    "solved only after training",
    "solved only before training",
    "solved neither before nor after training",
    "solved before and after training",
    "solved",
    "not solved",
)


@dataclass(frozen=True)
class File:
    """What a stage wrote. path: from the run directory, a folder's ends with a slash. size: "" of a folder."""

    path: str
    size: str


@dataclass(frozen=True)
class Side:
    """One policy's dialogue in an example."""

    policy: str
    trajectory: Trajectory
    metric_names: MetricNames

    @property
    def verdicts(self) -> Mapping[str, str]:
        """Test name -> verdict; empty where the dialogue came with its reward."""
        given = self.trajectory.extra.get("verdicts", {})
        return dict.fromkeys(given, OUT_OF_TURNS) if ran_out_of_turns(self.trajectory) else given

    @property
    def outcome(self) -> str:
        """How the answer did, in words."""
        if self.trajectory.reward is None:
            return "could not be graded"
        if self.metric_names.headline == "reward":
            return f"{self.metric_names.reward}: {percent(self.trajectory.reward, self.metric_names.unit)}"
        if ran_out_of_turns(self.trajectory):
            return f"{OUT_OF_TURNS}: no answer within {len(self.trajectory.agent_turns)}"
        if not self.verdicts:
            return f"reward {self.trajectory.reward:.2f}"
        passed = sum(verdict == Verdict.PASS for verdict in self.verdicts.values())
        return f"{passed} of {len(self.verdicts)} tests passed"


@dataclass(frozen=True)
class Example:
    """A held-out task and what each policy made of it. number: its line in the first file; kind: one of KINDS."""

    number: int
    kind: str
    task: Task
    sides: Sequence[Side]


def page(
    report: Report, config: TrainConfig, folder: Path, dialogues: Mapping[str, Sequence[Trajectory]],
    sides: Sequence[SideBySide] = (),
) -> str:  # fmt: skip
    """Render the page as HTML.

    folder: the run directory.
    dialogues: of each policy.
    sides: pictures of their pages.
    Raises BadInput for unreadable metrics.
    """
    judged, critic = critic_table(read_object(folder / "truth" / "truth.json"))
    return template("report.html").render(
        report=report,
        judged=judged,
        critic=critic,
        config=config,
        policies=list(report.results.policies),
        paper=PAPER[report.results.benchmark],
        differences=_differences_to_paper(report, config),
        metric_names=report.results.metric_names,
        lines=result_rows(report.results),
        conclusion=conclusion(report.results) + remark(report.stages.get("critic")),
        verdicts=verdict_rows(report.results),
        curves=stage_curves(folder),
        turn_plots=[*turn_plots(report.results), *entropy_plots(report.entropy)],
        deeds=deeds(report.stages, config, report.stage_seconds),
        files={stage: _files(folder, stage) for stage in report.stages},
        facts={stage: _facts(note) for stage, note in report.stages.items()},
        examples=examples(dialogues, report.results.metric_names),
        sides=sides,
        settings=json.dumps(report.settings, indent=2),
    )


def _differences_to_paper(report: Report, config: TrainConfig) -> list[str]:
    """List what keeps the figures from being compared with the paper's, a sentence each; [] for toy benchmarks."""
    if config.tasks is None and config.eval_tasks is None:
        return []
    results, graders = report.results, " and ".join(report.graders)
    last = list(results.policies.values())[-1]
    return paper_differences(results.benchmark, last.tasks, config.simulator.human, graders)


def stage_curves(folder: Path) -> dict[str, list[Plot]]:
    """Plot each stage that trains: loss, accuracy and margins of pairs; the NLL where there are no pairs."""
    plots: dict[str, list[Plot]] = {}
    for stage in ("start", "critic", "policy"):
        curves = read_curves(RunDir(folder).metrics_file(stage))
        shown = PAIR_METRICS if "rewards/accuracies" in curves else ("nll",)
        ids = {name: f"{stage}-{name.replace('/', '-')}" for name in shown if name in curves}
        if ids:
            plots[stage] = [Plot(name, Markup(curve(ids[name], curves[name]))) for name in ids]
    return plots


def entropy_plots(entropy: Mapping[str, Sequence[TurnEntropy]]) -> list[Plot]:
    """Plot the policies' entropy by turn; no plot where no log-probs are recorded."""
    if not any(entropy.values()):
        return []
    drawn = {name: {one.turn: (one.nats, "") for one in found} for name, found in entropy.items() if found}
    svg = bars("entropy", drawn, "nats a token", "agent turn")
    return [Plot("Entropy of the policy by turn (mean of -log p of the sampled tokens)", Markup(svg))]


def examples(dialogues: Mapping[str, Sequence[Trajectory]], metric_names: MetricNames) -> list[Example]:
    """Choose held-out tasks that all policies have played: the first of each kind, then the first of the file."""
    played = [by_task(rows) for rows in dialogues.values()]
    tasks = {task: number for number, task in enumerate(played[0], start=1) if all(task in rows for rows in played)}
    numbers, rows = list(tasks.values()), [[rows[task] for rows in played] for task in tasks]
    kinds = [_kind([trajectory.reward == 1.0 for trajectory in row]) for row in rows]
    firsts = [kinds.index(kind) for kind in KINDS if kind in kinds]
    chosen = [*firsts, *(index for index in range(len(rows)) if index not in firsts)][:NUM_EXAMPLES]
    return [
        Example(
            numbers[index],
            kinds[index],
            rows[index][0].task,
            [Side(name, row, metric_names) for name, row in zip(dialogues, rows[index], strict=True)],
        )
        for index in chosen
    ]


def by_task(rows: Iterable[Trajectory]) -> dict[tuple[str, int], Trajectory]:
    """Key dialogues by their task's id and how often it came before: an episode that failed has no row."""
    counts: Counter[str] = Counter()
    keyed = {}
    for row in rows:
        keyed[row.task.task_id, counts[row.task.task_id]] = row
        counts[row.task.task_id] += 1
    return keyed


def _kind(solved: Sequence[bool]) -> str:
    if len(solved) == 1:
        return "solved" if solved[0] else "not solved"
    before, after = solved
    if before:
        return "solved before and after training" if after else "solved only before training"
    return "solved only after training" if after else "solved neither before nor after training"


def _files(folder: Path, stage: str) -> list[File]:
    entries = sorted((folder / stage).iterdir(), key=lambda entry: (entry.is_dir(), entry.name))
    return [
        File(f"{stage}/{entry.name}{'/' * entry.is_dir()}", "" if entry.is_dir() else _size(entry.stat().st_size))
        for entry in entries
        if not entry.name.startswith(".")
    ]


def _size(count: float) -> str:
    """Format a file size.

    In: 2048   Out: "2 KiB"
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _facts(note: Mapping[str, Any]) -> str:
    """Format the note of a stage.

    In: {"pairs": 120, "tests_passed": 0.4321, "seconds": 8.1}   Out: "pairs 120, tests passed 0.432"
    """
    plain = {name: value for name, value in note.items() if name != "seconds" and not isinstance(value, Mapping)}
    texts = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in plain.items()}
    return ", ".join(f"{name.replace('_', ' ')} {text}" for name, text in texts.items())
