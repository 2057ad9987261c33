"""A model that is ready to draw: from a Hugging Face directory onto a mesh, with an engine."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh

from models.config import LlamaConfig
from models.hf_io import check_llama, load_llama
from models.inference import inference_params
from models.llama import Llama
from sweet_jax.data.chat import Chat, check_vocabulary
from sweet_jax.data.chat_format import PROMPT_DATE
from sweet_jax.generation import Engine, check_length
from sweet_jax.mesh import MeshShape, check_rows, local_mesh, make_mesh, start_devices

USUAL_LENGTH = 2048  # tokens of a row, where the network was made for as many


@dataclass(frozen=True)
class LoadedEngine:
    """A model that draws: its tokenizer and engine, and the network and weights that the engine draws with."""

    chat: Chat
    engine: Engine
    model: Llama
    params: Any


def load_engine(
    directory: Path,
    shape: MeshShape,
    rows: int,
    max_length: int = 0,
    compute_dtype: str = "float32",
    prompt_date: datetime.date = PROMPT_DATE,
) -> LoadedEngine:
    """Load the model with an engine of `rows` rows of `max_length` tokens.

    max_length: 0 is 2048, or what the network was made for where that is less. Of several processes each has the
    devices of its own. BadInput and ModelError, before weights are read, for what is wrong.
    """
    start_devices(shape)
    mesh = local_mesh(make_mesh(shape))
    check_rows(rows, mesh)
    config, chat = check_directory(directory, mesh, prompt_date)
    length = max_length or min(USUAL_LENGTH, config.max_position_embeddings)
    check_length(length, config)
    dtype = jnp.dtype(compute_dtype)
    params = inference_params(load_llama(directory, mesh, dtype).params, config, mesh, dtype)
    model = Llama(config, mesh, dtype, remat="none")
    return LoadedEngine(chat, Engine(model, params, chat.end_ids, chat.pad_id, rows, length), model, params)


def check_directory(directory: Path, mesh: Mesh, prompt_date: datetime.date = PROMPT_DATE) -> tuple[LlamaConfig, Chat]:
    """Load the network and the tokenizer of a Hugging Face directory, when all but the weights is known to be right."""
    config, chat = check_llama(directory, mesh), Chat.load(directory, prompt_date)
    check_vocabulary(chat, config)
    return config, chat
