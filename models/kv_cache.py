"""Keys and values of the tokens read so far, stacked over layers. Slot index == position, in every row."""

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from models.config import LlamaConfig
from models.sharding import activation_sharding, head_axis


@flax.struct.dataclass
class KVCache:
    """Keys (already rotated) and values [L, B, S, G, H]: slot s of a row holds its token at position s.

    Rows may have been filled to different lengths. Slots at or beyond a row's next position hold zeros or leftovers of
    padding: a query at position p sees slots 0..p only, and slot p is written before it is seen.
    """

    k_lbsgh: jax.Array
    v_lbsgh: jax.Array

    @property
    def length(self) -> int:
        """Number of slots a row."""
        return self.k_lbsgh.shape[2]


def cache_sharding(config: LlamaConfig, batch: int, length: int, mesh: Mesh) -> NamedSharding:
    """Sharding of both arrays of a cache: rows over "data", key/value heads over "tensor" where they divide.

    Raises ModelError where the rows do not divide over "data".
    """
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_size)
    return activation_sharding(mesh, shape, None, "batch", None, head_axis(config, mesh).kv, None)


def init_cache(config: LlamaConfig, batch: int, length: int, mesh: Mesh, dtype: DTypeLike = jnp.float32) -> KVCache:
    """Make an empty cache of `length` slots for `batch` rows, on the devices that hold it.

    Raises ModelError where the rows do not divide over "data".
    """
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_size)
    sharding = cache_sharding(config, batch, length, mesh)

    def empty() -> jax.Array:
        # Outside jit `device` makes the array in place; inside, where it is ignored, the constraint does.
        return jax.lax.with_sharding_constraint(jnp.zeros(shape, dtype, device=sharding), sharding)

    return KVCache(empty(), empty())


def write(
    cache_lbsgh: Float[Array, "L B S G H"],
    new_btgh: Float[Array, "B T G H"],
    layer: Int[Array, ""],
    positions_bt: Int[Array, "B T"],
) -> Float[Array, "L B S G H"]:
    """Write `new` into slots `positions_bt` of one layer; positions outside 0..S-1 are dropped.

    The whole stack is updated in place (it is the carry of the scan over layers), so a decode step moves only the new
    keys and values. Rows are a batching dimension of the scatter: no row, and no device, needs another's.
    """
    index_bt2 = jnp.stack([jnp.broadcast_to(layer, positions_bt.shape), positions_bt], axis=-1)
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(2, 3),
        inserted_window_dims=(0, 2),
        scatter_dims_to_operand_dims=(0, 2),
        operand_batching_dims=(1,),
        scatter_indices_batching_dims=(0,),
    )
    new_btgh = new_btgh.astype(cache_lbsgh.dtype)
    return jax.lax.scatter(cache_lbsgh, index_bt2, new_btgh, dimensions, mode=jax.lax.GatherScatterMode.FILL_OR_DROP)
