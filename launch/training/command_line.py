"""The command lines that a report proposes."""

from __future__ import annotations

import dataclasses
import re
import shlex
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch.common.flags import FLAT
from launch.common.settings import Hosts
from launch.training.config import TrainConfig
from launch.training.presets import PRESETS


def next_commands(config: TrainConfig) -> list[str]:
    """What to try after this run: the same with another seed, and with another algorithm, from its own files on."""
    base = re.sub(r"-(sweet|mtdpo|rft|zero-shot)-seed\d+$", "", str(config.run_dir))
    other = "mtdpo" if config.algorithm == "sweet" else "sweet"
    changes = (
        {"algorithm": config.algorithm, "seed": config.seed + 1},
        {"algorithm": other, "candidates": None, "turn_pairs": None},  # which are sweet's alone
    )
    configs = [dataclasses.replace(config, **change) for change in changes]
    return [
        command_line(dataclasses.replace(one, run_dir=Path(f"{base}-{one.algorithm}-seed{one.seed}")))
        for one in configs
    ]


def command_line(config: TrainConfig) -> str:
    """The command that makes this run with all its stages: the flags in which it differs from its preset."""
    preset = PRESETS[config.preset]
    named = [] if config.preset == TrainConfig().preset else [f"--preset={config.preset}"]
    if config.benchmark != preset(config.algorithm).benchmark:
        named.append(f"--benchmark={config.benchmark}")
    flags = _flags(dataclasses.replace(config, stage="all", hosts=Hosts()), preset(config.algorithm, config.benchmark))
    return shlex.join(["python", "-m", "launch.train", *named, *flags])


def _flags(config: Any, default: Any, prefix: str = "") -> Iterator[str]:
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), getattr(default, field.name)
        name = field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            flat = FLAT in getattr(hints[field.name], "__metadata__", ())
            yield from _flags(value, usual, prefix if flat else f"{prefix}{name}.")
        elif isinstance(value, bool) and value != usual:
            yield f"--{prefix}{name}" if value else f"--{prefix}no-{name}"
        elif value != usual:
            yield f"--{prefix}{name}={value}"
