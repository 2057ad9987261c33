"""Drawing a token of every row, where each row has settings of its own; the same draws as `batch_sampler`."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sweet_jax.generation.batch_sampler import HIDDEN_LOGIT

TOP = 20  # alternatives that are told of a token at most


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowSampling:
    """`batch_sampler.Sampling` of each row: float32 temperature_b, int32 top_k_b, float32 top_p_b."""

    temperature_b: Any
    top_k_b: Any
    top_p_b: Any


def row_scores(logits_bv: Float[Array, "B V"], sampling: RowSampling) -> Float[Array, "B V"]:
    """Logits of the distribution that each row draws from (`batch_sampler.sampling_logits`, row by row).

    The vocabulary is sorted only where some row asks for top-k or top-p.
    """
    greedy_b = sampling.temperature_b == 0
    scores_bv = logits_bv / jnp.where(greedy_b, 1.0, sampling.temperature_b)[:, None]
    filtered_b = ~greedy_b & ((sampling.top_k_b > 0) | (sampling.top_p_b < 1))
    return jax.lax.cond(filtered_b.any(), _filtered, lambda scores, *_: scores, scores_bv, filtered_b, sampling)


def _filtered(
    scores_bv: Float[Array, "B V"], filtered_b: Bool[Array, " B"], sampling: RowSampling
) -> Float[Array, "B V"]:
    size = scores_bv.shape[-1]
    sorted_bv = jnp.sort(scores_bv, axis=-1, descending=True)
    kept_b = jnp.where(sampling.top_k_b == 0, size, jnp.minimum(sampling.top_k_b, size))
    kth_b1 = jnp.take_along_axis(sorted_bv, kept_b[:, None] - 1, axis=-1)
    sorted_bv = jnp.where(sorted_bv < kth_b1, HIDDEN_LOGIT, sorted_bv)
    probability_bv = jax.nn.softmax(sorted_bv, axis=-1)
    before_bv = jnp.cumsum(probability_bv, axis=-1) - probability_bv  # what the likelier tokens hold together
    top_p_b1 = sampling.top_p_b[:, None]
    within_bv = (before_bv < top_p_b1) | (top_p_b1 >= 1)
    smallest_b1 = jnp.where(within_bv, sorted_bv, jnp.inf).min(axis=-1, keepdims=True)
    hidden_bv = (scores_bv < kth_b1) | (scores_bv < smallest_b1)
    return jnp.where(hidden_bv & filtered_b[:, None], HIDDEN_LOGIT, scores_bv)


def draw_rows(
    scores_bv: Float[Array, "B V"], key_b: Array, step_b: Int[Array, " B"], greedy_b: Bool[Array, " B"]
) -> Int[Array, " B"]:
    """A token of every row, drawn with the row's own key and step; the likeliest where the row is greedy."""
    drawn_b = jax.vmap(lambda key, step, row: jax.random.categorical(jax.random.fold_in(key, step), row))(
        key_b, step_b, scores_bv
    )
    return jnp.where(greedy_b, jnp.argmax(scores_bv, axis=-1), drawn_b).astype(jnp.int32)
