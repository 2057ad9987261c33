"""Which blocks of slots the queries of a block see: causal rows, and rows that are trees."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

BLOCK = 128  # tokens
MASK_VALUE = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Score of a masked slot: finite, so that a row that sees nothing yields no NaN in values or gradients."""


class Blocks(NamedTuple):
    """The blocks that are seen, queries by keys, and what a token of one sees of the other.

    row_i, query_i, key_i: int32 [B Q K]; row of the batch, block of queries, block of keys of each item; `count` come
    first. slot_q: int32 [T], the slot of each query. end_bs: int32 [B, S]; slot t sees slot s where s <= t < end[s].
    """

    row_i: Any
    query_i: Any
    key_i: Any
    count: Any
    slot_q: Any
    end_bs: Any


def list_blocks(slot_q: Int[Array, " T"], end_bs: Int[Array, "B S"]) -> Blocks:
    """List the blocks in which a query sees a slot. T and S are multiples of BLOCK."""
    rows, slots = end_bs.shape
    slot_qc = slot_q.reshape(-1, BLOCK)
    end_bk = end_bs.reshape(rows, -1, BLOCK).max(-1)
    first_k = jnp.arange(slots // BLOCK) * BLOCK
    seen_bqk = (first_k <= slot_qc.max(-1)[:, None]) & (end_bk[:, None] > slot_qc.min(-1)[:, None])
    (item_i,) = jnp.nonzero(seen_bqk.reshape(-1), size=seen_bqk.size, fill_value=0)
    row_i, query_i, key_i = jnp.unravel_index(item_i, seen_bqk.shape)
    row_i, query_i, key_i = (x.astype(jnp.int32) for x in (row_i, query_i, key_i))
    return Blocks(row_i, query_i, key_i, seen_bqk.sum(), slot_q, end_bs)
