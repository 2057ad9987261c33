"""Trackers are looked at before long work, opened with the run and closed with it."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path

from colbench_env.types import BadInput
from launch.common.console import Console
from launch.common.run_dir import RunDir
from launch.common.tracker_names import tracker_names
from launch.training.config import TrainConfig, settings_of
from launch.training.tracking.tracker import RunToTrack, Tracker, first_line
from launch.training.tracking.trackers import Trackers
from sweet_jax import processes


def check_trackers(track: str) -> None:
    """Call `check_tracker` for each that `--track` names."""
    for name in tracker_names(track):
        check_tracker(name)


def check_tracker(name: str) -> None:
    """Raise BadInput where the tracker's package is missing, or where it would ask for a login."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:  # a folder of that name, in which runs are kept
        raise BadInput(f"--track={name} needs the package {name}: pip install -e '.[{name}]'")
    if name == "wandb":
        from launch.training.tracking.wandb_run import check_login

        check_login()


@contextlib.contextmanager
def open_trackers(config: TrainConfig, directory: RunDir, console: Console) -> Iterator[Trackers]:
    """Open the run in the trackers that the configuration names, send what they have not got, and close it at the end.

    Every process has to call this. Raises BadInput where a tracker cannot be opened.
    """
    trackers, failed = Trackers(directory, console), True

    def open_all() -> None:
        for name in tracker_names(config.track):
            trackers.add(name, config.track_project, _open(name, config, trackers.known_id(name, config.track_project)))

    try:
        processes.broadcast_from_process_0(open_all)
        yield trackers
        failed = False
    finally:
        trackers.close(failed)


def _open(name: str, config: TrainConfig, run_id: str | None) -> Tracker:
    wanted = RunToTrack(config.track_project, run_name(config.run_dir), run_id, settings_of(config))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package about packages that it uses
            return _make(name, wanted)
    except Exception as error:
        raise BadInput(f"--track={name}: the run cannot be opened there: {first_line(error)}") from error


def _make(name: str, wanted: RunToTrack) -> Tracker:
    match name:
        case "wandb":
            from launch.training.tracking.wandb_run import WandbRun

            return WandbRun(wanted)
        case "mlflow":
            from launch.training.tracking.mlflow_run import MlflowRun

            return MlflowRun(wanted)
        case _:
            from launch.training.tracking.trackio_run import TrackioRun

            return TrackioRun(wanted)


def run_name(run_dir: Path) -> str:
    """Return how a run is called in trackers.

    In: runs/default   Out: "default"
    In: runs/default/iteration-2   Out: "default-iteration-2"
    """
    path = run_dir.absolute()
    return f"{path.parent.name}-{path.name}" if path.name.startswith("iteration-") else path.name
