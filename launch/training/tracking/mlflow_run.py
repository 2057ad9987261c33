"""Runs in MLflow, which its own environment variables configure: MLFLOW_TRACKING_URI and those of its logins."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

from launch.common.files import check_writable
from launch.training.tracking.tracker import IN_EVERY_LINE, RunToTrack, TrackedReport, flat, without_secrets

SQLITE = "sqlite:///"
MOST_PARAMS = 100  # that a server takes at once


class MlflowRun:
    """A run of MLflow, through its client: no state of the process, no thread."""

    def __init__(self, wanted: RunToTrack):
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # seven of them take minutes
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # a new database tells of its tables
        database = Path(mlflow.get_tracking_uri().partition(SQLITE)[2])
        if database.parent.is_dir() and database.name:
            check_writable(database)  # mlflow tries it for two minutes
        self._entities, self._client = mlflow.entities, mlflow.MlflowClient()
        self.id: str = wanted.id if wanted.id and self._exists(wanted.id) else self._new_run(wanted)
        try:
            self._client.update_run(self.id, status="RUNNING")
            self._log_settings(wanted.settings)
        except BaseException:
            with contextlib.suppress(Exception):
                self.close(failed=True)
            raise

    def _exists(self, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # MLFLOW_TRACKING_URI names another store
                return False
            raise
        return True

    def _new_run(self, wanted: RunToTrack) -> str:
        experiment = self._client.get_experiment_by_name(wanted.project)
        number = self._client.create_experiment(wanted.project) if experiment is None else experiment.experiment_id
        run_id: str = self._client.create_run(number, run_name=wanted.name).info.run_id
        return run_id

    def _log_settings(self, settings: Mapping[str, object]) -> None:
        known = self._client.get_run(self.id).data.params  # which cannot be changed
        new = [self._entities.Param(name, str(value)) for name, value in flat(settings, ".") if name not in known]
        for first in range(0, len(new), MOST_PARAMS):
            self._client.log_batch(self.id, params=new[first : first + MOST_PARAMS])

    @property
    def place(self) -> str:
        """Where a person finds the run."""
        return without_secrets(self._client.tracking_uri)

    def last_step(self, stage: str) -> int:
        """Return the last step that the store has."""
        name = f"{stage}/{IN_EVERY_LINE}"
        known = name in self._client.get_run(self.id).data.metrics
        return max((found.step for found in self._client.get_metric_history(self.id, name) if known), default=0)

    def log(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Add the metrics of one step, all or none."""
        now = round(1000 * time.time())
        metrics = [self._entities.Metric(f"{stage}/{name}", value, now, step) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def log_result(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Add what a stage has ended with as metrics of one point."""
        known = self._client.get_run(self.id).data.metrics
        new = {name: value for name, value in numbers.items() if known.get(f"result/{stage}/{name}") != value}
        if new:
            self.log(f"result/{stage}", 0, new)

    def log_report(self, report: TrackedReport) -> None:
        """Add files, plots and dialogues as artifacts; an older one of the same name is replaced."""
        for path in report.files:
            self._client.log_artifact(self.id, str(path))
        for name, svg in report.plots.items():
            self._client.log_text(self.id, svg, f"plots/{name}.svg")
        table = {"columns": report.columns, "data": report.dialogues}
        self._client.log_dict(self.id, table, "dialogues.json")

    def close(self, failed: bool) -> None:
        """End the run; all of it is in the store."""
        self._client.set_terminated(self.id, "FAILED" if failed else "FINISHED")
