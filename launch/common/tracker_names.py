"""The experiment trackers that a training run can be sent to, by name."""

from __future__ import annotations

from colbench_env.types import BadInput

TRACKERS = ("wandb", "mlflow", "trackio")
NO_TRACKER = "none"
DEFAULT_PROJECT = "sweet-jax"


def tracker_names(track: str) -> tuple[str, ...]:
    """Return the trackers that `--track` names, each once. Raises BadInput.

    In:  "wandb,mlflow"   Out: ("wandb", "mlflow")
    In:  "none"           Out: ()
    """
    names = tuple(dict.fromkeys(name.strip() for name in track.split(",")))
    if names == (NO_TRACKER,):
        return ()
    for name in names:
        if name not in TRACKERS:
            raise BadInput(
                f"--track={track}: {name!r} is no tracker, expected {NO_TRACKER} or some of {', '.join(TRACKERS)} with "
                "commas between"
            )
    return names
