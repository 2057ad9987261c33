"""Keys and values of the tokens read so far, in blocks that rows take as they grow (arXiv:2309.06180)."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from models.config import LlamaConfig, ModelError
from models.sharding import activation_sharding, head_axis, is_cpu_bfloat16

BLOCK = 128  # tokens


@flax.struct.dataclass
class KVCache:
    """Keys (already rotated) and values, an array a layer: laid out as the two products of attention read them.

    keys: [P, G, H, C] each, P blocks of C tokens. values: [P, G, C, H] each. table_bj: int32 [B, J], the block of
    positions j C .. j C + C - 1 of each of the B rows of a call; the P blocks lie on the devices of mesh axis "data" in
    equal parts, as rows do, and are numbered on each from 0. Rows may have a block in common, which none then writes.
    A query at position p sees what the row's blocks hold of positions 0..p, so that leftovers in a block do no harm.
    bfloat16 lies on a CPU as uint16, its bits (`to_held`, `from_held`).
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    table_bj: jax.Array


def block_spec(config: LlamaConfig, mesh: Mesh) -> PartitionSpec:
    """How the blocks of a layer are split over the mesh."""
    return PartitionSpec("data", None if head_axis(config, mesh).kv is None else "tensor")


def to_held(x: jax.Array, held: DTypeLike) -> jax.Array:
    """Turn keys or values into what a cache of dtype `held` holds."""
    return x.astype(jnp.bfloat16).view(jnp.uint16) if held == jnp.uint16 else x.astype(held)


def from_held(x: jax.Array) -> jax.Array:
    """Turn what a cache holds into keys or values."""
    return x.view(jnp.bfloat16) if x.dtype == jnp.uint16 else x


def init_blocks(
    config: LlamaConfig, blocks: int, mesh: Mesh, dtype: DTypeLike = jnp.float32, block: int = BLOCK
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Make `blocks` empty blocks of `block` tokens, on the devices that hold them: the keys and values of a KVCache.

    Raises ModelError where the blocks do not divide over "data".
    """
    if blocks % mesh.shape["data"]:
        raise ModelError(f"{blocks} blocks do not divide over mesh axis 'data' of {mesh.shape['data']}")
    groups, size = config.num_kv_heads, config.head_size
    sharding = NamedSharding(mesh, block_spec(config, mesh))
    # For a CPU, XLA scatters into bfloat16 and gathers from it by way of a float32 copy of all of it.
    held = jnp.uint16 if is_cpu_bfloat16(mesh, dtype) else dtype

    def empty(*shape: int) -> tuple[jax.Array, ...]:
        # Outside jit `device` makes the arrays in place; inside, where it is ignored, the constraint does.
        made = (jnp.zeros(shape, held, device=sharding) for _ in range(config.num_layers))
        return tuple(jax.lax.with_sharding_constraint(x, sharding) for x in made)

    return empty(blocks, groups, size, block), empty(blocks, groups, block, size)


def init_cache(
    config: LlamaConfig, batch: int, length: int, mesh: Mesh, dtype: DTypeLike = jnp.float32, block: int = BLOCK
) -> KVCache:
    """Make an empty cache in which each of `batch` rows has blocks of its own for `length` tokens or a few more.

    Raises ModelError where the rows do not divide over "data".
    """
    rows = activation_sharding(mesh, (batch, 1), "batch", None)
    each = -(-length // block)
    keys, values = init_blocks(config, batch * each, mesh, dtype, block)
    table_bj = np.arange(batch * each, dtype=np.int32).reshape(batch, each) % (batch * each // mesh.shape["data"])
    return KVCache(keys, values, jax.lax.with_sharding_constraint(jnp.asarray(table_bj), rows))
