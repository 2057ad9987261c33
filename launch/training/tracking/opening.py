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
from launch.training.tracking.stores import store_of
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
        from launch.training.tracking.wandb_login import check_login

        check_login()


@contextlib.contextmanager
def open_trackers(
    config: TrainConfig, directory: RunDir, console: Console, may_miss: bool = False
) -> Iterator[Trackers]:
    """Open the run in the trackers that the configuration names, send what they have not got, and close it at the end.

    may_miss: look at each tracker here, warn of one that cannot be opened and go on without it.
    Every process has to call this. Raises BadInput where a tracker cannot be opened, unless it may be missed.
    """
    trackers, failed = Trackers(directory, console), True

    def open_all() -> None:
        for name in tracker_names(config.track):
            try:
                if may_miss:
                    check_tracker(name)
                _open(name, config, trackers)
            except BadInput as error:
                if not may_miss:
                    raise
                console.warn(f"{error}; the run goes on without it, the same command again sends what is missing there")

    try:
        processes.broadcast_from_process_0(open_all)
        yield trackers
        failed = False
    finally:
        trackers.close(failed)


def _open(name: str, config: TrainConfig, trackers: Trackers) -> None:
    with _one_sentence(name):
        store = store_of(name, config.track_project)
    run_id = trackers.known_id(name, store)
    with _one_sentence(name):
        tracker = _make(name, RunToTrack(store.project, run_name(config.run_dir), run_id, settings_of(config)))
    trackers.add(name, store, tracker)


@contextlib.contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package about packages that it uses
            warnings.filterwarnings("always", message="trackio")  # it goes on without its server
            yield
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
