"""Both critics against numpy, on tiny random models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from colbench_env.types import BadInput
from models.config import LlamaConfig
from models.llama import Llama
from models.parameters import init_params, param_shapes
from sweet_jax.critic import (
    add_value_head,
    align_logps,
    make_head_critic,
    make_log_ratio_critic,
    prefix_value_objective,
    prefix_values,
    value_head_objective,
    value_head_shapes,
)
from sweet_jax.data.batch import PairBatch, TokenRow, pad_rows
from sweet_jax.logprobs import hidden_states, token_logps
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.train.loop import shardings_of
from sweet_jax.train.objectives import PreferenceLoss
from sweet_jax.train.step import init_state, make_train_step, state_shardings

CONFIG = LlamaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2, num_kv_heads=2, head_size=8,
    max_position_embeddings=32, tie_word_embeddings=True, initializer_range=0.2,
)  # fmt: skip
ONE = MeshShape(1, 1)
NO_NLL = PreferenceLoss("turn-mean", nll_coef=0.0, max_turns=3)


def a_row(ids, turns):
    return TokenRow(np.int32(ids), np.int32(turns))


# The first row has turns of two and three tokens, the second a single turn, padded by two.
TWO_TURNS = a_row([1, 7, 8, 9, 3, 4, 5, 6], [0, 1, 1, 0, 0, 2, 2, 2])
ONE_TURN = a_row([1, 11, 12, 13, 14, 15], [0, 0, 0, 1, 1, 1])
BATCH = pad_rows([TWO_TURNS, ONE_TURN], 8, pad_id=0)


@functools.cache
def tiny(shape=ONE):
    mesh = make_mesh(shape)
    return Llama(CONFIG, mesh), init_params(CONFIG, jax.random.key(0), mesh)


@pytest.mark.slow
def test_the_log_ratio_critic_is_the_mean_log_ratio_of_each_turn():
    model, params = tiny()
    ref_bt = -np.random.default_rng(0).uniform(1, 5, (2, 8)).astype(np.float32)
    ratio = np.asarray(token_logps(model, params, jnp.asarray(BATCH.tokens_bt))) - ref_bt
    expected = [[ratio[0, 1:3].mean(), ratio[0, 5:8].mean(), 0], [ratio[1, 3:6].mean(), 0, 0]]
    np.testing.assert_allclose(make_log_ratio_critic(model, 3)(params, BATCH, ref_bt), expected, atol=1e-5)
    sums = [[ratio[0, 1:3].sum(), ratio[0, 5:8].sum(), 0], [ratio[1, 3:6].sum(), 0, 0]]
    np.testing.assert_allclose(make_log_ratio_critic(model, 3, "sum")(params, BATCH, ref_bt), sums, atol=1e-5)


@pytest.mark.slow
def test_the_log_ratio_critic_equals_zero_for_the_start_model_itself():
    model, params = tiny()
    ref_bt = token_logps(model, params, jnp.asarray(BATCH.tokens_bt))
    np.testing.assert_allclose(make_log_ratio_critic(model, 3)(params, BATCH, ref_bt), np.zeros((2, 3)), atol=1e-6)


@pytest.mark.slow
def test_the_value_head_is_linear_in_the_mean_hidden_state_of_each_turn():
    model, llama = tiny()
    params = add_value_head(llama, CONFIG.hidden_size, jax.random.key(1), model.mesh)
    params["head"]["bias"] = jnp.array([0.25])
    hidden = np.asarray(hidden_states(model, llama, jnp.asarray(BATCH.tokens_bt)))
    kernel = np.asarray(params["head"]["kernel"])[:, 0]
    turns = (hidden[0, 1:3], hidden[0, 5:8], hidden[1, 3:6])
    first, second, only = (turn.mean(axis=0) @ kernel + 0.25 for turn in turns)
    found = make_head_critic(model, 3)(params, BATCH)
    np.testing.assert_allclose(found, [[first, second, 0], [only, 0, 0]], atol=1e-5)


@pytest.mark.slow
def test_a_prefix_value_is_read_before_and_at_the_end_of_each_turn():
    model, llama = tiny()
    params = add_value_head(llama, CONFIG.hidden_size, jax.random.key(1), model.mesh)
    params["head"]["bias"] = jnp.array([0.25])
    value = (
        np.asarray(hidden_states(model, llama, jnp.asarray(BATCH.tokens_bt))) @ params["head"]["kernel"][:, 0] + 0.25
    )
    before, after = prefix_values(model, params, jax.tree.map(jnp.asarray, BATCH), 3)
    np.testing.assert_allclose(before, [[value[0, 0], value[0, 4], 0], [value[1, 2], 0, 0]], atol=1e-5)
    np.testing.assert_allclose(after, [[value[0, 2], value[0, 7], 0], [value[1, 5], 0, 0]], atol=1e-5)
    found = make_head_critic(model, 3, "prefix-value")(params, BATCH)
    np.testing.assert_allclose(found, after - before, atol=1e-5)


@pytest.mark.slow
def test_the_loss_of_prefix_values_is_the_cross_entropy_of_every_prefix_with_the_outcome():
    model, llama = tiny()
    params = add_value_head(llama, CONFIG.hidden_size, jax.random.key(1), model.mesh)
    empty = a_row([], [])
    sides = (pad_rows([row, empty], 8, pad_id=0) for row in (TWO_TURNS, ONE_TURN))
    pairs = jax.tree.map(jnp.asarray, PairBatch(*sides))
    objective = prefix_value_objective(model, 3)
    loss, metrics = objective.loss(params, pairs, objective.counts(pairs))
    (before_won, after_won), (before_lost, after_lost) = (
        map(np.asarray, prefix_values(model, params, rows, 3)) for rows in (pairs.chosen, pairs.rejected)
    )
    won = np.log1p(np.exp(-np.stack([before_won[0, :2], after_won[0, :2]]))).mean()
    lost = np.log1p(np.exp(np.stack([before_lost[0, :1], after_lost[0, :1]]))).mean()
    np.testing.assert_allclose(loss, (won + lost) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards/chosen"].value, after_won[0, 1], rtol=1e-5)
    np.testing.assert_allclose(metrics["rewards/rejected"].value, after_lost[0, 0], rtol=1e-5)


@pytest.mark.slow
def test_what_follows_a_turn_changes_no_value_of_that_turn():
    model, llama = tiny()
    params = add_value_head(llama, CONFIG.hidden_size, jax.random.key(1), model.mesh)
    other = pad_rows([a_row([1, 7, 8, 9, 3, 30, 31, 32], TWO_TURNS.turns), ONE_TURN], 8, pad_id=33)
    critic = make_head_critic(model, 3)
    found, before = critic(params, other), critic(params, BATCH)
    np.testing.assert_allclose(found[:, 0], before[:, 0], atol=1e-6)
    assert abs(float(found[0, 1] - before[0, 1])) > 1e-4


@pytest.mark.slow
def test_both_critics_give_the_same_on_eight_devices():
    wide = pad_rows([TWO_TURNS, ONE_TURN] * 2, 8, pad_id=0)
    ref_bt = np.full((4, 8), -2.0, np.float32)

    def both(model, llama):
        params = add_value_head(llama, CONFIG.hidden_size, jax.random.key(1), model.mesh)
        return make_log_ratio_critic(model, 3)(llama, wide, ref_bt), make_head_critic(model, 3)(params, wide)

    for found, expected in zip(both(*tiny(MeshShape(4, 2))), both(*tiny()), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_the_value_head_learns_to_order_a_pair():
    model, llama = tiny(MeshShape(2, 2))
    params = add_value_head(llama, CONFIG.hidden_size, jax.random.key(1), model.mesh)
    optimizer = optax.adam(3e-3)
    shapes = value_head_shapes(param_shapes(CONFIG, model.mesh), CONFIG.hidden_size, model.mesh)
    param_places = shardings_of(shapes)
    shardings = state_shardings(optimizer, params, param_places)
    step = make_train_step(value_head_objective(model, NO_NLL), optimizer, shardings, model.mesh)
    pairs = PairBatch(pad_rows([ONE_TURN] * 2, 8, pad_id=0), pad_rows([TWO_TURNS] * 2, 8, pad_id=0))
    state, losses = init_state(optimizer, params, shardings), []
    for _ in range(20):
        state, metrics = step(state, pairs)
        losses.append(metrics["loss"].value)
    assert losses[0] == pytest.approx(np.log(2), abs=0.05)
    assert losses[-1] < 0.5
    assert metrics["rewards/accuracies"].value == 1.0


@pytest.mark.slow
def test_a_value_head_with_an_nll_is_refused():
    with pytest.raises(BadInput, match="nll_coef is 0.01"):
        value_head_objective(tiny()[0], PreferenceLoss(nll_coef=0.01))


def test_public_values_move_to_the_places_of_the_same_tokens_in_the_privileged_row():
    public = a_row([1, 7, 8, 9, 4], [0, 1, 1, 0, 2])
    privileged = a_row([1, 20, 21, 7, 8, 9, 4], [0, 0, 0, 1, 1, 0, 2])
    moved = align_logps(public, np.float32([0, 0.1, 0.2, 0.3, 0.4]), privileged)
    np.testing.assert_array_equal(moved, np.float32([0, 0, 0, 0.1, 0.2, 0, 0.4]))


@pytest.mark.parametrize(
    ("ids", "turns"), [([1, 7, 8, 4], [0, 1, 1, 0]), ([1, 7, 9, 4], [0, 1, 1, 2]), ([1, 7, 8, 4], [0, 1, 2, 2])]
)
def test_rows_that_count_different_tokens_are_refused(ids, turns):
    with pytest.raises(BadInput, match="have different action tokens"):
        align_logps(a_row([1, 7, 8, 4], [0, 1, 1, 2]), np.zeros(4, np.float32), a_row(ids, turns))
