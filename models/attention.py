"""Grouped-query attention of query tokens over key slots."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

HIDDEN_SCORE = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Score of an invisible slot: finite, so that a row that sees nothing yields no NaN in values or gradients."""


def visible(slots_bt: Int[Array, "B T"], length: int) -> Bool[Array, "B T S"]:
    """Which of `length` slots each query sees: its own and those before it.

    In: slots [[0, 1], [2, 3]], length 4. Out: [[[1,0,0,0], [1,1,0,0]], [[1,1,1,0], [1,1,1,1]]].
    Right padding needs no mask of its own: a padding slot lies after every true token of its row.
    """
    return jnp.arange(length)[None, None, :] <= slots_bt[:, :, None]


def attend(
    q_btnh: Float[Array, "B T N H"],
    k_bsgh: Float[Array, "B S G H"],
    v_bsgh: Float[Array, "B S G H"],
    visible_bts: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Values averaged with weights softmax(q k / sqrt(H)) over visible slots (Vaswani et al. 2017, eq. 1).

    Query heads n = g R .. g R + R - 1 read key/value head g (arXiv:2305.13245). Scores and softmax are float32, the
    weighted sum is taken in the dtype of `q`, which is also the dtype of the result.
    """
    batch, queries, heads, size = q_btnh.shape
    groups = k_bsgh.shape[2]
    repeats = heads // groups
    # The query heads of a group are rows of one matrix product with their key/value head: [R T, H] x [H, S].
    q_bgmh = (
        q_btnh.reshape(batch, queries, groups, repeats, size).transpose(0, 2, 3, 1, 4).reshape(batch, groups, -1, size)
    )
    k_bghs = k_bsgh.astype(q_btnh.dtype).transpose(0, 2, 3, 1)
    v_bgsh = v_bsgh.astype(q_btnh.dtype).transpose(0, 2, 1, 3)
    score_bgms = jnp.matmul(q_bgmh, k_bghs, preferred_element_type=jnp.float32) * size**-0.5
    visible_b1ms = jnp.tile(visible_bts[:, None], (1, 1, repeats, 1))
    score_bgms = jnp.where(visible_b1ms, score_bgms, HIDDEN_SCORE)
    weight_bgms = jax.nn.softmax(score_bgms, axis=-1).astype(q_btnh.dtype)
    mixed_bgrth = jnp.matmul(weight_bgms, v_bgsh).reshape(batch, groups, repeats, queries, size)
    return mixed_bgrth.transpose(0, 3, 1, 2, 4).reshape(q_btnh.shape)


def repeat_heads(x_bsgh: Float[Array, "B S G H"], count: int) -> Float[Array, "B S N H"]:
    """Each key/value head `count` times in a row, so that query head n reads head n."""
    return jnp.repeat(x_bsgh, count, axis=2)
