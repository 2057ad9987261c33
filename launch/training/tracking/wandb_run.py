"""Runs in Weights & Biases, which its own environment variables configure: WANDB_MODE, WANDB_DIR, WANDB_ENTITY."""

from __future__ import annotations

import functools
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.training.tracking.tracker import TRAINED, RunToTrack, TrackedReport, without_secrets
from launch.training.tracking.wandb_login import load_wandb


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Read what was logged into a run's folder with wandb's own reader; a killed start may have written half a line.

    RuntimeError where the reader fails.
    """
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout and "incomplete" not in done.stderr:
        raise RuntimeError(f"{folder}: {done.stderr.strip()}")
    return [row["history"]["item"] for row in map(json.loads, done.stdout.splitlines()) if row["type"] == "history"]


class WandbRun:
    """A run of wandb. Each stage has an axis of its own, STAGE/step, as the steps of stages overlap."""

    def __init__(self, wanted: RunToTrack):
        self._wandb = load_wandb()
        self._run = self._wandb.init(
            project=wanted.project,
            name=wanted.name,
            id=wanted.id or secrets.token_hex(4),
            resume="allow",
            config=dict(wanted.settings),
        )
        self.id: str = self._run.id
        for stage in TRAINED:
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    @property
    def place(self) -> str:
        """Where a person finds the run."""
        if self._run.offline:
            return str(Path(self._run.dir).parent)
        return without_secrets(self._run.url or "kept nowhere")

    @functools.cached_property
    def _earlier(self) -> Mapping[str, int]:
        """The last step of each stage in what earlier starts left on the disk: offline no server knows it."""
        own, last = Path(self._run.dir).parent, dict.fromkeys(TRAINED, 0)
        for folder in own.parent.glob(f"*run-*-{self.id}") if self._run.offline else ():
            for row in read_history(folder) if folder != own else ():
                last |= {stage: max(step, row.get(f"{stage}/step", 0)) for stage, step in last.items()}
        return last

    def last_step(self, stage: str) -> int:
        """Return the last step of which this start, the server or the disk knows."""
        return max(self._run.summary.get(f"{stage}/step", 0), self._earlier[stage])

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add the metrics of one step."""
        self._run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in values.items()})

    def log_result(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Write what a stage has ended with into the summary."""
        self._run.summary.update({f"result/{stage}/{name}": value for name, value in numbers.items()})

    def log_report(self, report: TrackedReport) -> None:
        """Add plots, pages and dialogues to the run's panels, and the files as an artifact."""
        html, artifact = self._wandb.Html, self._wandb.Artifact(f"report-{self.id}", type="report")
        shown = {f"plots/{name}": html(svg, data_is_not_path=True) for name, svg in report.plots.items()}
        shown["dialogues"] = self._wandb.Table(columns=report.columns, data=report.dialogues)
        for path in report.files:
            artifact.add_file(str(path))
            if path.suffix == ".html":
                shown[path.stem] = html(path.read_text(encoding="utf-8"), data_is_not_path=True)
        self._run.log(shown)
        self._run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        """Wait until everything is written or uploaded."""
        self._run.finish(exit_code=int(failed))
