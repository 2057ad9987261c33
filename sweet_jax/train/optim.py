"""The optimiser of every training stage: AdamW with clipping, a linear warm-up and a cosine decay."""

import math

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sweet_jax.train.settings import Training


def learning_rate(training: Training, total_steps: int, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """Compute the learning rate of update number `step` (from 0), a float32 scalar.

    It rises linearly, from above 0 in the first update to the peak in the last warm-up step, and then follows half a
    cosine down to `min_lr_ratio` of the peak in the last step.
    """
    warmup = math.ceil(training.warmup_ratio * total_steps)
    rising = (step + 1) / max(warmup, 1)
    progress = jnp.clip((step + 1 - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
    falling = training.min_lr_ratio + (1 - training.min_lr_ratio) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return jnp.asarray(training.learning_rate * jnp.where(step < warmup, rising, falling), jnp.float32)


def make_optimizer(training: Training, total_steps: int) -> optax.GradientTransformation:
    """Make AdamW for `total_steps` updates: gradients clipped by global norm, moments in `training.moment_dtype`."""
    return optax.chain(
        optax.clip_by_global_norm(training.max_grad_norm),
        _store_moments_in(
            jnp.dtype(training.moment_dtype), optax.scale_by_adam(b1=training.adam_beta1, b2=training.adam_beta2)
        ),
        optax.add_decayed_weights(training.weight_decay),
        optax.scale_by_learning_rate(lambda step: learning_rate(training, total_steps, step)),
    )


def _store_moments_in(dtype: jnp.dtype, adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Store the moments of Adam in `dtype` and compute with them in float32."""

    def moments_as(state: optax.ScaleByAdamState, dtype: DTypeLike) -> optax.ScaleByAdamState:
        mu, nu = (jax.tree.map(lambda x: x.astype(dtype), moments) for moments in (state.mu, state.nu))
        return state._replace(mu=mu, nu=nu)

    def init(params: optax.Params) -> optax.OptState:
        return moments_as(adam.init(params), dtype)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        updates, state = adam.update(updates, moments_as(state, jnp.float32), params)
        return updates, moments_as(state, dtype)

    return optax.GradientTransformation(init, update)
