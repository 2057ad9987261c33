"""A served model: its engine, tokenizer and name."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from launch.common.settings import EMBEDDED_DIRECTORIES, start_model
from launch.serving.config import Limits, ServeConfig
from sweet_jax.data.chat import Chat
from sweet_jax.generation import Engine
from sweet_jax.generation.load import load_engine
from sweet_jax.mesh import parse_mesh


@dataclass(frozen=True)
class Served:
    """What the server needs of a model."""

    name: str
    engine: Engine
    chat: Chat
    seed: int = 0
    api_key: str | None = None
    limits: Limits = Limits()


def load_served(config: ServeConfig, api_key: str | None) -> Served:
    """Load the model of the configuration; raises as `load_engine`."""
    directory = start_model(config.model, Path())
    loaded = load_engine(
        directory, parse_mesh(config.mesh).folded(), config.rows, config.max_length, config.compute_dtype,
        datetime.date.fromisoformat(config.prompt_date),
    )  # fmt: skip
    name = config.model if config.model in EMBEDDED_DIRECTORIES else directory.name
    return Served(config.name or name, loaded.engine, loaded.chat, config.seed, api_key, config.limits)
