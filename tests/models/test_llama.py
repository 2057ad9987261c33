"""The network against Hugging Face torch, and against itself computed in other ways."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from models.config import ModelError
from models.hf_io import load_llama
from models.inference import inference_params, next_logits
from models.kv_cache import init_cache
from models.llama import Llama
from models.parameters import param_shardings

TOKENS_BT = np.random.default_rng(0).integers(0, 48, (8, 24))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="grouped"),
        pytest.param({"tie_word_embeddings": True, "num_key_value_heads": 1}, id="tied, one kv head"),
        pytest.param({"head_dim": 16, "num_key_value_heads": 4, "rms_norm_eps": 1e-3}, id="wide heads, ungrouped"),
        pytest.param(
            {"hidden_size": 36, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 6}, id="three heads"
        ),
        pytest.param({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, id="unscaled rope"),
    ],
)
def test_logits_are_those_of_hugging_face(settings, tmp_path, mesh_of, save_hf_model, torch_logits, logits_of):
    pytest.importorskip("torch")
    theirs = torch_logits(save_hf_model(tmp_path, **settings), TOKENS_BT)
    mesh = mesh_of(1, 1)
    loaded = load_llama(tmp_path, mesh)
    ours = logits_of(loaded.config, mesh, loaded.params, TOKENS_BT, remat="none")
    assert np.abs(theirs).max() > 1.0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_rope_scaling_changes_the_logits(tiny, mesh_of, random_params, logits_of):
    mesh, plain = mesh_of(1, 1), dataclasses.replace(tiny, rope_scaling=None)
    params = random_params(tiny, mesh)
    scaled, unscaled = (logits_of(config, mesh, params, TOKENS_BT, remat="none") for config in (tiny, plain))
    assert np.abs(scaled - unscaled).max() > 1e-2


@pytest.mark.slow
def test_scanned_and_unrolled_layers_agree_in_value_and_gradient(tiny, mesh_of, random_params, loss_and_gradients):
    mesh = mesh_of(1, 1)
    params = random_params(tiny, mesh)
    value, gradients = loss_and_gradients(tiny, mesh, params, TOKENS_BT, remat="full")
    other_value, other_gradients = loss_and_gradients(tiny, mesh, params, TOKENS_BT, scan=False, remat="none")
    assert value == pytest.approx(other_value, abs=1e-5)
    for path, gradient in gradients.items():
        np.testing.assert_allclose(gradient, other_gradients[path], rtol=0, atol=1e-5, err_msg=path)
        assert np.abs(gradient).max() > 1e-4, path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heads", "mesh_shape"),
    [
        pytest.param((4, 2), (4, 2), id="heads and kv heads split"),
        pytest.param((4, 2), (2, 4), id="heads split, kv heads whole"),
        pytest.param((3, 1), (4, 2), id="heads whole"),
    ],
)
def test_a_sharded_network_agrees_with_one_device_in_value_and_gradient(
    tiny, mesh_of, random_params, logits_of, loss_and_gradients, heads, mesh_shape
):
    config = dataclasses.replace(tiny, num_heads=heads[0], num_kv_heads=heads[1])
    single, mesh = mesh_of(1, 1), mesh_of(*mesh_shape)
    params = random_params(config, single)
    split = jax.device_put(params, param_shardings(config, mesh))
    ours = logits_of(config, mesh, split, TOKENS_BT)
    np.testing.assert_allclose(ours, logits_of(config, single, params, TOKENS_BT), rtol=0, atol=1e-5)
    value, gradients = loss_and_gradients(config, mesh, split, TOKENS_BT)
    single_value, single_gradients = loss_and_gradients(config, single, params, TOKENS_BT)
    assert value == pytest.approx(single_value, abs=1e-5)
    for path, gradient in gradients.items():
        np.testing.assert_allclose(gradient, single_gradients[path], rtol=0, atol=1e-5, err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize(("mesh_shape", "scan"), [((1, 1), False), ((4, 2), True)])
def test_prefill_and_decode_of_rows_at_different_positions_equal_the_full_pass(
    tiny, mesh_of, random_params, logits_of, decode_from, mesh_shape, scan
):
    mesh = mesh_of(*mesh_shape)
    params = random_params(tiny, mesh)
    model = Llama(tiny, mesh, remat="none", scan=scan)
    stepwise, cache = decode_from(model, params, TOKENS_BT[:4, :14], [10, 3, 7, 1], slots=16)
    whole = logits_of(tiny, mesh, params, TOKENS_BT[:4, :14], remat="none")
    np.testing.assert_allclose(stepwise, whole, rtol=0, atol=1e-4)
    expected = NamedSharding(mesh, P("data", "tensor"))
    assert all(x.sharding.is_equivalent_to(expected, x.ndim) for x in (*cache.keys, *cache.values))


@pytest.mark.slow
def test_a_second_prefill_continues_each_row_at_its_own_position(tiny, mesh_of, random_params, logits_of):
    mesh = mesh_of(1, 1)
    params, model = random_params(tiny, mesh), Llama(tiny, mesh, remat="none")
    starts, laid_out = np.array([2, 5]), inference_params(params, tiny, mesh, jnp.float32)
    apply = jax.jit(lambda tokens, positions, cache: model.apply({"params": laid_out}, tokens, positions, cache))
    cache = init_cache(tiny, 2, 16, mesh, block=4)
    first = apply(TOKENS_BT[:2, :5], np.broadcast_to(np.arange(5), (2, 5)), cache)
    more_bt = starts[:, None] + np.arange(6)
    second = apply(np.take_along_axis(TOKENS_BT[:2], more_bt, axis=1), more_bt, first.cache)
    ours = np.asarray(next_logits(second.hidden_btd.reshape(12, -1), laid_out, tiny, mesh)).reshape(2, 6, -1)
    whole = logits_of(tiny, mesh, params, TOKENS_BT[:2, :11], remat="none")
    for row, start in enumerate(starts):
        np.testing.assert_allclose(ours[row], whole[row, start : start + 6], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_right_padding_changes_no_logits(tiny, mesh_of, random_params, logits_of):
    mesh = mesh_of(1, 1)
    params = random_params(tiny, mesh)
    padded = TOKENS_BT.copy()
    padded[:, 9:] = 0
    short, long = (logits_of(tiny, mesh, params, rows, remat="none") for rows in (TOKENS_BT[:, :9], padded))
    np.testing.assert_allclose(long[:, :9], short, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_row_does_not_depend_on_the_other_rows(tiny, mesh_of, random_params, logits_of):
    mesh = mesh_of(1, 1)
    params = random_params(tiny, mesh)
    together = logits_of(tiny, mesh, params, TOKENS_BT, remat="none")
    alone = logits_of(tiny, mesh, params, TOKENS_BT[3:4], remat="none")
    np.testing.assert_allclose(together[3:4], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_compute_stays_near_float32_and_logits_are_float32(tiny, mesh_of, random_params, logits_of):
    mesh = mesh_of(1, 1)
    params = random_params(tiny, mesh)
    exact = logits_of(tiny, mesh, params, TOKENS_BT, remat="none")
    rough = logits_of(tiny, mesh, params, TOKENS_BT, remat="none", compute_dtype=jnp.bfloat16)
    assert rough.dtype == np.float32
    assert 1e-4 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.slow
def test_rows_that_the_data_axis_does_not_divide_are_refused(tiny, mesh_of, random_params, logits_of):
    mesh = mesh_of(4, 2)
    with pytest.raises(ModelError, match="batch of size 6 does not divide over mesh axis 'data' of 4"):
        logits_of(tiny, mesh, random_params(tiny, mesh), TOKENS_BT[:6])


def test_an_unknown_remat_policy_is_refused(tiny, mesh_of, random_params, logits_of):
    mesh = mesh_of(1, 1)
    with pytest.raises(ModelError, match=r"remat 'half' is not one of \['none', 'full', 'attention', 'dots'\]"):
        logits_of(tiny, mesh, random_params(tiny, mesh), TOKENS_BT, remat="half")
