"""Attention block by block: no array of all scores, and no work for blocks that no query sees.

The plain XLA form of flash attention (arXiv:2205.14135, 2307.08691). Forward keeps a running maximum and sum of the
softmax, backward computes the weights again from their log-sum-exp. Both go through the list of blocks that are seen,
so that memory is linear in the length of a row, and the cost of a row that is a tree follows what its tokens see. Trees
on a TPU go through kernels (`models.block_kernels`), all else through loops.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from models import block_kernels
from models.seen_blocks import BLOCK, MASK_VALUE, Blocks, list_blocks

SAVED_ATTENTION = "attention"  # what a remat policy may keep: the output of attention, and its log-sum-exp
Form = Literal["loop", "kernel", "interpreted"]


def block_attention(
    q_btnh: Float[Array, "B T N H"],
    k_bsgh: Float[Array, "B S G H"],
    v_bsgh: Float[Array, "B S G H"],
    slot_q: Int[Array, " T"],
    end_bs: Int[Array, "B S"] | None,
    form: Form = "loop",
) -> Float[Array, "B T N H"]:
    """Compute `models.attention.attend` where the query at slot t sees slots s <= t, of these those with t < end[s].

    slot_q: the slot of each query, the same in every row. end_bs: None where all ends are behind. form: a loop of plain
    XLA, the kernels for TPUs, or these interpreted on a CPU. Scores, softmax and sums are float32.
    """
    (rows, queries, heads, size), slots = q_btnh.shape, k_bsgh.shape[1]
    groups = k_bsgh.shape[2]
    if end_bs is None:
        end_bs = jnp.full((rows, slots), jnp.iinfo(jnp.int32).max, jnp.int32)
    slot_q = jnp.pad(slot_q, (0, -queries % BLOCK), mode="edge")
    end_bs = jnp.pad(end_bs, [(0, 0), (0, -slots % BLOCK)])  # no query sees the padding

    def in_blocks(x_btnh: jax.Array) -> jax.Array:
        """[B, T, N, H] -> [B, Q, G, R C, H]: the query heads of a key/value head are rows of one product with it."""
        x_btnh = jnp.pad(x_btnh, [(0, 0), (0, -x_btnh.shape[1] % BLOCK), (0, 0), (0, 0)])
        x_bqcgrh = x_btnh.reshape(rows, -1, BLOCK, groups, x_btnh.shape[2] // groups, size)
        return x_bqcgrh.transpose(0, 1, 3, 4, 2, 5).reshape(rows, -1, groups, x_bqcgrh.shape[4] * BLOCK, size)

    q, k, v = (in_blocks(x.astype(q_btnh.dtype)) for x in (q_btnh, k_bsgh, v_bsgh))
    mixed_bqgmh = _attention(form, q, k, v, list_blocks(slot_q, end_bs))
    mixed_bqgrch = mixed_bqgmh.reshape(rows, -1, groups, heads // groups, BLOCK, size)
    return mixed_bqgrch.transpose(0, 1, 4, 2, 3, 5).reshape(rows, -1, heads, size)[:, :queries]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(form: Form, q_bqgmh: Array, k_bkgch: Array, v_bkgch: Array, blocks: Blocks) -> Array:
    return _forward(form, q_bqgmh, k_bkgch, v_bkgch, blocks)[0]


def _save(form: Form, q_bqgmh: Array, k_bkgch: Array, v_bkgch: Array, blocks: Blocks) -> tuple[Array, tuple[Any, ...]]:
    mixed_bqgmh, logsumexp_bqgm = _forward(form, q_bqgmh, k_bkgch, v_bkgch, blocks)
    mixed_bqgmh, logsumexp_bqgm = (checkpoint_name(x, SAVED_ATTENTION) for x in (mixed_bqgmh, logsumexp_bqgm))
    return mixed_bqgmh, (q_bqgmh, k_bkgch, v_bkgch, blocks, mixed_bqgmh, logsumexp_bqgm)


def _scores(q_gmh: Array, k_gch: Array, blocks: Blocks, item: Array) -> Array:
    """Scores [G, R C, C] of an item, MASK_VALUE where a query does not see the slot."""
    row, query, key = blocks.row_i[item], blocks.query_i[item], blocks.key_i[item]
    slot_c = jax.lax.dynamic_slice_in_dim(blocks.slot_q, query * BLOCK, BLOCK)[:, None]
    end_c = jax.lax.dynamic_slice(blocks.end_bs, (row, key * BLOCK), (1, BLOCK))
    sees_cc = (key * BLOCK + jnp.arange(BLOCK) <= slot_c) & (slot_c < end_c)
    score_gmc = _product("gmh,gch->gmc", q_gmh, k_gch) * q_gmh.shape[-1] ** -0.5
    score_grcc = score_gmc.reshape(q_gmh.shape[0], -1, BLOCK, BLOCK)
    return jnp.where(sees_cc, score_grcc, MASK_VALUE).reshape(score_gmc.shape)


def _forward(form: Form, q_bqgmh: Array, k_bkgch: Array, v_bkgch: Array, blocks: Blocks) -> tuple[Array, Array]:
    """Compute what attention gives, and the log-sum-exp of each query's scores [B, Q, G, R C]."""
    if form != "loop":
        return block_kernels.forward(q_bqgmh, k_bkgch, v_bkgch, blocks, form == "interpreted")

    def one(item: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        here, there = (blocks.row_i[item], blocks.query_i[item]), (blocks.row_i[item], blocks.key_i[item])
        sum_gmh, total_gm, most_gm = (x[here] for x in carry)
        score_gmc = _scores(q_bqgmh[here], k_bkgch[there], blocks, item)
        new_gm = jnp.maximum(most_gm, score_gmc.max(-1))
        weight_gmc, shrink_gm = jnp.exp(score_gmc - new_gm[..., None]), jnp.exp(most_gm - new_gm)
        mixed_gmh = _product("gmc,gch->gmh", weight_gmc.astype(v_bkgch.dtype), v_bkgch[there])
        new = sum_gmh * shrink_gm[..., None] + mixed_gmh, total_gm * shrink_gm + weight_gmc.sum(-1), new_gm
        return tuple(x.at[here].set(y) for x, y in zip(carry, new, strict=True))

    shape = q_bqgmh.shape
    start = jnp.zeros(shape), jnp.zeros(shape[:-1]), jnp.full(shape[:-1], MASK_VALUE)
    sum_bqgmh, total_bqgm, most_bqgm = jax.lax.fori_loop(0, blocks.count, one, start)
    total_bqgm = jnp.maximum(total_bqgm, 1e-30)  # padding may have seen nothing
    return (sum_bqgmh / total_bqgm[..., None]).astype(q_bqgmh.dtype), most_bqgm + jnp.log(total_bqgm)


def _backward(form: Form, saved: tuple[Any, ...], grad_bqgmh: Array) -> tuple[Any, ...]:
    """Gradients of `_attention`: d score = weight (d mixed v - d mixed mixed), as in arXiv:2205.14135, appendix B."""
    q_bqgmh, k_bkgch, v_bkgch, blocks, mixed_bqgmh, logsumexp_bqgm = saved
    scale = q_bqgmh.shape[-1] ** -0.5
    own_bqgm = (grad_bqgmh.astype(jnp.float32) * mixed_bqgmh.astype(jnp.float32)).sum(-1)
    inputs = q_bqgmh, k_bkgch, v_bkgch
    if form != "loop":
        found = block_kernels.backward(*inputs, blocks, logsumexp_bqgm, own_bqgm, grad_bqgmh, form == "interpreted")
        return *(x.astype(y.dtype) for x, y in zip(found, inputs, strict=True)), None

    def one(item: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        here, there = (blocks.row_i[item], blocks.query_i[item]), (blocks.row_i[item], blocks.key_i[item])
        q_gmh, k_gch, v_gch, grad_gmh = q_bqgmh[here], k_bkgch[there], v_bkgch[there], grad_bqgmh[here]
        weight_gmc = jnp.exp(_scores(q_gmh, k_gch, blocks, item) - logsumexp_bqgm[here][..., None])
        weight_grad_gmc = _product("gmh,gch->gmc", grad_gmh, v_gch)
        score_grad_gmc = (weight_gmc * (weight_grad_gmc - own_bqgm[here][..., None]) * scale).astype(q_gmh.dtype)
        q_grad, k_grad, v_grad = carry
        return (
            q_grad.at[here].add(_product("gmc,gch->gmh", score_grad_gmc, k_gch)),
            k_grad.at[there].add(_product("gmc,gmh->gch", score_grad_gmc, q_gmh)),
            v_grad.at[there].add(_product("gmc,gmh->gch", weight_gmc.astype(grad_gmh.dtype), grad_gmh)),
        )

    found = jax.lax.fori_loop(0, blocks.count, one, tuple(jnp.zeros(x.shape) for x in inputs))
    return *(x.astype(y.dtype) for x, y in zip(found, inputs, strict=True)), None


_attention.defvjp(_save, _backward)
_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
