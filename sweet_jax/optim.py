"""The optimiser of every training stage: AdamW with clipping, a linear warm-up and a cosine down to a tenth."""

import math
from dataclasses import dataclass

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from colbench_env.types import BadInput


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters of one stage; the defaults are the paper's.

    warmup_share: share of the steps with a rising rate; final_share: the last rate as a share of the peak;
    clip: largest global norm of the gradient.
    """

    learning_rate: float = 2e-7
    warmup_share: float = 0.03
    final_share: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1:
            raise BadInput(f"learning_rate is {self.learning_rate}, it must be above 0 and below 1")
        for name in ("warmup_share", "final_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be between 0 and 1")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least 0 and below 1")
        if self.weight_decay < 0 or self.clip <= 0:
            raise BadInput(f"weight_decay {self.weight_decay} must be at least 0 and clip {self.clip} above 0")


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
