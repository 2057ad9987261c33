"""Runs in Trackio, which its own environment variables configure: TRACKIO_DIR, TRACKIO_SPACE_ID."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import secrets
import subprocess
import sys
from collections.abc import Mapping

from launch.training.tracking.stores import trackio_server
from launch.training.tracking.tracker import IN_EVERY_LINE, RunToTrack, TrackedReport, without_secrets

LAST_ROWS = """
WITH rows AS (SELECT step, CAST(metrics AS TEXT) AS metrics FROM metrics WHERE run_name = '{name}')
SELECT metrics, MAX(step) AS step FROM rows
GROUP BY CASE WHEN metrics LIKE '{{"result/%' THEN metrics ELSE substr(metrics, 1, instr(metrics, '/')) END
"""
"""The last row of each stage and all rows of results: a query gives no more than some thousand rows."""


class TrackioRun:
    """A run of trackio, which finds it again by its name: that ends with the id."""

    def __init__(self, wanted: RunToTrack):
        import trackio

        self._trackio, self._project = trackio, wanted.project
        self.id = wanted.id or f"{wanted.name}-{secrets.token_hex(4)}"
        self._is_new = wanted.id is None
        with _quiet():
            self._run = trackio.init(wanted.project, self.id, config=dict(wanted.settings), resume="allow", embed=False)

    @property
    def place(self) -> str:
        """Where a person finds the run."""
        return without_secrets(trackio_server()) or f"trackio show --project {self._project}"

    @functools.cached_property
    def _earlier(self) -> dict[str, int]:
        """The last step of every metric that earlier starts have logged. RuntimeError where trackio cannot say."""
        if self._is_new:
            return {}
        where = ["--space", trackio_server()] if trackio_server() else []
        name = self.id.replace("'", "''")
        asked = ["query", "project", "--json", "--project", self._project, "--sql", LAST_ROWS.format(name=name)]
        command = [sys.executable, "-m", "trackio.cli", *where, *asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode and "not found" not in done.stderr:  # the project, where TRACKIO_DIR names another place
            raise RuntimeError((done.stderr.strip().splitlines() or ["trackio query has failed"])[-1])
        rows = [] if done.returncode else json.loads(done.stdout)["rows"]
        return {metric: row["step"] for row in rows for metric in json.loads(row["metrics"])}

    def last_step(self, stage: str) -> int:
        """Return the last step that earlier starts have logged."""
        return self._earlier.get(f"{stage}/{IN_EVERY_LINE}", 0)

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add the metrics of one step."""
        self._run.log({f"{stage}/{name}": value for name, value in values.items()}, step=step)

    def log_result(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Add what a stage has ended with as metrics of one point."""
        new = {name: value for name, value in numbers.items() if f"result/{stage}/{name}" not in self._earlier}
        if new:
            self.log(f"result/{stage}", 0, new)

    def log_report(self, report: TrackedReport) -> None:
        """Add plots, pages and dialogues as media, and the files as artifacts."""
        shown = {f"plots/{name}": self._trackio.Html(svg) for name, svg in report.plots.items()}
        self._run.log(shown | {"dialogues": self._trackio.Table(columns=report.columns, data=report.dialogues)})
        for path in report.files:
            self._run.log_artifact(str(path), name=f"{self.id}-{path.name}", type="report")

    def close(self, failed: bool) -> None:
        """Wait until everything is written."""
        with _quiet():
            self._trackio.finish()


def _quiet() -> contextlib.AbstractContextManager[object]:
    return contextlib.redirect_stdout(io.StringIO())
