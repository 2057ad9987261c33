"""Products of activations and weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.products import multiply, multiply_cached


@pytest.mark.parametrize("rows", [3, 100])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_product_is_the_same_however_its_weights_lie(mesh_of, rows, dtype):
    random = np.random.default_rng(0)
    x_mi, weight_oi = (jnp.asarray(random.normal(size=(n, 16)), dtype) for n in (rows, 7))
    found = multiply_cached(x_mi, weight_oi.T if dtype == jnp.bfloat16 else weight_oi, mesh_of(1, 1))
    assert found.dtype == dtype
    exact = np.asarray(x_mi, np.float64) @ np.asarray(weight_oi, np.float64).T
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=1e-5, rtol=0 if dtype == jnp.float32 else 2**-8)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_product_and_its_gradients_are_those_of_float64(mesh_of, dtype):
    random = np.random.default_rng(0)
    x_mi, weight_io, grad_mo = (jnp.asarray(random.normal(size=s), dtype) for s in ((100, 16), (16, 7), (100, 7)))
    x, weight, grad = (np.asarray(given, np.float64) for given in (x_mi, weight_io, grad_mo))
    found, pull = jax.vjp(lambda x_mi, weight_io: multiply(x_mi, weight_io, mesh_of(1, 1)), x_mi, weight_io)
    for given, exact in zip((found, *pull(grad_mo)), (x @ weight, grad @ weight.T, x.T @ grad), strict=True):
        assert given.dtype == dtype
        error = np.abs(np.asarray(given, np.float64) - exact)
        assert (error <= 1e-4 + (0 if dtype == jnp.float32 else 2**-8 * np.abs(exact))).all()


def test_every_product_of_bfloat16_on_a_cpu_has_such_factors_and_float32_sums(mesh_of):
    """The only form that XLA multiplies quickly there."""
    x_mi, weight_io = jnp.ones((100, 16), jnp.bfloat16), jnp.ones((16, 7), jnp.bfloat16)
    loss = jax.value_and_grad(lambda *given: multiply(*given, mesh_of(1, 1)).astype(jnp.float32).sum(), argnums=(0, 1))
    lines = [line for line in jax.jit(loss).lower(x_mi, weight_io).as_text().splitlines() if "dot_general" in line]
    assert len(lines) == 3
    for line in lines:
        assert line.count("bf16>") == 2 and line.rstrip().endswith("f32>"), line
