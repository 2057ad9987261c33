"""Attention of new tokens over the blocks of a cache: its cost follows the tokens that a row holds, not its room.

Rows are sorted by length into groups, and each group is read block by block up to the last that one of its rows holds;
the softmax is kept as a running maximum and sum (arXiv:1805.02867), so that no scores of a whole row exist. Blocks
beyond a row's own leave its result as it is, to the bit: it does not depend on the rows beside it. On GPUs and
TPUs one new token a row is computed by a kernel (`models.paged_attention`).
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Shaped

from models.attention import MASK_VALUE
from models.config import LlamaConfig
from models.kv_cache import KVCache, block_spec, from_held, to_held
from models.paged_attention import Platform, kernel_for, paged_attention
from models.sharding import activation_sharding, head_axis

GROUP = 8  # rows that are read together
GROUP_TOKENS = 64  # and new tokens of them


@flax.struct.dataclass
class Reading:
    """What the tokens of a call read, the same for every layer; all arrays are split over "data".

    table_bj: the cache's. position_bt: of the tokens; at or beyond J C they are padding. order_b: rows on their device,
    shortest first. ends_g: blocks that the groups up to g read, W rows each.
    """

    table_bj: Any
    position_bt: Any
    order_b: Any
    ends_g: Any


def plan_reading(cache: KVCache, position_bt: Int[Array, "B T"], mesh: Mesh) -> Reading:
    """Plan what the tokens at these positions read of a cache."""
    block = cache.keys[0].shape[-1]
    rows = PartitionSpec("data")

    def plan(table_bj: jax.Array, position_bt: jax.Array) -> tuple[jax.Array, jax.Array]:
        length_b = jnp.where(position_bt < table_bj.shape[1] * block, position_bt + 1, 0).max(1)
        order_b = jnp.argsort(length_b)
        longest_g = length_b[order_b].reshape(-1, group_size(*position_bt.shape)).max(1)
        return order_b, jnp.cumsum(-(-longest_g // block))

    local = jax.shard_map(plan, mesh=mesh, in_specs=(rows, rows), out_specs=(rows, rows), check_vma=False)
    return Reading(cache.table_bj, position_bt, *local(cache.table_bj, position_bt))


def group_size(rows: int, tokens: int) -> int:
    """Rows of a device that are read together: a divisor of their number."""
    most = max(1, min(GROUP, GROUP_TOKENS // tokens))
    return next(size for size in range(min(most, rows), 0, -1) if rows % size == 0)


def cached_attention(
    q_btnh: Float[Array, "B T N H"],
    k_btgh: Float[Array, "B T G H"],
    v_btgh: Float[Array, "B T G H"],
    keys_pghc: Shaped[Array, "P G H C"],
    values_pgch: Shaped[Array, "P G C H"],
    reading: Reading,
    config: LlamaConfig,
    mesh: Mesh,
) -> tuple[Float[Array, "B T N H"], Shaped[Array, "P G H C"], Shaped[Array, "P G C H"]]:
    """Write the tokens' keys and values to their rows' blocks, then average what each token sees, itself included.

    Returns the averages (as `models.attention.attend`: float32 scores, dtype of `q`), and the blocks. Padding writes
    nothing; what it sees is finite and means nothing.
    """
    axes, rows = head_axis(config, mesh), PartitionSpec("data")
    query = activation_sharding(mesh, q_btnh.shape, "batch", None, axes.query, None).spec
    new = activation_sharding(mesh, k_btgh.shape, "batch", None, axes.kv, None).spec
    blocks = block_spec(config, mesh)
    repeats = config.num_heads // config.num_kv_heads if axes.query is not None and axes.kv is None else 0

    def run(q: jax.Array, k: jax.Array, v: jax.Array, keys: jax.Array, values: jax.Array, reading: Reading):  # noqa: ANN202
        keys, values = _write(keys, values, k, v, reading)
        head_n = None
        if repeats:  # query heads are split and key/value heads are not
            head_n = (jax.lax.axis_index("tensor") * q.shape[2] + jnp.arange(q.shape[2])) // repeats
        if platform := kernel_for(mesh, q.shape[1], q.shape[-1], keys.shape[-1]):
            return _attend_in_kernel(platform, q, keys, values, reading, head_n, mesh), keys, values
        return _attend(q, keys, values, reading, head_n), keys, values

    specs = (query, new, new, blocks, blocks, Reading(rows, rows, rows, rows))
    local = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=(query, blocks, blocks), check_vma=False)
    return local(q_btnh, k_btgh, v_btgh, keys_pghc, values_pgch, reading)


def _write(
    keys_pghc: jax.Array, values_pgch: jax.Array, k_btgh: jax.Array, v_btgh: jax.Array, reading: Reading
) -> tuple[jax.Array, jax.Array]:
    blocks, size, room = keys_pghc.shape[0], keys_pghc.shape[-1], reading.table_bj.shape[1]
    place_bt = jnp.minimum(reading.position_bt // size, room - 1)
    block_bt = jnp.take_along_axis(reading.table_bj, place_bt, axis=1)
    block_bt = jnp.where(reading.position_bt < room * size, block_bt, blocks)  # which is not there: dropped
    slot_bt = reading.position_bt % size
    k, v = to_held(k_btgh, keys_pghc.dtype), to_held(v_btgh, values_pgch.dtype)
    return (
        keys_pghc.at[block_bt, :, :, slot_bt].set(k, mode="drop"),
        values_pgch.at[block_bt, :, slot_bt].set(v, mode="drop"),
    )


def _attend_in_kernel(
    platform: Platform,
    q_b1nh: jax.Array,
    keys_pghc: jax.Array,
    values_pgch: jax.Array,
    reading: Reading,
    head_n: jax.Array | None,
    mesh: Mesh,
) -> jax.Array:
    rows, _, heads, size = q_b1nh.shape
    groups = keys_pghc.shape[1] if head_n is None else heads
    room = reading.table_bj.shape[1] * keys_pghc.shape[-1]
    position_b = reading.position_bt[:, 0]
    mixed_bgrh = paged_attention(
        platform,
        (q_b1nh * size**-0.5).reshape(rows, groups, heads // groups, size),
        keys_pghc,
        values_pgch,
        head_n,
        reading.table_bj,
        jnp.where(position_b < room, position_b + 1, 0),
        interpret=mesh.devices.flat[0].platform == "cpu",
    )
    return mixed_bgrh.astype(q_b1nh.dtype).reshape(q_b1nh.shape)


def _attend(
    q_btnh: jax.Array, keys_pghc: jax.Array, values_pgch: jax.Array, reading: Reading, head_n: jax.Array | None
) -> jax.Array:
    (rows, tokens, heads, size), block = q_btnh.shape, keys_pghc.shape[-1]
    width = group_size(rows, tokens)
    groups = heads if head_n is not None else keys_pghc.shape[1]
    repeats = heads // groups

    def in_groups(x: jax.Array) -> jax.Array:
        return x[reading.order_b].reshape(-1, width, *x.shape[1:])

    # The query heads of a key/value head are rows of one product with it: [R T, H] x [H, C].
    q_zwtgrh = in_groups((q_btnh * size**-0.5).reshape(rows, tokens, groups, repeats, size))
    q_zwgmh = q_zwtgrh.transpose(0, 1, 3, 4, 2, 5).reshape(-1, width, groups, repeats * tokens, size)
    table_zwj, position_zwt = in_groups(reading.table_bj), in_groups(reading.position_bt)
    first_z = jnp.concatenate([jnp.zeros(1, jnp.int32), reading.ends_g[:-1]])

    def one_block(step: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        sum_zwgmh, total_zwgm, most_zwgm = carry
        z = jnp.searchsorted(reading.ends_g, step, side="right")
        j = step - first_z[z]
        block_w = table_zwj[z, :, j]
        k_wghc, v_wgch = from_held(keys_pghc[block_w]), from_held(values_pgch[block_w])
        if head_n is not None:
            k_wghc, v_wgch = k_wghc[:, head_n], v_wgch[:, head_n]
        q_wgmh = q_zwgmh[z]
        score_wgmc = jnp.matmul(q_wgmh, k_wghc.astype(q_wgmh.dtype), preferred_element_type=jnp.float32)
        sees_wtc = j * block + jnp.arange(block) <= position_zwt[z][:, :, None]
        score_wgmc = jnp.where(jnp.tile(sees_wtc[:, None], (1, 1, repeats, 1)), score_wgmc, MASK_VALUE)
        most_wgm = jnp.maximum(most_zwgm[z], score_wgmc.max(-1))
        weight_wgmc = jnp.exp(score_wgmc - most_wgm[..., None])
        shrink_wgm = jnp.exp(most_zwgm[z] - most_wgm)
        mixed_wgmh = jnp.matmul(
            weight_wgmc.astype(q_wgmh.dtype), v_wgch.astype(q_wgmh.dtype), preferred_element_type=jnp.float32
        )
        return (
            sum_zwgmh.at[z].set(sum_zwgmh[z] * shrink_wgm[..., None] + mixed_wgmh),
            total_zwgm.at[z].set(total_zwgm[z] * shrink_wgm + weight_wgmc.sum(-1)),
            most_zwgm.at[z].set(most_wgm),
        )

    shape = q_zwgmh.shape
    start = (jnp.zeros(shape), jnp.zeros(shape[:-1]), jnp.full(shape[:-1], MASK_VALUE))
    sum_zwgmh, total_zwgm, _ = jax.lax.fori_loop(0, reading.ends_g[-1], one_block, start)
    mixed_zwgmh = sum_zwgmh / jnp.maximum(total_zwgm, 1e-30)[..., None]  # an idle row has read nothing
    mixed_bgrth = mixed_zwgmh.reshape(rows, groups, repeats, tokens, size).astype(q_btnh.dtype)
    mixed_btnh = mixed_bgrth.transpose(0, 3, 1, 2, 4).reshape(q_btnh.shape)
    return jnp.zeros_like(mixed_btnh).at[reading.order_b].set(mixed_btnh)
