"""The optimiser of every training stage: AdamW with clipping, a linear warm-up and a cosine down to a tenth."""

import math

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from sweet_jax.settings import Hyper


def learning_rate(hyper: Hyper, total_steps: int, step: Int[Array, ""] | int) -> Float[Array, ""]:
    """The rate of update number `step` (from 0): it rises to the peak in the last warm-up step, the first not being 0,
    then follows half a cosine to `final_share` of the peak in the last step."""
    warmup = math.ceil(hyper.warmup_share * total_steps)
    rising = (step + 1) / max(warmup, 1)
    progress = jnp.clip((step + 1 - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
    falling = hyper.final_share + (1 - hyper.final_share) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return jnp.asarray(hyper.learning_rate * jnp.where(step < warmup, rising, falling), jnp.float32)


def make_optimizer(hyper: Hyper, total_steps: int) -> optax.GradientTransformation:
    """AdamW over `total_steps` updates: clipped by global norm, moments in the parameters' dtype."""
    return optax.chain(
        optax.clip_by_global_norm(hyper.clip),
        optax.adamw(
            lambda step: learning_rate(hyper, total_steps, step),
            b1=hyper.beta1,
            b2=hyper.beta2,
            weight_decay=hyper.weight_decay,
        ),
    )
