"""What is computed of each token alone, some tokens at a time."""

from collections.abc import Callable

import jax
from jax.sharding import Mesh

SIZES = range(512, 127, -1)  # tokens at a time, the most first


def map_tokens(apply: Callable[[jax.Array], jax.Array], x_btd: jax.Array, mesh: Mesh) -> jax.Array:
    """Apply a function [B, T, D] -> [B, T, E] of each token alone: to all at once, or on one CPU to some at a time.

    So what it computes between stays in the processor's caches, and takes little memory; the backward pass
    computes it again.
    """
    tokens = x_btd.shape[0] * x_btd.shape[1]
    size = next((size for size in SIZES if tokens % size == 0), tokens)
    if mesh.size > 1 or mesh.devices.flat[0].platform != "cpu" or size == tokens:
        return apply(x_btd)
    y_z1ne = jax.lax.map(jax.checkpoint(apply), x_btd.reshape(-1, 1, size, x_btd.shape[-1]))
    return y_z1ne.reshape(*x_btd.shape[:2], -1)
