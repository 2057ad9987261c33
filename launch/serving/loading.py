"""A served model: its engine, tokenizer and name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from launch.config import EMBEDDED
from launch.run import EMBEDDED_DIRECTORY
from launch.serving.config import ServeConfig
from models.hf_io import check_llama, load_llama
from models.llama import Llama
from models.parameters import inference_shardings
from sweet_jax.chat import Chat, check_vocabulary
from sweet_jax.engine import Engine
from sweet_jax.mesh import check_rows, make_mesh, own_mesh, parse_mesh, start_devices

USUAL_LENGTH = 2048  # tokens of a row, where the network was made for as many


@dataclass(frozen=True)
class Served:
    """What the server needs of a model."""

    name: str
    engine: Engine
    chat: Chat
    model: Llama
    params: Any
    seed: int = 0
    api_key: str | None = None


def load_served(config: ServeConfig, api_key: str | None) -> Served:
    """The model on its mesh, ready to draw. BadInput and ModelError, before weights are read, for what is wrong."""
    directory = EMBEDDED_DIRECTORY if config.model == EMBEDDED else Path(config.model)
    shape = parse_mesh(config.mesh).folded()
    start_devices(shape)
    mesh = own_mesh(make_mesh(shape))
    check_rows(config.rows, mesh)
    llama, chat = check_llama(directory, mesh), Chat.load(directory)
    check_vocabulary(chat, llama)
    dtype = jnp.dtype(config.compute_dtype)
    params = jax.device_put(load_llama(directory, mesh, dtype).params, inference_shardings(llama, mesh))
    model = Llama(llama, mesh, dtype, remat="none", attention=config.attention)
    length = config.max_length or min(USUAL_LENGTH, llama.max_position_embeddings)
    engine = Engine(model, params, chat.end_ids, chat.pad_id, config.rows, length)
    name = EMBEDDED if config.model == EMBEDDED else directory.name
    return Served(config.name or name, engine, chat, model, params, config.seed, api_key)
