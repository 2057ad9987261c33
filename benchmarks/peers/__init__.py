"""Ours against a peer, alternately, on the same weights and inputs."""

from pathlib import Path

import jax.numpy as jnp
from jax.sharding import Mesh

from models.hf_io import LoadedModel, load_llama
from sweet_jax.mesh import MeshShape, make_mesh, start_devices


def load_on_one_device(directory: Path) -> tuple[Mesh, LoadedModel]:
    """Read the weights in float32."""
    shape = MeshShape(1, 1)
    start_devices(shape)
    mesh = make_mesh(shape)
    return mesh, load_llama(directory, mesh, jnp.float32)
