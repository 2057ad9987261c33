"""Rotary embeddings."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from models.config import Llama3RopeScaling
from models.rope import inverse_frequencies, rotary_angles, rotate


def test_unscaled_frequencies_are_powers_of_theta(tiny):
    config = dataclasses.replace(tiny, rope_theta=10000.0, rope_scaling=None)
    np.testing.assert_allclose(inverse_frequencies(config), [1.0, 0.1, 0.01, 0.001], rtol=1e-6)


def test_long_wavelengths_are_stretched_short_ones_kept_and_those_between_blended(tiny):
    # Turns over the original 128 positions: 20.37, 2.037, 0.2037, 0.02037. Bounds 4 and 1: the second is
    # kept by (2.037183 - 1) / 3 = 0.345728 and stretched by the rest: 0.1 (0.345728 + 0.654272 / 8) = 0.0427512.
    config = dataclasses.replace(tiny, rope_theta=10000.0, rope_scaling=Llama3RopeScaling(8.0, 1.0, 4.0, 128))
    np.testing.assert_allclose(inverse_frequencies(config), [1.0, 0.0427512, 0.00125, 0.000125], rtol=1e-5)


@pytest.mark.slow
def test_frequencies_are_those_of_hugging_face_for_llama_3_1(tiny):
    pytest.importorskip("torch")
    import transformers
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = dataclasses.replace(
        tiny, head_size=128, rope_theta=500000.0, rope_scaling=Llama3RopeScaling(8.0, 1.0, 4.0, 8192)
    )
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**config.to_hf())).inv_freq.numpy()
    np.testing.assert_allclose(inverse_frequencies(config), theirs, rtol=1e-6)


def test_pairs_of_halves_turn_by_position_times_frequency():
    angles_bth = jnp.array([[[0.0, 0.0], [np.pi / 2, np.pi]]])
    x_btnh = jnp.array([[[[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0, 3.0, 4.0]]]])
    expected = [[[[1.0, 2.0, 3.0, 4.0]], [[-3.0, -2.0, 1.0, -4.0]]]]
    np.testing.assert_allclose(rotate(x_btnh, angles_bth), expected, atol=1e-6)


@pytest.mark.slow
def test_tables_are_float32_and_the_result_keeps_its_dtype(tiny):
    angles_bth = rotary_angles(jnp.array([[0, 63]]), tiny)
    assert angles_bth.dtype == jnp.float32
    assert rotate(jnp.ones((1, 2, 1, 8), jnp.bfloat16), angles_bth).dtype == jnp.bfloat16
