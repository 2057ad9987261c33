"""Attention over key slots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.attention import attend, causal_mask, repeat_heads


def test_a_query_sees_its_own_slot_and_those_before_it():
    expected = [[[1, 0, 0, 0], [1, 1, 0, 0]], [[1, 1, 1, 0], [1, 1, 1, 1]]]
    np.testing.assert_array_equal(causal_mask(jnp.array([[0, 1], [2, 3]]), 4), np.array(expected, bool))


@pytest.mark.slow
def test_equal_scores_average_the_visible_values_only():
    q_btnh, k_bsgh = jnp.zeros((1, 2, 1, 2)), jnp.zeros((1, 3, 1, 2))
    v_bsgh = jnp.array([[[[1.0, 10.0]], [[3.0, 30.0]], [[100.0, 100.0]]]])
    out = attend(q_btnh, k_bsgh, v_bsgh, causal_mask(jnp.array([[0, 1]]), 3))
    np.testing.assert_allclose(out, [[[[1.0, 10.0]], [[2.0, 20.0]]]], rtol=1e-6)


@pytest.mark.slow
def test_scores_are_divided_by_the_root_of_the_head_size():
    # q k = 4 ln 3, root of 4 is 2: weights are 1 : 9, hence 0.1 and 0.9.
    q_btnh = jnp.array([[[[4 * np.log(3.0), 0.0, 0.0, 0.0]]]])
    k_bsgh = jnp.array([[[[0.0, 0, 0, 0]], [[1.0, 0, 0, 0]]]])
    v_bsgh = jnp.array([[[[1.0, 0, 0, 0]], [[0.0, 1.0, 0, 0]]]])
    out = attend(q_btnh, k_bsgh, v_bsgh, jnp.ones((1, 1, 2), bool))
    np.testing.assert_allclose(out[0, 0, 0], [0.1, 0.9, 0.0, 0.0], rtol=1e-5)


@pytest.mark.slow
def test_neighbouring_query_heads_share_a_key_value_head():
    v_bsgh = jnp.array([[[[1.0], [2.0]]]])
    out = attend(jnp.zeros((1, 1, 4, 1)), jnp.zeros((1, 1, 2, 1)), v_bsgh, jnp.ones((1, 1, 1), bool))
    np.testing.assert_array_equal(out[0, 0, :, 0], [1.0, 1.0, 2.0, 2.0])
    np.testing.assert_array_equal(repeat_heads(v_bsgh, 2)[0, 0, :, 0], [1.0, 1.0, 2.0, 2.0])


@pytest.mark.slow
def test_a_query_that_sees_nothing_has_a_finite_value_and_gradient():
    q_btnh = k_bsgh = v_bsgh = jnp.ones((1, 2, 1, 2))
    nothing = jnp.zeros((1, 2, 2), bool)
    value, gradients = jax.value_and_grad(lambda q, k, v: attend(q, k, v, nothing).sum(), (0, 1, 2))(
        q_btnh, k_bsgh, v_bsgh
    )
    assert np.isfinite(value) and all(np.isfinite(gradient).all() for gradient in gradients)
