"""The blocks of the cache, and attention over them."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from models.attention import attend
from models.cached_attention import cached_attention, group_size, plan_reading
from models.config import ModelError
from models.kv_cache import KVCache, from_held, init_blocks, init_cache, to_held
from models.paged_attention import kernel_for

BLOCK = 4


@pytest.mark.parametrize(("mesh", "heads"), [((4, 2), "tensor"), ((2, 4), None)])
def test_blocks_are_split_over_data_and_kv_heads_over_tensor_where_they_divide(tiny, mesh_of, mesh, heads):
    cache = init_cache(tiny, batch=8, length=14, mesh=mesh_of(*mesh), block=BLOCK)
    assert [x.shape for x in cache.keys] == [(32, 2, 8, BLOCK)] * 3
    assert [x.shape for x in cache.values] == [(32, 2, BLOCK, 8)] * 3
    assert {x.sharding.spec for x in (*cache.keys, *cache.values)} == {PartitionSpec("data", heads)}
    own = 8 // mesh[0]  # rows of a device, whose blocks are numbered from 0
    np.testing.assert_array_equal(cache.table_bj[own], [0, 1, 2, 3])
    np.testing.assert_array_equal(cache.table_bj[:own].ravel(), np.arange(own * 4))


def test_rows_and_blocks_that_the_data_axis_does_not_divide_are_refused(tiny, mesh_of):
    with pytest.raises(ModelError, match="batch of size 6 does not divide over mesh axis 'data' of 4"):
        init_cache(tiny, batch=6, length=16, mesh=mesh_of(4, 2))
    with pytest.raises(ModelError, match="6 blocks do not divide over mesh axis 'data' of 4"):
        init_blocks(tiny, 6, mesh_of(4, 2))


def test_a_network_with_a_cache_asks_for_weights_laid_out_for_it(tiny, mesh_of, random_params):
    from models.llama import Llama

    mesh = mesh_of(1, 1)
    with pytest.raises(ModelError, match="laid out by models.inference.inference_params"):
        Llama(tiny, mesh).apply(
            {"params": random_params(tiny, mesh)}, jnp.zeros((1, 1), int), jnp.zeros((1, 1), int),
            init_cache(tiny, 1, 4, mesh),
        )  # fmt: skip


@functools.cache  # so that a shape is compiled once
def attention_of(tiny, mesh, kernel):
    def run(q, k, v, keys, values, table_bj, position_bt):
        reading = plan_reading(KVCache((keys,), (values,), table_bj), position_bt, mesh)
        with mock.patch("models.cached_attention.kernel_for", return_value=kernel):  # interpreted on a CPU
            return cached_attention(q, k, v, keys, values, reading, tiny, mesh)

    return jax.jit(run)


def read(tiny, mesh, table_bj, position_bt, held, seed, dtype=jnp.float32, kernel=None):
    """Attention over blocks filled at random, and the same over rows put together by hand."""
    rows, tokens = position_bt.shape
    blocks, room = held, table_bj.shape[1] * BLOCK
    random = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(random.normal(size=shape), dtype)

    q, k, v = (normal(rows, tokens, n, tiny.head_size) for n in (tiny.num_heads, 2, 2))
    keys, values = normal(blocks, 2, tiny.head_size, BLOCK), normal(blocks, 2, BLOCK, tiny.head_size)
    run = attention_of(tiny, mesh, kernel)
    found, new_keys, new_values = run(q, k, v, keys, values, jnp.asarray(table_bj), jnp.asarray(position_bt))
    own = np.arange(rows) // (rows // mesh.shape["data"]) * (blocks // mesh.shape["data"])  # first block of the device
    k_bsgh = np.asarray(keys.swapaxes(2, 3)[table_bj + own[:, None]]).swapaxes(2, 3).reshape(rows, room, 2, -1).copy()
    v_bsgh = np.asarray(values[table_bj + own[:, None]]).swapaxes(2, 3).reshape(rows, room, 2, -1).copy()
    for b, t in np.argwhere(position_bt < room):
        k_bsgh[b, position_bt[b, t]], v_bsgh[b, position_bt[b, t]] = k[b, t], v[b, t]
    mask = np.arange(room) <= position_bt[:, :, None]
    expected = attend(q, jnp.asarray(k_bsgh), jnp.asarray(v_bsgh), jnp.asarray(mask))
    inside = position_bt < room
    return np.asarray(found)[inside], np.asarray(expected)[inside], (keys, values), (new_keys, new_values)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), tokens=st.sampled_from([1, 3, 16]), shape=st.sampled_from([(1, 1), (4, 2), (2, 4)]))
def test_attention_over_blocks_is_attention_over_rows(tiny, mesh_of, seed, tokens, shape):
    check_random_rows(tiny, mesh_of, seed, tokens, shape)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from([(1, 1), (4, 2), (2, 4)]),
    platform=st.sampled_from(["gpu", "tpu"]),
)
def test_the_kernels_for_gpus_and_tpus_compute_the_same(tiny, mesh_of, seed, shape, platform):
    check_random_rows(tiny, mesh_of, seed, 1, shape, kernel=platform)


def test_a_kernel_is_for_one_token_a_row_on_an_accelerator(mesh_of):
    def on(platform):
        return mock.Mock(spec=Mesh, devices=np.array([mock.Mock(platform=platform)]))

    assert kernel_for(on("gpu"), 1, 64, 128) == "gpu"
    assert kernel_for(on("tpu"), 1, 80, 128) == "tpu"
    assert kernel_for(on("gpu"), 1, 80, 128) is None  # no power of 2
    assert kernel_for(on("gpu"), 16, 64, 128) is kernel_for(on("tpu"), 16, 64, 128) is None
    assert kernel_for(mesh_of(1, 1), 1, 64, 128) is None


def check_random_rows(tiny, mesh_of, seed, tokens, shape, kernel=None):
    random, rows, room = np.random.default_rng(seed), 8, 8
    own = rows // shape[0]
    table_bj = np.concatenate([random.permutation(own * room).reshape(own, room) for _ in range(shape[0])])
    start_b = random.integers(0, room * BLOCK - tokens + 1, rows)
    position_bt = start_b[:, None] + np.arange(tokens)
    length_b = random.integers(0, tokens + 1, rows)  # some rows idle, some are padded
    position_bt = np.where(np.arange(tokens) < length_b[:, None], position_bt, room * BLOCK)
    found, expected, _, _ = read(
        tiny, mesh_of(*shape), table_bj.astype(np.int32), position_bt, rows * room, seed, kernel=kernel
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_new_keys_and_values_go_to_their_rows_places_and_padding_nowhere(tiny, mesh_of):
    table_bj, position_bt = np.array([[2, 0]], np.int32), np.array([[3, 4, 8]])
    _, _, (keys, values), (new_keys, new_values) = read(tiny, mesh_of(1, 1), table_bj, position_bt, 3, 0)
    changed = np.argwhere(np.asarray(keys != new_keys).all((1, 2)))
    assert changed.tolist() == [[0, 0], [2, 3]]  # block, slot
    assert np.argwhere(np.asarray(values != new_values).all((1, 3))).tolist() == changed.tolist()


def test_a_row_is_the_same_to_the_bit_beside_longer_ones(tiny, mesh_of):
    table_bj = np.arange(32, dtype=np.int32).reshape(4, 8)
    long = np.array([[5], [31], [20], [9]])
    alone = np.where(np.arange(4)[:, None] == 0, long, 32)
    beside, _, _, _ = read(tiny, mesh_of(1, 1), table_bj, long, 32, 0)
    single, _, _, _ = read(tiny, mesh_of(1, 1), table_bj, alone, 32, 0)
    np.testing.assert_array_equal(beside[:1], single)


def test_entries_are_kept_in_the_dtype_of_the_cache(tiny, mesh_of):
    cache = init_cache(tiny, 1, 4, mesh_of(1, 1), jnp.bfloat16)
    assert {from_held(x).dtype for x in jax.tree.leaves((cache.keys, cache.values))} == {jnp.dtype(jnp.bfloat16)}
    x = jnp.array([1.0, -2.5e38, 3e-39, jnp.inf], jnp.bfloat16)
    np.testing.assert_array_equal(from_held(to_held(x, cache.keys[0].dtype)), x)
    assert to_held(x, jnp.float32).dtype == from_held(to_held(x, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize(("rows", "tokens", "size"), [(32, 1, 8), (16, 16, 4), (6, 1, 6), (7, 16, 1), (16, 128, 1)])
def test_rows_are_read_in_groups_that_divide_them(rows, tokens, size):
    assert group_size(rows, tokens) == size
