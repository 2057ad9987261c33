"""Where a tracker keeps a run: a run that goes elsewhere begins anew there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from colbench_env.types import BadInput
from launch.common.files import read_object, write_json
from launch.common.tracker_names import DEFAULT_PROJECT
from launch.training.tracking.tracker import without_secrets

FILE = "trackers.json"
"""In the run directory: tracker -> project, place, id of the run there, and the hash of the report.json that it has."""


@dataclass(frozen=True)
class Store:
    """A project of a tracker, and the server or folder that it is in, without secrets."""

    project: str
    place: str


def store_of(name: str, project: str) -> Store:
    """Return where a tracker keeps runs of `--track-project` in this environment. Raises what the package raises."""
    match name:
        case "wandb":
            from launch.training.tracking.wandb_login import place_of_runs

            return Store(_project(project, "WANDB_PROJECT"), without_secrets(place_of_runs()))
        case "mlflow":
            import mlflow

            return Store(_project(project, "MLFLOW_EXPERIMENT_NAME"), without_secrets(mlflow.get_tracking_uri()))
        case _:
            folder = os.environ.get("TRACKIO_DIR")
            here = os.path.abspath(folder) if folder else "this machine"
            return Store(project, without_secrets(trackio_server()) or here)


def trackio_server() -> str:
    """Return the Space or the server that trackio sends to, "" where runs stay on this machine."""
    return os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL") or ""


def _project(project: str, variable: str) -> str:
    return os.environ.get(variable) or DEFAULT_PROJECT if project == DEFAULT_PROJECT else project


def read_known(folder: Path, name: str) -> dict[str, str]:
    """Return what a run directory knows of its run in a tracker. Raises BadInput."""
    known = read_object(folder / FILE).get(name, {})
    if not isinstance(known, dict):
        raise BadInput(f"{folder / FILE}: {name!r}: expected an object, found {type(known).__name__}")
    return known


def write_known(folder: Path, name: str, known: dict[str, str]) -> None:
    """Write what `read_known` returns."""
    write_json(folder / FILE, read_object(folder / FILE) | {name: known})
