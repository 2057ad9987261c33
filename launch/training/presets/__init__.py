"""Presets: the defaults of `launch.train` by name, algorithm and benchmark, as config files in this folder.

NAME.yaml is the preset; NAME.ALGORITHM.yaml and NAME.BENCHMARK.yaml, where there are such, say what changes in it.
`--algorithm` itself is left alone, and every other flag changes its own value, wherever it stands.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

from launch.common.config_file import checked, defaults, read_config, with_entries
from launch.common.simulator import Simulator
from launch.training.config import PresetName, TrainConfig

FOLDER = Path(__file__).parent
DEFAULT_PRESET = "scenes"
PAPER_HUMAN = "meta-llama/Llama-3.1-70B-Instruct"


def _preset(name: str, algorithm: str = "sweet", benchmark: str = "", human: str = "") -> TrainConfig:
    """Return the defaults; another human than the preset's comes without the preset's model of it."""
    config, files = defaults(TrainConfig), {path.stem: path for path in FOLDER.glob("*.yaml")}
    for layer in (name, f"{name}.{algorithm}", f"{name}.{benchmark}"):
        if layer in files:
            config = with_entries(config, read_config(files[layer], TrainConfig, "launch.train"))
    if config.simulator.human_model and human not in ("", config.simulator.human):
        config = dataclasses.replace(config, simulator=Simulator(human=human))  # type: ignore[arg-type]
    return checked(config)


PRESETS: Mapping[str, Callable[..., TrainConfig]] = {
    name: functools.partial(_preset, name) for name in get_args(PresetName)
}
"""Name -> (algorithm, "sweet" if not given, benchmark, human) -> the defaults."""
