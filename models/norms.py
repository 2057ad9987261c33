"""Normalisation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def rms_norm(x_btd: Float[Array, "B T *N D"], scale_d: Float[Array, " D"], eps: float) -> Float[Array, "B T *N D"]:
    """x / sqrt(mean(x^2) + eps) * scale (arXiv:1910.07467, eq. 4), computed in float32, in the dtype of `x`."""
    x_float = x_btd.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x_float), axis=-1, keepdims=True)
    return (x_float * jax.lax.rsqrt(mean_square + eps) * scale_d.astype(jnp.float32)).astype(x_btd.dtype)
