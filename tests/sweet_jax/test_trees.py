"""Rows that share prefixes: as trees they give what they give as separate rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbench_env.types import BadInput
from models.config import LlamaConfig, ModelError
from models.llama import Llama
from models.lora import LoraConfig, init_lora
from models.parameters import init_params
from sweet_jax.critic import add_value_head, make_head_critic, prefix_value_objective, value_head_objective
from sweet_jax.data.batch import RowPair, TokenRow, default_buckets, pad_pairs, pad_rows
from sweet_jax.data.pair_trees import count_tokens, pair_capacity, plant_pairs, prompt_key
from sweet_jax.data.trees import action_slots, grow_trees, join_trees, pad_trees, tree_capacity
from sweet_jax.losses import AGGREGATIONS
from sweet_jax.mesh import MeshShape, make_mesh, put_rows
from sweet_jax.reference import ReferenceCache, pad_reference, reference_logps, row_values
from sweet_jax.train.objectives import PreferenceBatch, PreferenceLoss, preference_objective
from sweet_jax.train.step import compute_gradients
from sweet_jax.train.tree_objective import (
    tree_preference_objective,
    tree_prefix_value_objective,
    tree_value_head_objective,
)

ONE = MeshShape(1, 1)
VOCAB = 50


@functools.cache
def tiny(shape=ONE, dtype=jnp.float32, **others):
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=4, num_kv_heads=2, head_size=4,
        max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    mesh = make_mesh(shape)
    return Llama(config, mesh, dtype, **others), init_params(config, jax.random.key(0), mesh)


def row(prompt, *turns):
    """A row of a prompt and agent turns, one user token between two of them."""
    ids, numbers = list(prompt), [0] * len(prompt)
    for number, turn in enumerate(turns, start=1):
        between = [3] if number > 1 else []
        ids += [*between, *turn]
        numbers += [0] * len(between) + [number] * len(turn)
    return TokenRow(np.array(ids, np.int32), np.array(numbers, np.int32), 1)


def random_pairs(seed, prompts=3, each=3, turns=1):
    """Pairs after a few prompts, whose sides often begin alike or are those of another pair."""
    random = np.random.default_rng(seed)
    pairs = []
    for _ in range(prompts):
        prompt = [1, *random.integers(4, VOCAB, random.integers(3, 9))]
        sides = [
            row(prompt, *([4, *random.integers(4, 8, random.integers(1, 5)), 8 + side] for _ in range(turns)))
            for side in range(4)
        ]
        for _ in range(each):
            first, second = random.choice(4, 2, replace=False)
            pairs.append(RowPair(sides[first], sides[second]))
    return pairs


def both(pairs):
    return [side for pair in pairs for side in (pair.chosen, pair.rejected)]


rows_lists = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=6).map(
        lambda ids: TokenRow(np.array(ids, np.int32), np.ones(len(ids), np.int32))
    ),
    min_size=1,
    max_size=12,
)


@given(rows=rows_lists, capacity=st.integers(6, 20))
def test_every_token_sees_its_own_prefix_and_nothing_else(rows, capacity):
    trees = grow_trees(rows, capacity)
    assert sorted(number for tree in trees for number in tree.slots) == list(range(len(rows)))
    for tree in join_trees(trees, 2 * capacity):
        slots_t = np.arange(len(tree))
        sees_ts = (slots_t[None] <= slots_t[:, None]) & (slots_t[:, None] < tree.ends[None])
        for number, own in tree.slots.items():
            np.testing.assert_array_equal(tree.ids[own], rows[number].ids)
            np.testing.assert_array_equal(tree.positions[own], np.arange(len(own)))
            for place, slot in enumerate(own):
                assert np.flatnonzero(sees_ts[slot]).tolist() == own[: place + 1].tolist()


@given(rows=rows_lists)
def test_a_prefix_stands_once_where_there_is_room(rows):
    (tree,) = grow_trees(rows, 100)
    assert len(tree) == len({tuple(row.ids[:end].tolist()) for row in rows for end in range(1, len(row) + 1)})


def test_a_row_longer_than_a_tree_is_refused_with_the_numbers():
    with pytest.raises(BadInput, match="a row of 6 tokens is longer than a tree of 5"):
        grow_trees([row([1, 2, 3, 4, 5, 6])], 5)


def test_a_tree_has_room_for_two_rows():
    assert [tree_capacity(longest) for longest in (5, 33, 100, 250)] == [20, 96, 256, 512]


def by_rows(model, params, rows, **others):
    """Log-probs of each row alone."""
    found = []
    for one in rows:
        (found_one,) = reference_logps(
            model, params, [one], batch_size=4, buckets=(len(one),), pad_id=0, **others
        )  # one row shares nothing
        found.append(found_one)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("shape", [MeshShape(1, 1), MeshShape(4, 2), MeshShape(1, 2, 4)], ids=str)
def test_log_probs_of_trees_are_those_of_separate_rows(shape, tmp_path):
    rows = both(random_pairs(0, prompts=6, each=6, turns=2))
    expected = by_rows(*tiny(), rows)
    told = {"batch_size": 8, "buckets": default_buckets(64), "pad_id": 0, "cache": ReferenceCache(tmp_path)}
    for _ in range(2):  # computed, then read from the cache
        found = reference_logps(*tiny(shape), rows, **told)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)
    parts = list(tmp_path.glob("*/*.npz"))
    assert len(parts) < len(rows) / 8, "nothing was shared"


def losses(pairs, loss, shape=ONE, micro_batches=1, lora=False, dtype=jnp.float32, attention="xla"):
    """Loss, metrics and gradients of the pairs as (rows, trees)."""
    adapters = LoraConfig(2, 4.0) if lora else None
    model, params = tiny(shape, dtype, lora=adapters, attention=attention)
    refs = by_rows(*tiny(dtype=dtype), both(pairs))
    noise = [np.random.default_rng(side.ids).normal(size=len(side)) for side in both(pairs)]  # a ratio that is not 0
    refs = [np.float32(values + other) for values, other in zip(refs, noise, strict=True)]
    length = -(-max(map(len, pairs)) // 4) * 4
    rows = PreferenceBatch(
        pad_pairs(pairs, length, 0), pad_reference(refs[::2], length), pad_reference(refs[1::2], length)
    )
    trees = plant_pairs(pairs, refs, capacity=pair_capacity(pairs), multiple=shape.data * micro_batches, pad_id=0)
    trained, frozen = params, {}
    if lora:
        trained, frozen = {"lora": init_lora(model.config, adapters, jax.random.key(1), model.mesh)}, params
        trained = jax.tree.map(lambda x: x + 0.1, trained)
    both_ways = ((preference_objective, rows), (tree_preference_objective, trees))
    return [
        gradients_of(objective(model, loss), trained, batch, frozen, model.mesh, micro_batches)
        for objective, batch in both_ways
    ]


def gradients_of(objective, trained, batch, frozen, mesh, micro_batches=1):
    gradients, metrics = jax.jit(
        functools.partial(
            compute_gradients,
            objective,
            shardings=jax.tree.map(lambda x: x.sharding, trained),
            mesh=mesh,
            micro_batches=micro_batches,
        )
    )(trained, put_rows(batch, mesh), frozen=frozen)
    return gradients, {name: metric.value for name, metric in metrics.items()}


def with_head(model, params):
    tree = add_value_head(params, model.config.hidden_size, jax.random.key(2), model.mesh)
    return tree | {"head": jax.tree.map(lambda x: x * 20 + 0.25, tree["head"])}


def assert_same(found, close=2e-5):
    (rows, rows_metrics), (trees, trees_metrics) = found
    assert rows_metrics == pytest.approx(trees_metrics, abs=close, rel=close)
    for one, other in zip(jax.tree.leaves(rows), jax.tree.leaves(trees), strict=True):
        np.testing.assert_allclose(one, other, atol=close)


@pytest.mark.slow
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_loss_and_gradients_of_trees_are_those_of_separate_rows(aggregation):
    loss = PreferenceLoss(aggregation, 0.7, 0.2, 0.1, max_turns=3)
    assert_same(losses(random_pairs(1, turns=3), loss))


@pytest.mark.slow
def test_a_row_paired_with_itself_counts_in_the_nll_only():
    pairs = random_pairs(4)
    ties = [RowPair(pair.chosen, pair.chosen) for pair in random_pairs(5)]
    found = losses(pairs + ties, PreferenceLoss("sum", 0.7, 0.2, max_turns=1))
    assert_same(found)
    alone = losses(pairs, PreferenceLoss("sum", 0.7, 0.0, max_turns=1))
    without_nll = losses(pairs + ties, PreferenceLoss("sum", 0.7, 0.0, max_turns=1))
    assert_same((alone[1], (without_nll[1][0], alone[1][1])))
    of_same_rows = [RowPair(pair.chosen, pair.chosen) for pair in pairs]  # trees of the same shape: the same sums
    without_nll = losses(pairs + of_same_rows, PreferenceLoss("sum", 0.7, 0.0, max_turns=1))
    assert_same((alone[1], (without_nll[1][0], alone[1][1])))
    assert without_nll[1][1]["rewards/margins"] == pytest.approx(alone[1][1]["rewards/margins"])
    assert found[1][1]["nll"] != pytest.approx(alone[1][1]["nll"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"shape": MeshShape(4, 2), "micro_batches": 2},
        {"shape": MeshShape(1, 2, 4)},
        {"shape": MeshShape(2, 2), "attention": "splash"},
        {"lora": True},
        {"dtype": jnp.bfloat16, "close": 3e-2},
    ],
    ids=["mesh of 4x2, two micro-batches", "sequence axis", "kernels for TPUs", "adapters", "bfloat16"],
)
def test_trees_are_separate_rows_on_meshes_with_adapters_and_in_bfloat16(how):
    how, close = {name: value for name, value in how.items() if name != "close"}, how.get("close", 2e-5)
    pairs = random_pairs(3, prompts=12, each=2)[:16]
    assert_same(losses(pairs, PreferenceLoss("sum", 0.7, 0.2, max_turns=1), **how), close)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_pair_finds_its_branches(seed):
    pairs = random_pairs(seed, prompts=4, each=3, turns=2)
    refs = [np.arange(len(side), dtype=np.float32) + 100 * number for number, side in enumerate(both(pairs))]
    planted = plant_pairs(pairs, refs, capacity=pair_capacity(pairs), multiple=2, pad_id=0)
    assert planted.chosen_bp.shape[0] % 2 == 0
    sides = []
    for place, branch in np.argwhere(planted.chosen_bp > 0):
        for of in (planted.chosen_bp, planted.rejected_bp):
            mine = planted.branch_bm[place] == of[place, branch]
            sides.append((planted.trees.target_bm[place][mine].tolist(), planted.turn_bm[place][mine].tolist()))
    expected = [(side.ids[side.turns > 0].tolist(), side.turns[side.turns > 0].tolist()) for side in both(pairs)]
    assert sorted(zip(sides[::2], sides[1::2], strict=True)) == sorted(zip(expected[::2], expected[1::2], strict=True))


def test_pairs_that_do_not_fit_one_tree_are_split_and_a_pair_never_is():
    pairs = random_pairs(5, prompts=1, each=9)
    refs = [np.zeros(len(side), np.float32) for side in both(pairs)]
    longest = max(count_tokens([pair], (64,), together=True)[0] for pair in pairs)
    planted = plant_pairs(pairs, refs, capacity=longest, multiple=1, pad_id=0)
    assert (planted.chosen_bp > 0).sum() == 9 and planted.trees.tokens_bt.shape[0] > 1
    with pytest.raises(ValueError, match="does not fit a tree of"):
        plant_pairs(pairs, refs, capacity=max(map(len, pairs)), multiple=1, pad_id=0)


def test_pairs_after_the_same_prompt_save_most():
    pairs = random_pairs(6, prompts=2, each=8)
    assert len({prompt_key(pair) for pair in pairs}) == 2
    together, rows = count_tokens(pairs, (64,), together=True)
    alone, _ = count_tokens(pairs, (64,), together=False)
    assert together < alone / 3 < rows


def test_padding_sees_itself_only():
    (tree,) = grow_trees([row([1, 5], [6, 7])], 8)
    batch = pad_trees([tree], [action_slots(tree, [row([1, 5], [6, 7])])], 2, 8, 9)
    assert batch.tokens_bt.tolist() == [[1, 5, 6, 7, 9, 9, 9, 9], [9] * 8]
    assert batch.end_bt.tolist() == [[4, 4, 4, 4, 5, 6, 7, 8], list(range(1, 9))]
    assert batch.before_bm[0, :3].tolist() == [1, 2, 0] and batch.target_bm[0, :3].tolist() == [6, 7, 0]


def test_a_kernel_that_cannot_compute_trees_says_so():
    model, params = tiny(attention="cudnn")
    ints = jnp.zeros((1, 8), jnp.int32)
    with pytest.raises(ModelError, match="attention 'cudnn' cannot compute rows that are trees: use 'xla'"):
        model.apply({"params": params}, ints, ints, ends_bt=ints + 8)


HEADS = {
    "value-head": (value_head_objective, tree_value_head_objective),
    "prefix-value": (prefix_value_objective, tree_prefix_value_objective),
}
ON_ONE, ON_EIGHT = {}, {"shape": MeshShape(4, 2), "micro_batches": 2}


@pytest.mark.slow
@pytest.mark.parametrize("how", [ON_ONE, ON_EIGHT, {"lora": True}], ids=["one device", "mesh of 4x2", "adapters"])
@pytest.mark.parametrize("kind", HEADS)
def test_loss_and_gradients_of_a_head_are_those_of_separate_rows(kind, how):
    shape, micro_batches = how.get("shape", ONE), how.get("micro_batches", 1)
    adapters = LoraConfig(2, 4.0) if how.get("lora") else None
    model, params = tiny(shape, lora=adapters)
    pairs = random_pairs(7, prompts=12, each=2, turns=3)[:14] + [RowPair(*2 * (row([1, 9], [4, 5]),))] * 2
    told = PreferenceLoss("turn-mean", 0.7, 0.0, 0.1, max_turns=3)
    told = told if kind == "value-head" else told.max_turns
    trained, frozen = with_head(model, params), {}
    if adapters:
        lora = {"lora": init_lora(model.config, adapters, jax.random.key(1), model.mesh)}
        trained, frozen = trained | {"llama": jax.tree.map(lambda x: x + 0.1, lora)}, {"llama": params}
    rows = pad_pairs(pairs, 40, 0)
    trees = plant_pairs(pairs, None, capacity=pair_capacity(pairs), multiple=shape.data * micro_batches, pad_id=0)
    assert (trees.trees.tokens_bt > 0).sum() < 0.8 * sum(map(len, both(pairs))), "nothing was shared"
    found = [
        gradients_of(objective(model, told), trained, batch, frozen, model.mesh, micro_batches)
        for objective, batch in zip(HEADS[kind], (rows, trees), strict=True)
    ]
    assert_same(found)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(found[0][0])) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("shape", [MeshShape(1, 1), MeshShape(4, 2)], ids=str)
@pytest.mark.parametrize("kind", HEADS)
def test_scores_of_a_head_are_those_of_separate_rows(kind, shape, tmp_path):
    sides = both(random_pairs(8, prompts=6, each=6, turns=2))
    model, params = tiny(shape)
    told = {"batch_size": 8, "buckets": default_buckets(64), "pad_id": 0, "cache": ReferenceCache(tmp_path)}
    found = row_values(model, with_head(model, params), sides, **told)
    assert len(list(tmp_path.glob("*/*.npz"))) < len(sides) / 8, "nothing was shared"
    alone, params = tiny()
    expected = make_head_critic(alone, 2, kind)(with_head(alone, params), pad_rows(sides, 64, 0))
    for side, value_t2, score_k in zip(sides, found, expected, strict=True):
        for turn in (1, 2):
            before_n, at_n = value_t2[side.turns == turn].T
            score = at_n.mean() if kind == "value-head" else at_n[-1] - before_n[0]
            assert score == pytest.approx(float(score_k[turn - 1]), abs=2e-5)
