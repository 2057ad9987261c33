"""What is sent to trackers when a run has ended: the files of its report, their plots, and some dialogues."""

from __future__ import annotations

from colbench_env.tasks import read_rows
from colbench_env.types import Trajectory
from launch.common.files import read_object
from launch.common.run_dir import RunDir
from launch.reporting.plots import standalone
from launch.reporting.result_plots import turn_plots
from launch.reporting.result_tables import Results
from launch.training.entropy import TurnEntropy
from launch.training.report_page import by_task, entropy_plots, stage_curves
from launch.training.tracking.tracker import TrackedReport

FILES = ("report.html", "report.json", "config.json", "log.txt")
RESULT_PLOTS = ("success-by-turns", "dialogues-by-turns", "entropy-by-turn")
COLUMNS = ["task", "policy", "reward", "turns", "dialogue"]
NUM_TASKS = 20  # held-out ones whose dialogues are sent, the first of the file


def tracked_report(directory: RunDir) -> TrackedReport:
    """Collect what a finished run's report.json, metrics and evaluation files hold. Raises BadInput."""
    row = read_object(directory.path / "report.json")
    results = Results.from_json(row)
    entropy = {name: [TurnEntropy(**turn) for turn in turns] for name, turns in row["entropy"].items()}
    plots = {
        f"{stage}-{plot.title.replace('/', '-')}": plot.svg
        for stage, drawn in stage_curves(directory.path).items()
        for plot in drawn
    }
    drawn = [*turn_plots(results), *entropy_plots(entropy)]
    plots |= {name: plot.svg for name, plot in zip(RESULT_PLOTS, drawn, strict=False)}
    played = {name: by_task(read_rows(directory.evaluation_file(name), Trajectory)) for name in results.policies}
    tasks = list(dict.fromkeys(task for rows in played.values() for task in rows))[:NUM_TASKS]
    return TrackedReport(
        files=[path for name in FILES if (path := directory.path / name).exists()],
        plots={name: standalone(svg) for name, svg in plots.items()},
        columns=COLUMNS,
        dialogues=[
            [number, name, shown.reward, len(shown.agent_turns), dialogue_text(shown)]
            for number, task in enumerate(tasks, start=1)
            for name, rows in played.items()
            if (shown := rows.get(task))
        ],
    )


def dialogue_text(trajectory: Trajectory) -> str:
    """Write a dialogue as text, an entry a paragraph.

    Out: "user: Add one.\\n\\nagent: I WANT TO ANSWER: def f(x): return x + 1"
    """
    speakers = {"assistant": "agent"}
    said = ((speakers.get(message.role, message.role), message.content) for message in trajectory.dialogue_history)
    return "\n\n".join(f"{speaker}: {content}" for speaker, content in said)
