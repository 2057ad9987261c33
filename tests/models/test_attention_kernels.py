"""Every attention kernel and remat policy, with the tokens of a row whole or split, gives the network of plain XLA."""

import dataclasses
import re
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from next_token import next_token_loss

from models.attention import check_kernel
from models.config import ModelError
from models.llama import REMAT_POLICIES, Llama
from models.parameters import flatten, param_shardings

pytestmark = pytest.mark.slow

TOKENS_BT = np.random.default_rng(1).integers(0, 48, (2, 256))


def loss_and_gradients(config, mesh, params, tokens_bt, **options):
    """Mean log-probability of the next token, its gradients by path, and the compiled program's text."""
    model, shardings = Llama(config, mesh, **options), param_shardings(config, mesh)

    function = jax.jit(jax.value_and_grad(next_token_loss(model)), out_shardings=(None, shardings))
    compiled = function.lower(jax.device_put(params, shardings), tokens_bt).compile()
    value, gradients = compiled(jax.device_put(params, shardings), tokens_bt)
    return float(value), {path: np.asarray(x) for path, x in flatten(gradients).items()}, compiled.as_text()


def assert_same(found, expected, atol):
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    for path, gradient in expected[1].items():
        np.testing.assert_allclose(found[1][path], gradient, rtol=0, atol=atol, err_msg=path)
        assert np.abs(gradient).max() > 1e-4, path


@pytest.fixture(scope="module")
def plain(tiny, mesh_of, random_params):
    config = dataclasses.replace(tiny, num_layers=2, max_position_embeddings=256)
    params = random_params(config, mesh_of(1, 1))
    return config, params, loss_and_gradients(config, mesh_of(1, 1), params, TOKENS_BT)


@pytest.mark.parametrize("kernel", ["xla", "splash"])
@pytest.mark.parametrize("mesh_shape", [(1, 1), (1, 2, 2), (2, 2, 2)])
def test_a_kernel_on_a_mesh_agrees_with_xla_on_one_device_in_value_and_gradient(plain, mesh_of, kernel, mesh_shape):
    config, params, expected = plain
    if kernel == "xla" and mesh_shape == (1, 1):
        pytest.skip("this is the expectation itself")
    found = loss_and_gradients(config, mesh_of(*mesh_shape), params, TOKENS_BT, attention=kernel)
    assert_same(found, expected, atol=1e-5)


def test_splash_takes_rows_that_fill_no_block_and_heads_without_a_group(plain, mesh_of, random_params):
    config = dataclasses.replace(plain[0], num_heads=3, num_kv_heads=3)
    mesh = mesh_of(2, 2)
    params, tokens_bt = random_params(config, mesh), TOKENS_BT[:, :77]
    expected = loss_and_gradients(config, mesh, params, tokens_bt)
    assert_same(loss_and_gradients(config, mesh, params, tokens_bt, attention="splash"), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("policy", "scan"), [*((policy, True) for policy in (*REMAT_POLICIES, "none")), ("full", False)]
)
def test_a_remat_policy_changes_no_value(plain, mesh_of, policy, scan):
    config, params, expected = plain
    found = loss_and_gradients(config, mesh_of(1, 2), params, TOKENS_BT, remat=policy, scan=scan)
    assert_same(found, expected, atol=1e-5)


def test_remat_policies_keep_what_they_say_and_change_no_value_of_unrolled_layers(plain, mesh_of):
    """Products counted in the unrolled program: each policy computes fewer of them again than the one before."""
    config, params, expected = plain
    counts = {}
    for policy in ("full", "attention", "dots", "none"):
        found = loss_and_gradients(config, mesh_of(1, 1), params, TOKENS_BT, remat=policy, scan=False)
        assert_same(found, expected, atol=1e-5)
        counts[policy] = len(re.findall(r" dot\(| custom-call\([^)]*\).*matmul", found[2]))
    assert counts["full"] > counts["attention"] > counts["none"]
    assert counts["full"] > counts["dots"] >= counts["none"]


def test_rows_that_a_sequence_axis_does_not_divide_are_refused(plain, mesh_of):
    config, params, _ = plain
    with pytest.raises(ModelError, match="tokens of size 77 does not divide over mesh axis 'sequence' of 2"):
        loss_and_gradients(config, mesh_of(1, 1, 2), params, TOKENS_BT[:, :77])
    with pytest.raises(ModelError, match="rows of 192 tokens do not divide into blocks of 128 over .* of 2"):
        loss_and_gradients(config, mesh_of(1, 1, 2), params, TOKENS_BT[:, :192], attention="splash")


def test_what_a_kernel_cannot_do_is_refused_by_name(mesh_of):
    mesh = mesh_of(1, 1)
    with pytest.raises(ModelError, match="attention 'flash' is not one of"):
        check_kernel("flash", mesh, jnp.float32)
    with pytest.raises(ModelError, match="'cudnn' needs NVIDIA GPUs, and the devices of this mesh are cpu: use 'xla'"):
        check_kernel("cudnn", mesh, jnp.bfloat16)


def test_cudnn_is_refused_with_a_rematerialisation_that_saves_nothing():
    gpus = mock.Mock(jax.sharding.Mesh, devices=np.array([mock.Mock(platform="gpu")]), shape={"data": 1, "tensor": 1})
    check_kernel("cudnn", gpus, jnp.bfloat16, "full")
    with pytest.raises(ModelError, match="remat 'attention' saves nothing with attention 'cudnn'"):
        check_kernel("cudnn", gpus, jnp.bfloat16, "attention")


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN's attention needs an NVIDIA GPU")
def test_cudnn_agrees_with_xla_in_bfloat16(plain, mesh_of):
    config, params, _ = plain
    wide = dict(compute_dtype=jnp.bfloat16)
    expected = loss_and_gradients(config, mesh_of(1, 1), params, TOKENS_BT, **wide)
    found = loss_and_gradients(config, mesh_of(1, 1), params, TOKENS_BT, attention="cudnn", **wide)
    assert found[0] == pytest.approx(expected[0], abs=2e-2)
