"""Chunked token log-probs against the full computation, and the reference cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr

from colbench_env.types import BadInput
from models.config import LlamaConfig
from models.llama import Llama, logits
from models.parameters import init_params, param_shardings
from sweet_jax.data.batch import TokenRow, pad_rows
from sweet_jax.logprobs import hidden_states, token_logps
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.reference import ReferenceCache, fingerprint, pad_reference, reference_logps

ONE = MeshShape(1, 1)
ROWS, LENGTH, VOCAB = 4, 17, 200
CLOSE = 2e-5  # without the optimisations that conftest.py switches off, sums on a mesh differ by 1.2e-5


@functools.cache
def tiny(tied=True, shape=ONE):
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2, num_kv_heads=2, head_size=8,
        max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.3,
    )  # fmt: skip
    mesh = make_mesh(shape)
    return Llama(config, mesh), init_params(config, jax.random.key(0), mesh)


TOKENS = jax.random.randint(jax.random.key(1), (ROWS, LENGTH), 0, VOCAB)


logps = jax.jit(token_logps, static_argnums=0, static_argnames=("chunk", "temperature"))


@functools.partial(jax.jit, static_argnums=0)
def full_logps(model, params, tokens_bt, temperature=1.0):
    """The textbook computation with all logits at once."""
    hidden_btd = hidden_states(model, params, tokens_bt)
    logits_btv = logits(hidden_btd, params, model.config, model.mesh) / temperature
    logp_btv = jax.nn.log_softmax(logits_btv[:, :-1])
    logp_bt = jnp.take_along_axis(logp_btv, tokens_bt[:, 1:, None], axis=-1)[..., 0]
    return jnp.pad(logp_bt, [(0, 0), (1, 0)])


def logps_and_gradient(function, params, tokens_bt):
    """The log-probs and the gradient of their sum, each with a weight of its own, divided by its largest element."""
    weight_bt = jax.random.normal(jax.random.key(2), tokens_bt.shape)

    def loss(params):
        logp_bt = function(params)
        return (logp_bt * weight_bt).sum(), logp_bt

    gradient, logp_bt = jax.device_get(jax.jit(jax.grad(loss, has_aux=True))(params))
    return logp_bt, gradient


def assert_same_logps_and_gradient(found, expected):
    np.testing.assert_allclose(found[0], expected[0], atol=CLOSE)
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / scale, b / scale, atol=CLOSE), found[1], expected[1])


@functools.cache
def full_logps_and_gradient(tied):
    model, params = tiny(tied)
    return logps_and_gradient(lambda params: full_logps(model, params, TOKENS), params, TOKENS)


@pytest.mark.slow
@pytest.mark.parametrize(("tied", "chunk"), [(True, 4), (False, 5), (True, 1000)])
def test_chunks_give_the_value_and_the_gradient_of_the_full_computation(tied, chunk):
    model, params = tiny(tied)
    chunked = lambda params: token_logps(model, params, TOKENS, chunk=chunk)  # noqa: E731
    assert_same_logps_and_gradient(logps_and_gradient(chunked, params, TOKENS), full_logps_and_gradient(tied))


@pytest.mark.slow
def test_the_first_column_is_zero_and_the_probabilities_of_all_tokens_sum_to_one():
    model, params = tiny()
    prompt = jnp.broadcast_to(TOKENS[:1, :3], (VOCAB, 3))
    rows = jnp.concatenate([prompt, jnp.arange(VOCAB)[:, None]], axis=1)
    logp_bt = logps(model, params, rows, chunk=2)
    np.testing.assert_array_equal(logp_bt[:, 0], np.zeros(VOCAB))
    np.testing.assert_allclose(jnp.exp(logp_bt[:, -1]).sum(), 1.0, atol=1e-5)


@pytest.mark.slow
def test_temperature_divides_the_logits():
    model, params = tiny()
    found = logps(model, params, TOKENS, chunk=4, temperature=0.7)
    np.testing.assert_allclose(found, full_logps(model, params, TOKENS, 0.7), atol=1e-5)


@pytest.mark.slow
def test_padding_on_the_right_changes_no_log_prob():
    model, params = tiny()
    padded = logps(model, params, jnp.pad(TOKENS, [(0, 0), (0, 6)], constant_values=3), chunk=4)
    np.testing.assert_allclose(padded[:, :LENGTH], logps(model, params, TOKENS, chunk=4), atol=1e-5)


def is_jaxpr(x):
    return isinstance(x, ClosedJaxpr | Jaxpr)


def largest_float32(jaxpr):
    """The number of elements of the largest float32 array anywhere in a jaxpr, loops and checkpoints included."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [var.aval.size for var in equation.outvars if getattr(var.aval, "dtype", None) == jnp.float32]
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
            if is_jaxpr(value):
                sizes.append(largest_float32(value.jaxpr if isinstance(value, ClosedJaxpr) else value))
    return max(sizes)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [4, 1000])
def test_no_float32_array_of_rows_x_tokens_x_vocabulary_is_made_forward_or_backward(chunk):
    model, params = tiny()
    chunked = lambda params: token_logps(model, params, TOKENS, chunk=chunk).sum()  # noqa: E731
    full = lambda params: full_logps(model, params, TOKENS).sum()  # noqa: E731
    limit = ROWS * LENGTH * VOCAB
    assert largest_float32(jax.make_jaxpr(chunked)(params).jaxpr) < limit
    assert largest_float32(jax.make_jaxpr(jax.grad(chunked))(params).jaxpr) < limit
    # The same walk finds them in the textbook computation (whose last position predicts nothing).
    assert largest_float32(jax.make_jaxpr(jax.grad(full))(params).jaxpr) >= limit


@pytest.mark.slow
def test_the_fingerprint_sees_every_bit_and_not_the_mesh():
    (model, params) = tiny()
    sharded = jax.device_put(params, param_shardings(model.config, make_mesh(MeshShape(4, 2))))
    assert fingerprint(params) == fingerprint(sharded)
    embedding = params["embedding"]
    flipped = embedding.at[3, 5].set(jnp.nextafter(embedding[3, 5], jnp.float32(9)))
    swapped = embedding.at[jnp.array([3, 4])].set(embedding[jnp.array([4, 3])])
    prints = {fingerprint({**params, "embedding": changed}) for changed in (embedding, flipped, swapped, embedding[:9])}
    assert len(prints) == 4


def rows_of(lengths):
    random = np.random.default_rng(0)
    ids = [random.integers(0, VOCAB, n).astype(np.int32) for n in lengths]
    return [TokenRow(row, (np.arange(len(row)) > 1).astype(np.int32)) for row in ids]


def scored(cache=None, params=None, rows=None, **others):
    model, first = tiny()
    settings = {"batch_size": 2, "buckets": (8, 12), "pad_id": 0, "cache": cache} | others
    return reference_logps(model, first if params is None else params, rows or rows_of([5, 12, 8, 3, 9]), **settings)


@pytest.mark.slow
def test_reference_log_probs_come_in_the_order_of_the_rows_and_without_padding():
    model, params = tiny()
    found = scored()
    assert [array.shape for array in found] == [(5,), (12,), (8,), (3,), (9,)]
    rows = rows_of([5, 12, 8, 3, 9])
    expected_bt = logps(model, params, jnp.array(pad_rows(rows, 12, pad_id=0).tokens_bt))
    for array, expected in zip(found, expected_bt, strict=True):
        np.testing.assert_allclose(array[2:], expected[2 : len(array)], atol=1e-5)
        assert not array[:2].any()  # no action tokens


@pytest.mark.slow
def test_a_run_killed_while_scoring_goes_on_behind_what_is_on_disk_with_the_same_bits(tmp_path):
    cache = ReferenceCache(tmp_path)

    class Killed(Exception):
        pass

    def kill_after_the_second_batch(done, total):
        if done >= 3:
            raise Killed

    with pytest.raises(Killed):
        scored(cache, progress=kill_after_the_second_batch)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.npz")}
    assert sorted(kept) == ["00000.npz", "00001.npz"]
    for found, expected in zip(scored(cache), scored(), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*/0000[01].npz")} == kept
    assert not list(tmp_path.glob("*/*.tmp"))


@pytest.mark.slow
def test_the_cache_is_read_again_only_for_the_same_parameters_rows_and_settings(tmp_path):
    cache, rows = ReferenceCache(tmp_path), rows_of([5, 8, 3])  # of one bucket
    other = jax.tree.map(lambda x: x * 1.5, tiny()[1])
    for variant in ({}, {"params": other}, {"rows": rows[:2]}, {"batch_size": 4}, {"temperature": 0.5}, {}):
        scored(cache, **{"rows": rows} | variant)
    assert len(list(tmp_path.iterdir())) == 5
    assert np.abs(scored(cache, params=other, rows=rows)[0] - scored(cache, rows=rows)[0]).max() > 0.01


def test_a_damaged_cache_file_is_computed_again(tmp_path, caplog):
    cache = ReferenceCache(tmp_path)
    expected = scored(cache)
    path = next(tmp_path.glob("*/00001.npz"))
    path.write_bytes(path.read_bytes()[:50])
    for found, array in zip(scored(cache), expected, strict=True):
        np.testing.assert_array_equal(found, array)
    assert "00001.npz is damaged" in caplog.text


def test_a_row_longer_than_every_bucket_is_refused_with_the_numbers():
    with pytest.raises(BadInput, match="13 tokens .* 12"):
        scored(rows=rows_of([13]))


def test_reference_log_probs_are_padded_with_zeros():
    padded = pad_reference([np.float32([1, 2]), np.float32([3])], 3)
    np.testing.assert_array_equal(padded, np.float32([[1, 2, 0], [3, 0, 0]]))


# Rows that stay whole under a tied head: the train step's tests compare the gradients of a mesh of 4x2.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("tied", "shape"), [(False, MeshShape(4, 2)), (True, MeshShape(2, 2, 2)), (False, MeshShape(1, 2, 4))]
)
def test_log_probs_and_gradient_on_a_mesh_are_those_of_one_device_with_rows_whole_or_split(tied, shape):
    tokens_bt = jnp.concatenate([TOKENS, TOKENS[:, :3]], axis=1)  # 20 tokens, which 4 parts divide
    expected, found = (
        logps_and_gradient(lambda params: token_logps(model, params, tokens_bt, chunk=7), params, tokens_bt)  # noqa: B023
        for model, params in (tiny(tied), tiny(tied, shape))
    )
    assert_same_logps_and_gradient(found, expected)
