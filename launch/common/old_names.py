"""Names that settings of `launch.train` had before, which published commands and run directories still use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

RENAMED = {
    "clip": "max_grad_norm", "warmup_share": "warmup_ratio", "final_share": "min_lr_ratio", "beta1": "adam_beta1",
    "beta2": "adam_beta2", "held_out_share": "held_out_fraction",
}  # fmt: skip
"""Of the settings of `Training`: the name before, the name now."""

_OLD = re.compile(r"^(critic|policy)\.training\.(?:hyper\.)?(\w+)$")


def current_name(name: str) -> str:
    """In: "critic.training.hyper.clip"   Out: "critic.max_grad_norm" """
    return _OLD.sub(lambda found: f"{found[1]}.{RENAMED.get(found[2], found[2])}", name)


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

    def training(before: Mapping[str, Any]) -> dict[str, Any]:
        flat = {**before, **before["hyper"]} if isinstance(before.get("hyper"), dict) else dict(before)
        return {RENAMED.get(name, name): value for name, value in flat.items() if name != "hyper"}

    now: dict[str, Any] = dict(found)
    for name, block in found.items():
        if isinstance(block, dict) and isinstance(block.get("training"), dict):
            block = dict(block) | {"training": training(block["training"])}
        if name == "start" and isinstance(block, dict) and "privileged_share" in block:
            block = {("privileged_fraction" if key == "privileged_share" else key): block[key] for key in block}
        now[name] = block
    return now
