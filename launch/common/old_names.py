"""Names that settings of `launch.train` had before, which published commands and run directories still use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RENAMED = {
    "clip": "max_grad_norm", "warmup_share": "warmup_ratio", "final_share": "min_lr_ratio", "beta1": "adam_beta1",
    "beta2": "adam_beta2", "held_out_share": "held_out_fraction",
}  # fmt: skip
"""Of the settings of `Training`: the name before, the name now."""
STAGES = ("critic", "policy", "start")
OLD_BLOCKS = tuple(f"{stage}.training.hyper" for stage in STAGES)


def current_name(name: str) -> str:
    """In: "critic.training.hyper.clip"   Out: "critic.max_grad_norm" """
    match name.split("."):
        case [stage, "training", *_, last] if stage in STAGES:
            return f"{stage}.{RENAMED.get(last, last)}"
        case ["start", "privileged_share"]:
            return "start.privileged_fraction"
    return name


def current_flags(argv: Sequence[str]) -> list[str]:
    """Return the arguments with old flags by their names of today; everything else stays as it is."""

    def renamed(argument: str) -> str:
        flag, equals, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or (now := current_name(name)) == name:
            return argument
        return f"--{now.replace('_', '-')}{equals}{value}"

    return [renamed(argument) for argument in argv]


def current_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run directory, as its config.json has them, by their names of today."""

    def block(stage: str, before: Mapping[str, Any]) -> dict[str, Any]:
        training = before.get("training", {})
        flat = {**training, **training.get("hyper", {})}
        now = {current_name(f"{stage}.{name}").removeprefix(f"{stage}."): value for name, value in before.items()}
        if "training" in before:
            now["training"] = {RENAMED.get(name, name): value for name, value in flat.items() if name != "hyper"}
        return now

    return {name: block(name, value) if name in STAGES else value for name, value in found.items()}
