"""The two passes of `models.block_attention` as kernels for TPUs (Pallas): a step of the grid computes one block.

The grid goes through the list of blocks that are seen and no others: which block of queries and of keys a step reads is
looked up in the list before it begins, so that the next one is fetched meanwhile. Scores stand as [keys, queries], so
that what softmax keeps of a query is a row of lanes, and all products are plain ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from models.seen_blocks import BLOCK, MASK_VALUE, Blocks

_product = functools.partial(jnp.dot, preferred_element_type=jnp.float32)


def forward(
    q_bqgmh: Float[Array, "B Q G M H"],
    k_bkgch: Float[Array, "B K G C H"],
    v_bkgch: Float[Array, "B K G C H"],
    blocks: Blocks,
    interpret: bool,
) -> tuple[Float[Array, "B Q G M H"], Float[Array, "B Q G M"]]:
    """Compute what attention gives, and the log-sum-exp of each query's scores. interpret: on a CPU."""
    rows, queries, groups, heads, size = q_bqgmh.shape
    (mixed_bqghm, logsumexp_bqg1m) = _run(
        _forward_step,
        blocks,
        by_key=False,
        arrays=[(_turn(q_bqgmh), "query"), (k_bkgch, "key"), (_turn(v_bkgch), "key")],
        outputs=[((size, heads), q_bqgmh.dtype), ((1, heads), jnp.float32)],
        scratch=[(size, heads), (1, heads), (1, heads)],
        grid=(rows, groups, queries),
        interpret=interpret,
    )
    return _turn(mixed_bqghm), logsumexp_bqg1m[:, :, :, 0]


def backward(
    q_bqgmh: Float[Array, "B Q G M H"],
    k_bkgch: Float[Array, "B K G C H"],
    v_bkgch: Float[Array, "B K G C H"],
    blocks: Blocks,
    logsumexp_bqgm: Float[Array, "B Q G M"],
    own_bqgm: Float[Array, "B Q G M"],
    grad_bqgmh: Float[Array, "B Q G M H"],
    interpret: bool,
) -> tuple[Array, Array, Array]:
    """Compute the gradients of q, k and v in float32. own: the sum of the gradient times what attention gave."""
    rows, queries, groups, heads, size = q_bqgmh.shape
    keys, block = k_bkgch.shape[1], k_bkgch.shape[3]
    saved = [(logsumexp_bqgm[:, :, :, None], "query"), (own_bqgm[:, :, :, None], "query")]
    q_bqghm, grad_bqghm = _turn(q_bqgmh), _turn(grad_bqgmh)
    both = [(q_bqghm, "query"), (k_bkgch, "key"), (grad_bqghm, "query"), (v_bkgch, "key"), *saved]
    (q_grad,) = _run(
        _query_step,
        blocks,
        by_key=False,
        arrays=[*both, (_turn(k_bkgch), "key")],
        outputs=[((size, heads), jnp.float32)],
        scratch=[(size, heads)],
        grid=(rows, groups, queries),
        interpret=interpret,
    )
    k_grad, v_grad = _run(
        _key_step,
        blocks,
        by_key=True,
        arrays=[*both, (q_bqgmh, "query"), (grad_bqgmh, "query")],
        outputs=[((block, size), jnp.float32)] * 2,
        scratch=[(block, size)] * 2,
        grid=(rows, groups, keys),
        interpret=interpret,
    )
    return _turn(q_grad), k_grad, v_grad


def _turn(x: Array) -> Array:
    return x.swapaxes(-1, -2)


def _run(
    step: Callable[..., None],
    blocks: Blocks,
    by_key: bool,
    arrays: Sequence[tuple[Array, str]],
    outputs: Sequence[tuple[tuple[int, int], Any]],
    scratch: Sequence[tuple[int, int]],
    grid: tuple[int, int, int],
    interpret: bool,
) -> Sequence[Array]:
    """Run the step for each group and seen block; one result for each block of queries, or of keys.

    arrays: [B, Q or K, G, ., .], and which of the two. grid: rows, groups, and blocks that have results. A block that
    no item belongs to has zeros.
    """
    rows, groups, results = grid
    place_i = blocks.key_i if by_key else blocks.query_i
    order_i = jnp.arange(place_i.size)
    seen_br = jnp.zeros((rows, results), bool)
    seen_br = seen_br.at[blocks.row_i, place_i].max(order_i < blocks.count)
    if by_key:  # items of one block of keys one behind another; those that are none stay behind
        order_i = jnp.argsort(jnp.where(order_i < blocks.count, blocks.row_i * results + place_i, rows * results))
    items = [x[order_i] for x in (blocks.row_i, blocks.query_i, blocks.key_i)]
    repeats = arrays[0][0].shape[-1] // BLOCK
    slot_q1m = jnp.tile(blocks.slot_q.reshape(-1, 1, BLOCK), (1, 1, repeats))
    end_bkc1 = blocks.end_bs.reshape(rows, -1, BLOCK, 1)

    def spec(shape: tuple[int, ...], side: str) -> pl.BlockSpec:
        def index(g: Any, i: Any, row_i: Any, query_i: Any, key_i: Any) -> tuple[Any, ...]:
            return row_i[i], (query_i if side == "query" else key_i)[i], g, 0, 0

        return pl.BlockSpec((None, None, None, *shape), index)

    slots = pl.BlockSpec((None, 1, slot_q1m.shape[-1]), lambda g, i, row_i, query_i, key_i: (query_i[i], 0, 0))
    ends = pl.BlockSpec((None, None, BLOCK, 1), lambda g, i, row_i, query_i, key_i: (row_i[i], key_i[i], 0, 0))
    found = pl.pallas_call(
        step,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(groups, blocks.count),
            in_specs=[slots, ends, *(spec(x.shape[-2:], side) for x, side in arrays)],
            out_specs=[spec(shape, "key" if by_key else "query") for shape, _ in outputs],
            scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        ),
        out_shape=[jax.ShapeDtypeStruct((rows, results, groups, *shape), dtype) for shape, dtype in outputs],
        interpret=interpret,
    )(*items, slot_q1m, end_bkc1, *(x for x, _ in arrays))
    return [jnp.where(seen_br[:, :, None, None, None], x, jnp.zeros((), x.dtype)) for x in found]


def _ends(row_ref: Any, place_ref: Any) -> tuple[Array, Array]:
    """Whether this item is the first and the last one of its result."""
    item, count = pl.program_id(1), pl.num_programs(1)

    def differs(other: Array) -> Array:
        return (row_ref[other] != row_ref[item]) | (place_ref[other] != place_ref[item])

    first = (item == 0) | differs(jnp.maximum(item - 1, 0))
    return first, (item == count - 1) | differs(jnp.minimum(item + 1, count - 1))


def _scores(q_hm: Array, k_ch: Array, slots_ref: Any, ends_ref: Any, key: Array) -> Array:
    """Scores [C, M], MASK_VALUE where a query does not see the slot."""
    score_cm = _product(k_ch, q_hm) * q_hm.shape[0] ** -0.5
    slot_cm = key * BLOCK + jax.lax.broadcasted_iota(jnp.int32, score_cm.shape, 0)
    query_cm = jnp.broadcast_to(slots_ref[...], score_cm.shape)
    end_cm = jnp.broadcast_to(ends_ref[...], score_cm.shape)
    return jnp.where((slot_cm <= query_cm) & (query_cm < end_cm), score_cm, MASK_VALUE)


def _forward_step(
    row_ref: Any, query_ref: Any, key_ref: Any, slots_ref: Any, ends_ref: Any, q_ref: Any, k_ref: Any, v_ref: Any,
    mixed_ref: Any, logsumexp_ref: Any, sum_ref: Any, total_ref: Any, most_ref: Any,
) -> None:  # fmt: skip
    first, last = _ends(row_ref, query_ref)

    @pl.when(first)
    def begin() -> None:
        sum_ref[...], total_ref[...] = jnp.zeros_like(sum_ref), jnp.zeros_like(total_ref)
        most_ref[...] = jnp.full_like(most_ref, MASK_VALUE)

    score_cm = _scores(q_ref[...], k_ref[...], slots_ref, ends_ref, key_ref[pl.program_id(1)])
    most_1m = most_ref[...]
    new_1m = jnp.maximum(most_1m, score_cm.max(0, keepdims=True))
    weight_cm, shrink_1m = jnp.exp(score_cm - new_1m), jnp.exp(most_1m - new_1m)
    sum_ref[...] = sum_ref[...] * shrink_1m + _product(v_ref[...], weight_cm.astype(v_ref.dtype))
    total_ref[...] = total_ref[...] * shrink_1m + weight_cm.sum(0, keepdims=True)
    most_ref[...] = new_1m

    @pl.when(last)
    def finish() -> None:
        total_1m = jnp.maximum(total_ref[...], 1e-30)
        mixed_ref[...] = (sum_ref[...] / total_1m).astype(mixed_ref.dtype)
        logsumexp_ref[...] = most_ref[...] + jnp.log(total_1m)


def _weights_and_gradients(
    q_ref: Any, k_ref: Any, grad_ref: Any, v_ref: Any, logsumexp_ref: Any, own_ref: Any, slots_ref: Any, ends_ref: Any,
    key: Array,
) -> tuple[Array, Array]:  # fmt: skip
    """Weights [C, M], and the gradient of the scores: weight (v . grad - own), as in arXiv:2205.14135, appendix B."""
    weight_cm = jnp.exp(_scores(q_ref[...], k_ref[...], slots_ref, ends_ref, key) - logsumexp_ref[...])
    weight_grad_cm = _product(v_ref[...], grad_ref[...])
    return weight_cm, weight_cm * (weight_grad_cm - own_ref[...]) * q_ref.shape[0] ** -0.5


def _query_step(
    row_ref: Any, query_ref: Any, key_ref: Any, slots_ref: Any, ends_ref: Any, q_ref: Any, k_ref: Any, grad_ref: Any,
    v_ref: Any, logsumexp_ref: Any, own_ref: Any, k_turned_ref: Any, q_grad_ref: Any, sum_ref: Any,
) -> None:  # fmt: skip
    first, last = _ends(row_ref, query_ref)

    @pl.when(first)
    def begin() -> None:
        sum_ref[...] = jnp.zeros_like(sum_ref)

    _, score_grad_cm = _weights_and_gradients(
        q_ref, k_ref, grad_ref, v_ref, logsumexp_ref, own_ref, slots_ref, ends_ref, key_ref[pl.program_id(1)]
    )
    sum_ref[...] += _product(k_turned_ref[...], score_grad_cm.astype(k_turned_ref.dtype))

    @pl.when(last)
    def finish() -> None:
        q_grad_ref[...] = sum_ref[...]


def _key_step(
    row_ref: Any, query_ref: Any, key_ref: Any, slots_ref: Any, ends_ref: Any, q_ref: Any, k_ref: Any, grad_ref: Any,
    v_ref: Any, logsumexp_ref: Any, own_ref: Any, q_turned_ref: Any, grad_turned_ref: Any, k_grad_ref: Any,
    v_grad_ref: Any, k_sum_ref: Any, v_sum_ref: Any,
) -> None:  # fmt: skip
    first, last = _ends(row_ref, key_ref)

    @pl.when(first)
    def begin() -> None:
        k_sum_ref[...], v_sum_ref[...] = jnp.zeros_like(k_sum_ref), jnp.zeros_like(v_sum_ref)

    weight_cm, score_grad_cm = _weights_and_gradients(
        q_ref, k_ref, grad_ref, v_ref, logsumexp_ref, own_ref, slots_ref, ends_ref, key_ref[pl.program_id(1)]
    )
    k_sum_ref[...] += _product(score_grad_cm.astype(q_turned_ref.dtype), q_turned_ref[...])
    v_sum_ref[...] += _product(weight_cm.astype(grad_turned_ref.dtype), grad_turned_ref[...])

    @pl.when(last)
    def finish() -> None:
        k_grad_ref[...], v_grad_ref[...] = k_sum_ref[...], v_sum_ref[...]
