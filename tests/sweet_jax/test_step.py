"""The train step: micro-batches, meshes, shardings, donation, compilations; and the optimiser's schedule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from colbench_env.types import BadInput
from models.config import LlamaConfig
from models.llama import Llama
from models.lora import LoraConfig, init_lora, lora_shardings
from models.parameters import init_params, param_shardings
from sweet_jax.data.batch import RowPair, TokenRow, pad_pairs
from sweet_jax.logprobs import token_logps
from sweet_jax.mesh import MeshShape, make_mesh, put_rows
from sweet_jax.train.objectives import PreferenceBatch, PreferenceLoss, nll_objective, preference_objective
from sweet_jax.train.optim import learning_rate, make_optimizer
from sweet_jax.train.settings import Training
from sweet_jax.train.step import (
    abstract_state,
    compute_gradients,
    init_state,
    make_train_step,
    split_micro_batches,
    state_shardings,
)

pytestmark = pytest.mark.slow

ONE = MeshShape(1, 1)
CONFIG = LlamaConfig(
    vocab_size=40, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2, num_kv_heads=2, head_size=8,
    max_position_embeddings=32, tie_word_embeddings=True, initializer_range=0.2,
)  # fmt: skip


def uneven_pairs(count):
    """Pairs of two-turn rows whose lengths, and so whose numbers of counted tokens, all differ."""
    random = np.random.default_rng(0)

    def row():
        turns = np.repeat([0, 1, 0, 2], random.integers(1, 4, 4)).astype(np.int32)
        return TokenRow(random.integers(0, 40, turns.size).astype(np.int32), turns)

    return [RowPair(row(), row()) for _ in range(count)]


def preference_batch(count=8):
    pairs = pad_pairs(uneven_pairs(count), 12, pad_id=0)
    random = np.random.default_rng(1)
    refs = -random.uniform(1, 5, (2, count, 12)).astype(np.float32)
    return PreferenceBatch(pairs, *refs)


logps = jax.jit(token_logps, static_argnums=0)


@functools.cache
def first_params(mesh):
    return init_params(CONFIG, jax.random.key(0), mesh)


class Setting:
    """A model, an optimiser (plain SGD, so that updates are gradients) and shardings on one mesh."""

    def __init__(self, shape=ONE, optimizer=None):
        self.mesh = make_mesh(shape)
        self.model = Llama(CONFIG, self.mesh)
        self.params = first_params(self.mesh)
        self.optimizer = optimizer or optax.sgd(1.0)
        self.shardings = state_shardings(self.optimizer, self.params, param_shardings(CONFIG, self.mesh))
        self.preference = preference_objective(self.model, PreferenceLoss("turn-mean", nll_coef=0.5), chunk=4)

    def state(self):
        return init_state(self.optimizer, self.params, self.shardings)

    def step(self, objective=None, micro_batches=1):
        """A step of its own, which nothing has compiled yet."""
        return make_train_step(objective or self.preference, self.optimizer, self.shardings, self.mesh, micro_batches)


@functools.cache
def plain():
    """The setting of one device and its step, which most tests share, and so compile it once."""
    setting = Setting()
    return setting, setting.step()


def assert_close(found, expected, tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


def test_rows_are_dealt_to_micro_batches_in_turn_and_none_moves_to_another_device():
    mesh = make_mesh(MeshShape(4, 2))
    rows = put_rows(np.arange(8), mesh)
    deal = jax.jit(lambda x: split_micro_batches(x, 2, mesh))
    np.testing.assert_array_equal(deal(rows), [[0, 2, 4, 6], [1, 3, 5, 7]])
    program = deal.lower(rows).compile().as_text()
    assert not [word for word in ("all-gather", "all-to-all", "collective-permute", "all-reduce") if word in program]


@pytest.mark.parametrize("kind", ["preference", "nll"])
def test_one_and_four_micro_batches_of_uneven_rows_give_the_same_update_and_metrics(kind):
    (setting, step), batch = plain(), preference_batch()
    objective = setting.preference
    if kind == "nll":
        objective, batch = nll_objective(setting.model, chunk=4), batch.pairs.chosen
        step = setting.step(objective)
    counted = (batch if kind == "nll" else batch.pairs.chosen).nll_bt.sum(axis=1)
    assert len(set(counted.tolist())) > 2  # else means of means would agree too
    once, metrics_once = step(setting.state(), batch)
    dealt, metrics_dealt = setting.step(objective, 4)(setting.state(), batch)
    assert_close(dealt.params, once.params, 1e-6)
    assert {name: ratio.value for name, ratio in metrics_dealt.items()} == pytest.approx(
        {name: ratio.value for name, ratio in metrics_once.items()}, rel=1e-4, abs=1e-5
    )
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), once.params, setting.params))) > 1e-3


def test_a_mesh_of_4x2_gives_the_update_of_one_device():
    (alone, step), sharded = plain(), Setting(MeshShape(4, 2))
    expected, metrics = step(alone.state(), preference_batch())
    found, sharded_metrics = sharded.step()(sharded.state(), preference_batch())
    assert_close(found.params, expected.params, 1e-5)
    assert sharded_metrics["loss"].value == pytest.approx(metrics["loss"].value, abs=1e-5)


def test_three_steps_of_adamw_in_two_micro_batches_on_4x2_agree_with_one_device():
    def trained(shape, micro_batches):
        setting = Setting(shape, make_optimizer(Training(learning_rate=1e-3), total_steps=3))
        state, step = setting.state(), setting.step(micro_batches=micro_batches)
        for _ in range(3):
            state, _ = step(state, preference_batch())
        return state

    assert_close(trained(MeshShape(4, 2), 2), trained(MeshShape(), 1), 1e-5)


def test_gradients_moments_and_new_parameters_lie_as_the_parameters_do():
    setting = Setting(MeshShape(4, 2), make_optimizer(Training(), total_steps=3))
    batch = put_rows(preference_batch(), setting.mesh)
    shardings = setting.shardings.params

    def grads(params):
        return compute_gradients(setting.preference, params, batch, shardings, setting.mesh, 2, {})[0]

    state, _ = setting.step(micro_batches=2)(setting.state(), batch)
    adam = next(part for part in jax.tree.leaves(state.opt_state, is_leaf=is_adam) if is_adam(part))
    for tree in (jax.jit(grads)(setting.params), state.params, adam.mu, adam.nu):
        same = jax.tree.map(lambda x, sharding: x.sharding.is_equivalent_to(sharding, x.ndim), tree, shardings)
        assert all(jax.tree.leaves(same))
    embedding = state.params["embedding"]
    assert {shard.data.size for shard in embedding.addressable_shards} == {embedding.size // 8}


def is_adam(part):
    return isinstance(part, optax.ScaleByAdamState)


def test_a_shape_is_compiled_once_and_another_shape_once_more():
    setting = Setting()
    step, state = setting.step(), setting.state()
    for count in (8, 8, 8):
        state, _ = step(state, preference_batch(count))
    assert step.compilations == 1
    state, _ = step(state, preference_batch(4))
    assert step.compilations == 2
    assert int(state.step) == 4


def test_the_state_is_donated_and_the_callers_parameters_are_not():
    setting, step = plain()
    state = setting.state()
    step(state, preference_batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(setting.params))


def test_a_batch_that_the_mesh_does_not_divide_is_refused_before_anything_is_compiled():
    setting = Setting(MeshShape(4, 2))
    step = setting.step(micro_batches=2)
    with pytest.raises(BadInput, match="batch of 12 .* 2 micro-batches .* data axis of 4"):
        step(setting.state(), preference_batch(12))
    assert step.compilations == 0


def test_the_abstract_state_has_the_shapes_and_shardings_of_the_real_one():
    setting = Setting(MeshShape(4, 2), make_optimizer(Training(), total_steps=3))
    described = abstract_state(setting.optimizer, setting.params, setting.shardings)
    real = setting.state()
    assert jax.tree.structure(described) == jax.tree.structure(real)
    for shape, leaf in zip(jax.tree.leaves(described), jax.tree.leaves(real), strict=True):
        assert (shape.shape, shape.dtype) == (leaf.shape, leaf.dtype)
        assert shape.sharding.is_equivalent_to(leaf.sharding, leaf.ndim)


def test_pairs_that_fill_up_a_batch_change_nothing():
    setting, step = plain()
    empty = TokenRow(np.zeros(0, np.int32), np.zeros(0, np.int32))
    pairs, real = uneven_pairs(4), preference_batch(4)
    filled = PreferenceBatch(
        pad_pairs(pairs + [RowPair(empty, empty)] * 4, 12, pad_id=0),
        *(np.concatenate([ref, np.zeros((4, 12), np.float32)]) for ref in (real.chosen_ref_bt, real.rejected_ref_bt)),
    )
    expected, metrics = step(setting.state(), real)
    found, filled_metrics = step(setting.state(), filled)
    assert_close(found.params, expected.params, 1e-6)
    assert filled_metrics["rewards/margins"].value == pytest.approx(metrics["rewards/margins"].value, abs=1e-6)


def test_per_turn_dpo_and_trajectory_dpo_are_the_sum_over_counted_tokens():
    """The loss of the step, worked out again from token log-probs with numpy, for aggregation "sum"."""
    setting, batch = Setting(), preference_batch()
    scores = []
    for rows, ref in ((batch.pairs.chosen, batch.chosen_ref_bt), (batch.pairs.rejected, batch.rejected_ref_bt)):
        logp = np.asarray(logps(setting.model, setting.params, rows.tokens_bt))
        scores.append(((logp - ref) * (rows.turn_bt > 0)).sum(axis=1))
    expected = np.log1p(np.exp(-0.1 * (scores[0] - scores[1]))).mean()
    objective = preference_objective(setting.model, PreferenceLoss("sum", nll_coef=0.0), chunk=4)
    _, metrics = setting.step(objective)(setting.state(), batch)
    assert metrics["loss"].value == pytest.approx(expected, abs=1e-5)
    assert metrics["rewards/margins"].value == pytest.approx(0.1 * (scores[0] - scores[1]).mean(), abs=1e-5)


def test_training_on_pairs_raises_the_margin():
    setting = Setting(optimizer=make_optimizer(Training(learning_rate=1e-2), total_steps=10))
    step, state, margins = setting.step(), setting.state(), []
    for _ in range(10):
        state, metrics = step(state, preference_batch())
        margins.append(metrics["rewards/margins"].value)
    assert margins[-1] > margins[0] + 0.05


def test_the_rate_rises_to_the_peak_and_falls_along_a_cosine_to_a_tenth():
    training = Training(learning_rate=1e-3, warmup_ratio=0.2)
    rates = [float(learning_rate(training, 10, step)) for step in range(10)]
    np.testing.assert_allclose(rates[:3], [5e-4, 1e-3, 9.657e-4], rtol=1e-3)
    np.testing.assert_allclose(rates[5], 5.5e-4, rtol=1e-3)
    np.testing.assert_allclose(rates[9], 1e-4, rtol=1e-3)


def test_the_optimiser_clips_the_global_norm_of_the_gradient():
    optimizer = make_optimizer(Training(learning_rate=0.5, warmup_ratio=0.0, max_grad_norm=1.0), total_steps=1000)
    params = {"w": jnp.zeros(2)}
    state = optimizer.init(params)
    _, state = optimizer.update({"w": jnp.array([30.0, 40.0])}, state, params)
    adam = next(part for part in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(part))
    np.testing.assert_allclose(adam.mu["w"], [0.06, 0.08], rtol=1e-5)
    np.testing.assert_allclose(adam.nu["w"], [0.018, 0.032], rtol=1e-5)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"warmup_ratio": 1.5}, "warmup_ratio is 1.5"),
        ({"adam_beta2": 1.0}, "adam_beta2 is 1.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
    ],
)
def test_hyper_parameters_out_of_range_are_named_with_their_number(setting, words):
    with pytest.raises(BadInput, match=words):
        Training(**setting)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"aggregation": "mean"}, "'mean'"),
        ({"beta": 0.0}, "beta 0.0"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5"),
        ({"max_turns": 0}, "max_turns is 0"),
    ],
)
def test_preference_settings_out_of_range_are_named_with_their_number(setting, words):
    with pytest.raises(Exception, match=words):
        PreferenceLoss(**setting)


# --- adapters --------------------------------------------------------------------------------------------------------


def test_adapters_learn_while_the_network_under_them_is_the_reference_and_stays_as_it_is():
    lora, mesh = LoraConfig(rank=2, alpha=4.0), make_mesh(MeshShape(4, 2))
    model, frozen = Llama(CONFIG, mesh, lora=lora), first_params(mesh)
    pairs = preference_batch().pairs
    references = [logps(model, frozen, side.tokens_bt) for side in (pairs.chosen, pairs.rejected)]
    with_reference = PreferenceBatch(pairs, *references)
    optimizer, first = optax.adam(3e-2), init_lora(CONFIG, lora, jax.random.key(1), mesh)
    shardings = state_shardings(optimizer, first, lora_shardings(CONFIG, lora, mesh))
    objective = preference_objective(model, PreferenceLoss("turn-mean", beta=1.0, nll_coef=0.0))
    step = make_train_step(objective, optimizer, shardings, mesh, frozen=frozen)
    before, state, losses = jax.tree.map(np.array, frozen), init_state(optimizer, first, shardings), []
    for _ in range(12):
        state, metrics = step(state, with_reference)
        losses.append(metrics["loss"].value)
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5)  # adapters that do nothing are the reference
    assert losses[-1] < 0.5 * losses[0]
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(frozen))
    assert state.params.keys() == {"lora"}
