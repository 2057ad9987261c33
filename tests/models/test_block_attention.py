"""Attention block by block gives what an array of all scores gives, values and gradients, and skips what is unseen."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.planning.chips import parse_topology
from launch.planning.compiling import slice_devices
from models import attention
from models.attention import attend, causal_mask
from models.block_attention import block_attention
from models.llama import Llama
from models.parameters import param_shardings
from models.seen_blocks import BLOCK, list_blocks

pytestmark = pytest.mark.slow


def tree_ends(rows, slots, seed):
    """Ends of random trees: each token's subtree lies within that of its parent."""
    random, ends = np.random.default_rng(seed), np.zeros((rows, slots), np.int32)
    for row in range(rows):
        open_until = [slots]
        for slot in range(slots):
            while open_until[-1] <= slot:
                open_until.pop()
            end = open_until[-1] if random.random() < 0.9 else int(random.integers(slot + 1, open_until[-1] + 1))
            ends[row, slot] = end
            open_until.append(end)
    return jnp.array(ends)


def arrays(queries, slots, heads=4, groups=2, size=8, rows=2, dtype=jnp.float32):
    shapes = (queries, heads), (slots, groups), (slots, groups), (queries, heads)
    keys = jax.random.split(jax.random.key(0), 4)
    return [jax.random.normal(key, (rows, n, h, size), dtype) for key, (n, h) in zip(keys, shapes, strict=True)]


def both(slot_q, end_bs, dtype=jnp.float32, rows=2, form="loop"):
    """Values and gradients of q, k and v, block by block and at once."""
    slots = int(slot_q.max()) + 1 if end_bs is None else end_bs.shape[1]
    *qkv, weight = arrays(len(slot_q), slots, rows=rows, dtype=dtype)
    mask_bts = causal_mask(jnp.broadcast_to(slot_q, (rows, len(slot_q))), slots)
    if end_bs is not None:
        mask_bts &= slot_q[None, :, None] < end_bs[:, None, :]

    def loss(run):
        return lambda q, k, v: (run(q, k, v) * weight).astype(jnp.float32).sum()

    runs = (lambda q, k, v: block_attention(q, k, v, slot_q, end_bs, form)), (lambda q, k, v: attend(q, k, v, mask_bts))
    return [(run(*qkv), *jax.grad(loss(run), (0, 1, 2))(*qkv)) for run in runs]


forms = pytest.mark.parametrize("form", ["loop", "interpreted"])


@forms
@pytest.mark.parametrize("queries", [1, 127, 300, 2 * BLOCK])
def test_rows_of_any_length_give_what_an_array_of_scores_gives(queries, form):
    for found, expected in zip(*both(jnp.arange(queries), None, form=form), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@forms
@pytest.mark.parametrize("first", [0, 150, 256])
def test_trees_and_rows_split_among_devices_give_what_an_array_of_scores_gives(first, form):
    slots = jnp.arange(first, 400)  # the queries that a device of a sequence axis holds
    for found, expected in zip(*both(slots, tree_ends(2, 400, first), form=form), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@forms
def test_bfloat16_stays_bfloat16(form):
    for found, expected in zip(*both(jnp.arange(300), tree_ends(2, 300, 5), jnp.bfloat16, form=form), strict=True):
        assert found.dtype == jnp.bfloat16
        np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), atol=0.06)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize("size", [64, 128])
def test_the_kernels_are_compiled_for_a_tpu_that_is_not_there(size):
    device = slice_devices(parse_topology("v5e:2x2"))[0]
    sharding = jax.sharding.SingleDeviceSharding(device)

    def shape(*sides, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct((2, 1024, *sides), dtype, sharding=sharding)

    def loss(q, k, v, end_bs):
        return block_attention(q, k, v, jnp.arange(1024), end_bs, "kernel").astype(jnp.float32).sum()

    kv = shape(2, size)
    lowered = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape(8, size), kv, kv, shape(dtype=jnp.int32))
    assert lowered.compile().as_text().count("tpu_custom_call") >= 3


def test_only_blocks_that_a_query_sees_are_listed():
    slots = 4 * BLOCK
    causal = list_blocks(jnp.arange(slots), jnp.full((1, slots), slots))
    assert int(causal.count) == 10
    end_s = np.repeat([4, 2, 3, 4], BLOCK) * BLOCK  # a trunk of one block, and three branches of one
    listed = list_blocks(jnp.arange(slots), jnp.array(end_s[None]))
    count = int(listed.count)
    assert [tuple(map(int, pair)) for pair in zip(listed.query_i[:count], listed.key_i[:count], strict=True)] == [
        (0, 0), (1, 0), (1, 1), (2, 0), (2, 2), (3, 0), (3, 3),
    ]  # fmt: skip


def test_the_memory_of_a_long_row_grows_with_its_length_and_not_with_its_square():
    def temporaries(slots):
        *qkv, _ = arrays(slots, slots, rows=1)

        def loss(q, k, v):
            return block_attention(q, k, v, jnp.arange(slots), None).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2))).lower(*qkv).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(4096) < 2.5 * temporaries(2048)
    assert temporaries(4096) < 4096 * 4096 * 4  # bytes of the scores of one head


@pytest.mark.parametrize("mesh_shape", [(1, 1), (1, 2, 2), (2, 2, 2)])
def test_a_network_of_long_rows_gives_what_it_gives_with_all_scores(
    tiny, mesh_of, random_params, monkeypatch, mesh_shape
):
    config = dataclasses.replace(tiny, num_layers=2, max_position_embeddings=400)
    params, tokens_bt = (
        random_params(config, mesh_of(1, 1)),
        jnp.array(np.random.default_rng(1).integers(0, 48, (2, 320))),
    )

    def gradients(mesh):
        model, shardings = Llama(config, mesh, remat="full"), param_shardings(config, mesh)
        positions_bt = jnp.broadcast_to(jnp.arange(320), tokens_bt.shape)

        def loss(params):
            return (model.apply({"params": params}, tokens_bt, positions_bt).hidden_btd ** 2).mean()

        return jax.jit(jax.grad(loss), out_shardings=shardings)(jax.device_put(params, shardings))

    found = gradients(mesh_of(*mesh_shape))
    monkeypatch.setattr(attention, "SHORT", 1000)
    expected = gradients(mesh_of(1, 1))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
