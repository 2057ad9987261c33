"""Attention of one new token a row over the blocks of a cache, as kernels for NVIDIA GPUs and for TPUs (Pallas).

They read the blocks of a row once, from where they lie, with a running softmax (arXiv:1805.02867). No block is
gathered, written or read that the row does not hold, so that a step costs what is alive.

GPU (Triton)  a kernel for each row, key/value head and share of the row's blocks; what the shares give is joined at the
              end (flash decoding, arXiv:2311.01282)
TPU           a step for each block that a row holds, all key/value heads together; the next block is fetched meanwhile
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as plgpu
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from models.seen_blocks import MASK_VALUE

KERNELS = 512  # at once, a few for each of an H100's 132 multiprocessors: few rows are read in several shares
MOST_SHARES = 16
LOG2_E = math.log2(math.e)
Platform = Literal["gpu", "tpu"]
LANES = 128  # of a TPU
LEAST = 16  # rows, columns and inner size of a product on a tensor core


def kernel_for(mesh: Mesh, tokens: int, size: int, block: int) -> Platform | None:
    """Say whose kernel computes calls of `tokens` tokens a row, heads of that size and blocks of that many tokens."""
    platform = mesh.devices.flat[0].platform
    powers = all(number >= LEAST and number & (number - 1) == 0 for number in (size, block))
    if tokens == 1 and platform == "gpu" and powers:
        return "gpu"
    return "tpu" if tokens == 1 and platform == "tpu" and block % LANES == 0 else None


def paged_attention(
    platform: Platform,
    q_bgrh: Float[Array, "B N R H"],
    keys_pghc: Float[Array, "P G H C"],
    values_pgch: Float[Array, "P G C H"],
    head_n: Int[Array, " N"] | None,
    table_bj: Int[Array, "B J"],
    length_b: Int[Array, " B"],
    interpret: bool = False,
) -> Float[Array, "B N R H"]:
    """Average the values of each row's first `length` slots, with weights softmax(q k), in float32.

    q: already scaled; its R heads at n read key/value head head[n], or n where that is None. table: the blocks of a row
    in their order, of C slots each; a row of length 0 gives zeros. interpret: compute on a CPU what the kernel would.
    """
    heads_n = jnp.arange(keys_pghc.shape[1]) if head_n is None else head_n
    run = _in_shares if platform == "gpu" else _block_by_block
    return run(q_bgrh, keys_pghc, values_pgch, heads_n.astype(jnp.int32), table_bj, length_b, interpret)


def _in_shares(
    q_bgrh: Array, keys_pghc: Array, values_pgch: Array, head_n: Array, table_bj: Array, length_b: Array,
    interpret: bool,
) -> Array:  # fmt: skip
    (rows, groups, *head), room = q_bgrh.shape, table_bj.shape[1]
    shares = min(MOST_SHARES, room, max(1, KERNELS // (rows * groups)))
    grid = (rows, groups, shares)

    def whole(*shape: int) -> pl.BlockSpec:
        return pl.BlockSpec(shape, lambda b, g, s: (0,) * len(shape))

    def out(*shape: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, None, None, *shape), lambda b, g, s: (b, g, s) + (0,) * len(shape))

    sum_bgsrh, total_bgsr, most_bgsr = pl.pallas_call(
        functools.partial(_read_share, shares=shares),
        grid=grid,
        in_specs=[
            pl.BlockSpec((None, None, *head), lambda b, g, s: (b, g, 0, 0)),
            whole(*keys_pghc.shape),
            whole(*values_pgch.shape),
            pl.BlockSpec((1,), lambda b, g, s: (g,)),
            pl.BlockSpec((None, room), lambda b, g, s: (b, 0)),
            pl.BlockSpec((1,), lambda b, g, s: (b,)),
        ],
        out_specs=[out(*head), out(head[0]), out(head[0])],
        out_shape=[jax.ShapeDtypeStruct((*grid, *shape), jnp.float32) for shape in (head, head[:1], head[:1])],
        compiler_params=None if interpret else plgpu.CompilerParams(num_warps=4, num_stages=3),
        interpret=interpret,
        name="paged_attention",
    )(q_bgrh, keys_pghc, values_pgch, head_n, table_bj, length_b)
    shrink_bgsr = jnp.exp(most_bgsr - most_bgsr.max(2, keepdims=True))
    total_bgr = (total_bgsr * shrink_bgsr).sum(2)
    return (sum_bgsrh * shrink_bgsr[..., None]).sum(2) / jnp.maximum(total_bgr, 1e-30)[..., None]


def _read_share(
    q_ref: Any,  # [R, H]
    keys_ref: Any,  # [P, G, H, C]
    values_ref: Any,  # [P, G, C, H]
    head_ref: Any,  # [1]
    table_ref: Any,  # [J]
    length_ref: Any,  # [1]
    sum_ref: Any,  # [R, H]
    total_ref: Any,  # [R]
    most_ref: Any,  # [R]
    shares: int,
) -> None:
    """Read the blocks of one share: what softmax adds up, the sum of its weights and its largest score."""
    # A tensor core wants 16 rows and more: the last one is computed several times, and written as often.
    repeats, size_c = q_ref.shape[0], keys_ref.shape[3]
    row_m = jnp.minimum(jnp.arange(max(LEAST, 1 << (repeats - 1).bit_length())), repeats - 1)
    q_mh, head, length = q_ref[row_m], head_ref[0], length_ref[0]
    blocks = pl.cdiv(length, size_c)
    each = pl.cdiv(blocks, shares)
    first = pl.program_id(2) * each
    dot = functools.partial(jnp.dot, preferred_element_type=jnp.float32, precision=jax.lax.Precision.HIGHEST)

    def one_block(j: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        sum_mh, total_m, most_m = carry
        block = table_ref[j]
        k_hc, v_ch = keys_ref[block, head].astype(q_mh.dtype), values_ref[block, head].astype(q_mh.dtype)
        slot_c = j * size_c + jnp.arange(size_c)
        score_mc = jnp.where((slot_c < length)[None, :], dot(q_mh, k_hc), MASK_VALUE)
        new_m = jnp.maximum(most_m, score_mc.max(1))
        weight_mc = jnp.exp2((score_mc - new_m[:, None]) * LOG2_E)
        shrink_m = jnp.exp2((most_m - new_m) * LOG2_E)
        mixed_mh = dot(weight_mc.astype(q_mh.dtype), v_ch)
        return sum_mh * shrink_m[:, None] + mixed_mh, total_m * shrink_m + weight_mc.sum(1), new_m

    start = (
        jnp.zeros(q_mh.shape, jnp.float32),
        jnp.zeros(row_m.shape, jnp.float32),
        jnp.full(row_m.shape, MASK_VALUE, jnp.float32),
    )
    sum_mh, total_m, most_m = jax.lax.fori_loop(first, jnp.minimum(first + each, blocks), one_block, start)
    sum_ref[row_m], total_ref[row_m], most_ref[row_m] = sum_mh, total_m, most_m


def _block_by_block(
    q_bgrh: Array, keys_pghc: Array, values_pgch: Array, head_n: Array, table_bj: Array, length_b: Array,
    interpret: bool,
) -> Array:  # fmt: skip
    rows, groups, repeats, size = q_bgrh.shape
    held, block, room = keys_pghc.shape[1], keys_pghc.shape[-1], table_bj.shape[1]
    padded = -(-repeats // LEAST) * LEAST
    q_bgmh = jnp.pad(q_bgrh, ((0, 0), (0, 0), (0, padded - repeats), (0, 0)))
    held_bj = jnp.arange(room) * block < length_b[:, None]
    (item_i,) = jnp.nonzero(held_bj.reshape(-1), size=rows * room, fill_value=0)
    row_i, place_i = (item_i // room).astype(jnp.int32), (item_i % room).astype(jnp.int32)

    def of_row(i: Any, row_i: Any, place_i: Any, block_i: Any, length_b: Any, head_n: Any) -> tuple[Any, ...]:
        return row_i[i], 0, 0, 0

    def of_block(i: Any, row_i: Any, place_i: Any, block_i: Any, length_b: Any, head_n: Any) -> tuple[Any, ...]:
        return block_i[i], 0, 0, 0

    mixed_bgmh = pl.pallas_call(
        _read_block,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=5,
            grid=(held_bj.sum(),),
            in_specs=[
                pl.BlockSpec((None, groups, padded, size), of_row),
                pl.BlockSpec((None, held, size, block), of_block),
                pl.BlockSpec((None, held, block, size), of_block),
            ],
            out_specs=pl.BlockSpec((None, groups, padded, size), of_row),
            scratch_shapes=[
                pltpu.VMEM(shape, jnp.float32)
                for shape in ((groups, padded, size), (groups, padded, 1), (groups, padded, 1))
            ],
        ),
        out_shape=jax.ShapeDtypeStruct((rows, groups, padded, size), jnp.float32),
        interpret=interpret,
        name="paged_attention",
    )(row_i, place_i, table_bj[row_i, place_i], length_b, head_n, q_bgmh, keys_pghc, values_pgch)
    return jnp.where(length_b[:, None, None, None] > 0, mixed_bgmh[:, :, :repeats], 0.0)


def _read_block(
    row_ref: Any,  # [items], as the next two; of these a row's stand together
    place_ref: Any,
    block_ref: Any,
    length_ref: Any,  # [B]
    head_ref: Any,  # [N]
    q_ref: Any,  # [N, M, H]
    keys_ref: Any,  # [G, H, C]
    values_ref: Any,  # [G, C, H]
    mixed_ref: Any,  # [N, M, H]
    sum_ref: Any,  # [N, M, H]
    total_ref: Any,  # [N, M, 1]
    most_ref: Any,  # [N, M, 1]
) -> None:
    """Read one block of a row."""
    item, size_c = pl.program_id(0), keys_ref.shape[2]
    place, length = place_ref[item], length_ref[row_ref[item]]
    dot = functools.partial(jnp.dot, preferred_element_type=jnp.float32)

    @pl.when(place == 0)
    def begin() -> None:
        sum_ref[...], total_ref[...] = jnp.zeros_like(sum_ref), jnp.zeros_like(total_ref)
        most_ref[...] = jnp.full_like(most_ref, MASK_VALUE)

    for n in range(q_ref.shape[0]):
        q_mh, head = q_ref[n], head_ref[n]
        score_mc = dot(q_mh, keys_ref[head].astype(q_mh.dtype))
        slot_mc = place * size_c + jax.lax.broadcasted_iota(jnp.int32, score_mc.shape, 1)
        score_mc = jnp.where(slot_mc < length, score_mc, MASK_VALUE)
        most_m1 = most_ref[n]
        new_m1 = jnp.maximum(most_m1, score_mc.max(1, keepdims=True))
        weight_mc, shrink_m1 = jnp.exp(score_mc - new_m1), jnp.exp(most_m1 - new_m1)
        sum_ref[n] = sum_ref[n] * shrink_m1 + dot(weight_mc.astype(q_mh.dtype), values_ref[head].astype(q_mh.dtype))
        total_ref[n] = total_ref[n] * shrink_m1 + weight_mc.sum(1, keepdims=True)
        most_ref[n] = new_m1

    @pl.when((place + 1) * size_c >= length)
    def finish() -> None:
        mixed_ref[...] = sum_ref[...] / total_ref[...]
