"""The command lines that a report proposes."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from launch.common.flags import FILE_ONLY, settings
from launch.common.settings import Hosts
from launch.training.config import TrainConfig
from launch.training.presets import DEFAULT_PRESET, PRESETS


def next_commands(config: TrainConfig) -> list[str]:
    """Return what to try after this run: the same with another seed, and another algorithm from its files on."""
    base = re.sub(r"-(sweet|mtdpo|rft|zero-shot)-seed\d+$", "", str(config.run_dir))
    other = "mtdpo" if config.algorithm == "sweet" else "sweet"
    changes = (
        {"algorithm": config.algorithm, "seed": config.seed + 1},
        {"algorithm": other, "candidates": None, "turn_pairs": None},  # which are sweet's alone
    )
    configs = [dataclasses.replace(config, **change) for change in changes]
    return [
        command_line(dataclasses.replace(one, run_dir=Path(f"{base}-{one.algorithm}-seed{one.seed}")), config)
        for one in configs
    ]


def command_line(config: TrainConfig, source: TrainConfig | None = None) -> str:
    """Return the command that makes this run with all its stages: the flags in which it differs from its preset.

    source: the run whose config.json is named where only a file can say what differs; `config` itself if None.
    """
    named = [] if config.preset == DEFAULT_PRESET else [f"--preset={config.preset}"]
    algorithm = (source or config).algorithm  # another one gets its own defaults where the run had those of its own
    preset = PRESETS[config.preset](algorithm)
    if config.benchmark != preset.benchmark:
        named.append(f"--benchmark={config.benchmark}")
        preset = PRESETS[config.preset](algorithm, config.benchmark)
    if config.start != preset.start:
        source = source or config
        named = [f"--config={source.run_dir / 'config.json'}"]
        preset = dataclasses.replace(source, run_dir=TrainConfig().run_dir, stage="all", hosts=Hosts())
    flags = _flags(dataclasses.replace(config, stage="all", hosts=Hosts()), preset)
    return shlex.join(["python", "-m", "launch.train", *named, *flags])


def _flags(config: TrainConfig, default: TrainConfig) -> Iterator[str]:
    for setting in settings(TrainConfig):
        value = setting.value(config)
        if FILE_ONLY in setting.marks or value == setting.value(default):
            continue
        block, dot, name = setting.flag.rpartition(".") if "." in setting.flag else ("", "--", setting.flag[2:])
        if isinstance(value, bool):
            yield f"{block}{dot}{'' if value else 'no-'}{name}"
        elif isinstance(value, tuple):
            yield from (setting.flag, *value)
        else:
            yield f"{setting.flag}={value}"
