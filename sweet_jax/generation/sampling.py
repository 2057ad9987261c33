"""How a token is drawn: temperature, top-k and top-p of every row, and the row's own key."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from colbench_env.types import BadInput

TOP = 20  # alternatives that are reported of a token at most
STRETCH = 256  # tokens of the vocabulary whose probabilities are summed first
MASKED_LOGIT = -1e30  # finite: a token that top-k or top-p leaves out


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    temperature: 0 is greedy. top_k: keep the k likeliest tokens, 0 keeps all. top_p: keep the smallest set of likeliest
    tokens with at least this probability, 1 keeps all. max_new_tokens: the longest turn, its end token included.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or self.top_k < 0:
            raise BadInput(f"temperature {self.temperature} and top_k {self.top_k} must be finite and not negative")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p is {self.top_p}, it must be above 0 and at most 1")
        if self.max_new_tokens < 1:
            raise BadInput(f"max_new_tokens is {self.max_new_tokens}, it must be at least 1")


@dataclass(frozen=True, eq=False)
class Sample:
    """One sampled turn.

    ids: int32 [T], as drawn, the end token included if one was drawn. logps: float32 [T], log-prob of each under the
    distribution it was drawn from (after temperature, top-k and top-p; greedy: under the plain distribution).
    ended: an end token was drawn; False means that the turn was cut at `max_new_tokens`.
    """

    ids: np.ndarray
    logps: np.ndarray
    ended: bool


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RowSampling:
    """`Sampling` of each row: float32 temperature_b, int32 top_k_b, float32 top_p_b."""

    temperature_b: Any
    top_k_b: Any
    top_p_b: Any


def row_scores(logits_bv: Float[Array, "B V"], sampling: RowSampling) -> Float[Array, "B V"]:
    """Return the logits of the distribution that each row draws from; greedy rows keep theirs.

    Tokens that top-k or top-p leave out get MASKED_LOGIT; of equally likely ones all stay, or none. It takes time only
    where some row asks for either.

    In:  logits [[0, 1, 2, 3]], temperature 1, top_k 2
    Out: [[-1e30, -1e30, 2, 3]]
    """
    greedy_b = sampling.temperature_b == 0
    scores_bv = logits_bv / jnp.where(greedy_b, 1.0, sampling.temperature_b)[:, None]
    filtered_b = ~greedy_b & ((sampling.top_k_b > 0) | (sampling.top_p_b < 1))
    return jax.lax.cond(filtered_b.any(), _filter, lambda scores, *_: scores, scores_bv, filtered_b, sampling)


def _filter(scores_bv: Float[Array, "B V"], filtered_b: Bool[Array, " B"], sampling: RowSampling) -> jax.Array:
    size, place_bv = scores_bv.shape[-1], _in_order(scores_bv)
    kept_b = jnp.where(sampling.top_k_b == 0, size, jnp.minimum(sampling.top_k_b, size))

    def kth(place_bv: jax.Array) -> jax.Array:
        return _smallest(lambda bound_b1: (place_bv > bound_b1).sum(-1) < kept_b, len(place_bv))

    def lowest(place_bv: jax.Array) -> jax.Array:
        return jnp.zeros((len(place_bv), 1), jnp.uint32)

    kth_b1 = jax.lax.cond((sampling.top_k_b > 0).any(), kth, lowest, place_bv)
    weight_bv = jnp.where(place_bv < kth_b1, 0.0, jnp.exp(scores_bv - scores_bv.max(axis=-1, keepdims=True)))
    wanted_b = sampling.top_p_b * weight_bv.sum(axis=-1)

    def too_little(bound_b1: jax.Array) -> jax.Array:  # is held by the tokens above
        return jnp.where(place_bv > bound_b1, weight_bv, 0.0).sum(-1) < wanted_b

    smallest_b1 = jnp.where(sampling.top_p_b[:, None] < 1, _smallest(too_little, len(scores_bv)), kth_b1)
    masked_bv = place_bv < jnp.maximum(kth_b1, smallest_b1)
    return jnp.where(masked_bv & filtered_b[:, None], MASKED_LOGIT, scores_bv)


def _in_order(scores_bv: jax.Array) -> jax.Array:
    """Turn floats into uint32 that are in the same order."""
    bits_bv = jnp.where(scores_bv == 0, 0.0, scores_bv).view(jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits_bv >= sign, ~bits_bv, bits_bv | sign)


def _smallest(holds: Callable[[jax.Array], jax.Array], rows: int) -> jax.Array:
    """Find the smallest uint32 of each row for which `holds`, which then holds for every larger one: [B, 1].

    The vocabulary is read 32 times, and not sorted.
    """

    def halve(_: Any, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low_b1, high_b1 = ends
        middle_b1 = low_b1 + (high_b1 - low_b1) // 2
        holds_b1 = holds(middle_b1)[:, None]
        return jnp.where(holds_b1, low_b1, middle_b1 + 1), jnp.where(holds_b1, middle_b1, high_b1)

    ends = jnp.zeros((rows, 1), jnp.uint32), jnp.full((rows, 1), 2**32 - 1, jnp.uint32)
    return jax.lax.fori_loop(0, 32, halve, ends)[1]


def draw_rows(
    scores_bv: Float[Array, "B V"], key_b: Array, step_b: Int[Array, " B"], greedy_b: Bool[Array, " B"]
) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """Draw a token of every row with the row's own key and step; the likeliest where the row is greedy.

    Returns the tokens, and log sum exp of the scores, which makes log-probs of them. One uniform number is drawn a row,
    and the token is the one in whose stretch of the cumulated probabilities it falls.
    """
    most_b = scores_bv.max(axis=-1)
    weight_bv = jnp.exp(scores_bv - most_b[:, None])
    weight_bnw = jnp.pad(weight_bv, ((0, 0), (0, -weight_bv.shape[1] % STRETCH))).reshape(len(scores_bv), -1, STRETCH)
    sum_bn = weight_bnw.sum(axis=-1)
    end_bn = jnp.cumsum(sum_bn, axis=-1)
    uniform_b = jax.vmap(lambda key, step: jax.random.uniform(jax.random.fold_in(key, step)))(key_b, step_b)
    wanted_b = uniform_b * end_bn[:, -1]
    stretch_b = _first_above(end_bn, wanted_b, sum_bn)
    before_b = jnp.take_along_axis(end_bn - sum_bn, stretch_b[:, None], axis=-1)[:, 0]
    weight_bw = jnp.take_along_axis(weight_bnw, stretch_b[:, None, None], axis=1)[:, 0]
    drawn_b = stretch_b * STRETCH + _first_above(jnp.cumsum(weight_bw, axis=-1), wanted_b - before_b, weight_bw)
    token_b = jnp.where(greedy_b, jnp.argmax(scores_bv, axis=-1), drawn_b).astype(jnp.int32)
    return token_b, jnp.log(end_bn[:, -1]) + most_b


def _first_above(end_bn: jax.Array, wanted_b: jax.Array, weight_bn: jax.Array) -> jax.Array:
    """Find the first of n whose sum up to its end is above what is wanted, and that weighs something; where rounding
    has left none, the heaviest."""
    above_bn = (end_bn > wanted_b[:, None]) & (weight_bn > 0)
    return jnp.where(above_bn.any(axis=-1), jnp.argmax(above_bn, axis=-1), jnp.argmax(weight_bn, axis=-1))
