"""LoRA adapters: no change at the start, afterwards the merged weights' network, on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from models.config import ModelError
from models.llama import Llama, logits, variables
from models.lora import LORA, TARGETS, LoraConfig, init_lora, lora_shapes, lora_table, merge_adapters
from models.parameters import flatten, parameter_table

TOKENS_BT = np.random.default_rng(0).integers(0, 48, (8, 12))
ADAPTED = LoraConfig(rank=3, alpha=12.0)


@functools.cache
def forward(config, mesh, lora, scan):
    model = Llama(config, mesh, lora=lora, scan=scan)

    @jax.jit
    def compute(params, tokens_bt):
        positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        hidden_btd = model.apply(variables(params), tokens_bt, positions_bt).hidden_btd
        return logits(hidden_btd, params, config, mesh)

    return compute


def compute(config, mesh, params, lora=None, scan=True):
    return np.asarray(forward(config, mesh, lora, scan)(params, TOKENS_BT))


def random_adapters(config, mesh, lora=ADAPTED):
    """Adapters as after some training: no product is zero."""
    fresh = init_lora(config, lora, jax.random.key(3), mesh)
    noise = np.random.default_rng(4)
    return jax.tree.map(lambda x: x + 0.1 * noise.normal(size=x.shape).astype(np.float32), fresh)


@pytest.mark.slow
def test_fresh_adapters_change_nothing(tiny, mesh_of, random_params):
    mesh = mesh_of(4, 2)
    params = random_params(tiny, mesh)
    adapted = params | init_lora(tiny, ADAPTED, jax.random.key(1), mesh)
    np.testing.assert_array_equal(compute(tiny, mesh, adapted, ADAPTED), compute(tiny, mesh, params, ADAPTED))


@pytest.mark.slow
@pytest.mark.parametrize(("mesh_shape", "scan"), [((1, 1), False), ((4, 2), False), ((4, 2), True), ((2, 2, 2), True)])
def test_adapters_are_worth_the_merged_weights(tiny, mesh_of, random_params, mesh_shape, scan):
    mesh = mesh_of(*mesh_shape)
    params = random_params(tiny, mesh)
    adapted = params | random_adapters(tiny, mesh)
    whole = jax.jit(lambda params: merge_adapters(params, ADAPTED))(adapted)
    assert flatten(whole).keys() == parameter_table(tiny).keys()
    expected = compute(tiny, mesh, whole, scan=scan)
    np.testing.assert_allclose(compute(tiny, mesh, adapted, ADAPTED, scan=scan), expected, rtol=0, atol=1e-5)
    assert np.abs(expected - compute(tiny, mesh, params, scan=scan)).max() > 0.1


@pytest.mark.slow
def test_merging_adds_alpha_over_rank_times_the_product(tiny, mesh_of, random_params):
    lora = LoraConfig(rank=2, alpha=6.0, targets=("down",))
    mesh = mesh_of(1, 1)
    params = random_params(tiny, mesh)
    adapted = params | random_adapters(tiny, mesh, lora)
    halves = adapted[LORA]["layers"]["mlp"]["down"]
    found, before = flatten(merge_adapters(adapted, lora)), flatten(params)
    expected = np.asarray(before["layers/mlp/down"]) + 3.0 * np.asarray(halves["a"]) @ np.asarray(halves["b"])
    np.testing.assert_allclose(found["layers/mlp/down"], expected, rtol=0, atol=1e-6)
    for path in before.keys() - {"layers/mlp/down"}:
        assert found[path] is before[path]


def test_adapters_lie_as_the_weight_does_along_its_own_axes(tiny, mesh_of):
    shapes = lora_shapes(tiny, ADAPTED, mesh_of(4, 2))[LORA]["layers"]
    assert shapes["attention"]["q"]["a"].sharding.spec == P(None, "data", None)
    assert shapes["attention"]["q"]["b"].sharding.spec == P(None, None, "tensor")
    assert shapes["mlp"]["down"]["a"].sharding.spec == P(None, "tensor", None)
    assert shapes["mlp"]["down"]["b"].shape == (3, 3, 32)
    assert {path.rpartition("/")[0] for path in lora_table(tiny, ADAPTED)} == set(TARGETS.values())


@pytest.mark.slow
def test_adapters_without_a_configuration_and_bad_settings_are_refused(tiny, mesh_of, random_params):
    mesh = mesh_of(1, 1)
    adapted = random_params(tiny, mesh) | init_lora(tiny, ADAPTED, jax.random.key(1), mesh)
    with pytest.raises(ModelError, match="hold LoRA adapters, but the network was made without"):
        compute(tiny, mesh, adapted)
    with pytest.raises(ModelError, match="call apply with `variables"):
        Llama(tiny, mesh, lora=ADAPTED).apply({"params": adapted}, jnp.zeros((1, 4), int), jnp.zeros((1, 4), int))
    with pytest.raises(ModelError, match="rank 0 must be at least 1"):
        LoraConfig(rank=0, alpha=1.0)
    with pytest.raises(ModelError, match="unknown: \\['query'\\]"):
        LoraConfig(rank=1, alpha=1.0, targets=("query",))
    with pytest.raises(ModelError, match="rank 20 is above that of weight k, which is 32 x 16"):
        lora_table(tiny, LoraConfig(rank=20, alpha=1.0, targets=("k",)))
