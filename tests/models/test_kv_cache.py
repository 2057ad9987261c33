"""The cache of keys and values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from models.config import ModelError
from models.kv_cache import init_cache, write


def test_new_entries_go_to_each_rows_own_positions_in_one_layer():
    cache_lbsgh = jnp.zeros((2, 2, 4, 1, 1))
    new_btgh = jnp.array([[1.0, 2.0], [3.0, 4.0]])[:, :, None, None]
    written = write(cache_lbsgh, new_btgh, jnp.int32(1), jnp.array([[0, 1], [2, 3]]))[..., 0, 0]
    np.testing.assert_array_equal(written[0], np.zeros((2, 4)))
    np.testing.assert_array_equal(written[1], [[1, 2, 0, 0], [0, 0, 3, 4]])


def test_entries_beyond_the_last_slot_are_dropped_and_overwrite_nothing():
    cache_lbsgh = jnp.full((1, 1, 3, 1, 1), 7.0)
    written = write(cache_lbsgh, jnp.array([1.0, 2.0])[None, :, None, None], jnp.int32(0), jnp.array([[2, 3]]))
    np.testing.assert_array_equal(written[0, 0, :, 0, 0], [7, 7, 1])


def test_entries_are_kept_in_the_dtype_of_the_cache():
    written = write(jnp.zeros((1, 1, 2, 1, 1), jnp.bfloat16), jnp.ones((1, 1, 1, 1)), jnp.int32(0), jnp.array([[1]]))
    assert written.dtype == jnp.bfloat16


@pytest.mark.parametrize(("mesh", "heads"), [((4, 2), "tensor"), ((2, 4), None)])
def test_rows_are_split_over_data_and_kv_heads_over_tensor_where_they_divide(tiny, mesh_of, mesh, heads):
    cache = init_cache(tiny, batch=8, length=16, mesh=mesh_of(*mesh))
    assert cache.k_lbsgh.shape == cache.v_lbsgh.shape == (3, 8, 16, 2, 8)
    assert cache.length == 16
    assert cache.k_lbsgh.sharding.spec == cache.v_lbsgh.sharding.spec == PartitionSpec(None, "data", None, heads, None)


def test_a_cache_made_inside_jit_is_sharded_alike(tiny, mesh_of):
    mesh = mesh_of(4, 2)
    cache = jax.jit(lambda: init_cache(tiny, 8, 16, mesh))()
    assert cache.v_lbsgh.sharding.is_equivalent_to(init_cache(tiny, 8, 16, mesh).v_lbsgh.sharding, 5)


def test_rows_that_the_data_axis_does_not_divide_are_refused(tiny, mesh_of):
    with pytest.raises(ModelError, match="batch of size 6 does not divide over mesh axis 'data' of 4"):
        init_cache(tiny, batch=6, length=16, mesh=mesh_of(4, 2))
