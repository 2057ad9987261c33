"""The package wandb as this project sets it up, and who is logged in."""

from __future__ import annotations

import os
from types import ModuleType

from colbench_env.types import BadInput
from launch.training.tracking.tracker import first_line

OFFLINE = ("offline", "dryrun", "disabled")
DEFAULTS = {
    "WANDB_CONSOLE": "off",  # the run has its own log.txt
    "WANDB_QUIET": "true",
    "WANDB_FINISH_TIMEOUT": "300",  # seconds to wait for a network that is gone; all is on the disk as well
    "WANDB_FINISH_TIMEOUT_RAISES": "true",
}


def load_wandb() -> ModuleType:
    """Import the package; what the environment does not say is as in DEFAULTS."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    import wandb

    module: ModuleType = wandb
    return module


def check_login() -> None:
    """Raise BadInput unless runs stay on this machine or the server takes the user's key."""
    advice = "wandb login, WANDB_API_KEY or WANDB_MODE=offline helps"
    try:
        wandb = load_wandb()
        if wandb.setup().settings.mode in OFFLINE:
            return
        known = wandb.login(prompt=False, verify=True)
    except Exception as error:  # of its network, its server or its settings, which takes lines to name one
        said = first_line(Exception(" ".join(str(error).split())))
        raise BadInput(f"--track=wandb: the login failed: {said}; {advice}") from error
    if not known:
        raise BadInput(f"--track=wandb: nobody is logged in: {advice}")


def place_of_runs() -> str:
    """Return the server and the entity that runs go to, or the folder that they stay in."""
    settings = load_wandb().setup().settings
    if settings.mode in OFFLINE:
        return "kept nowhere" if settings.mode == "disabled" else str(settings.wandb_dir)
    return f"{settings.base_url}/{settings.entity or ''}"
