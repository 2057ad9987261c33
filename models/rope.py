"""Rotary position embeddings with Llama 3.1's scaling of wavelengths. All tables are float32."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from models.config import LlamaConfig


def inverse_frequencies(config: LlamaConfig) -> np.ndarray:
    """Radians a position for each pair of head dimensions, float32 [H/2].

    Pair i turns by theta^(-2i/H) a position (RoFormer, arXiv:2104.09864, eq. 15). With Llama 3.1 scaling, wavelengths
    above original/low_freq_factor are stretched by `factor`, those below original/high_freq_factor are kept, and those
    between are blended linearly in the number of turns over the original context (Llama's released code,
    `apply_scaling`).
    """
    exponents = np.arange(0, config.head_size, 2, dtype=np.float64) / config.head_size
    frequencies = config.rope_theta**-exponents
    scaling = config.rope_scaling
    if scaling is not None:
        turns = scaling.original_max_position_embeddings * frequencies / (2 * np.pi)
        kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        kept = np.clip(kept, 0.0, 1.0)
        frequencies = kept * frequencies + (1 - kept) * frequencies / scaling.factor
    return frequencies.astype(np.float32)


def rotary_angles(positions_bt: Int[Array, "B T"], config: LlamaConfig) -> Float[Array, "B T half"]:
    """Angle of each pair of head dimensions at each position, float32 [B, T, H/2]."""
    return positions_bt[..., None].astype(jnp.float32) * jnp.asarray(inverse_frequencies(config))


def rotate(x_btnh: Float[Array, "B T N H"], angles_bth: Float[Array, "B T half"]) -> Float[Array, "B T N H"]:
    """`x` with dimensions (i, i + H/2) of every head turned by their angle; computed in float32, returned as given.

    The pairing of halves is Hugging Face's layout of Llama weights, not that of Meta's original files.
    """
    cos, sin = jnp.cos(angles_bth)[:, :, None], jnp.sin(angles_bth)[:, :, None]
    first, second = jnp.split(x_btnh.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x_btnh.dtype)
