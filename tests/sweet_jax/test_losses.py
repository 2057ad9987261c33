"""The losses against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.losses import (
    AGGREGATIONS,
    MeanMetric,
    drop_first_token,
    nll,
    preference_loss,
    preference_metrics,
    turn_advantages,
    turn_sums,
)

# A dialogue of two agent turns: two tokens count in the first, one in the second, of at most three turns.
TURNS = jnp.array([[0, 1, 1, 0, 2, 0]])
LOGP = jnp.array([[0.0, -1.0, -2.0, -3.0, -4.0, -5.0]])
REF = jnp.array([[0.0, -1.5, -1.0, -9.0, -6.0, -7.0]])  # log-ratios of the three tokens: 0.5, -1.0 and 2.0


def test_turn_sums_add_up_each_turn_and_leave_out_what_does_not_count():
    x_bt = jnp.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    turns = turn_sums(x_bt, jnp.array([[0, 1, 1, 2], [3, 0, 1, 3]]), 3)
    np.testing.assert_array_equal(turns.sum_bk, [[5, 4, 0], [7, 0, 13]])
    np.testing.assert_array_equal(turns.count_bk, [[2, 1, 0], [1, 0, 2]])


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("turn-mean", [[-0.25, 2.0, 0.0]]), ("token-mean", [[-0.5 / 3, 2.0 / 3, 0.0]]), ("sum", [[-0.5, 2.0, 0.0]])],
)
def test_advantages_of_a_two_turn_dialogue_are_the_ones_worked_out_by_hand(aggregation, expected):
    np.testing.assert_allclose(turn_advantages(LOGP, REF, TURNS, 3, aggregation), expected, atol=1e-6)


@pytest.mark.slow
def test_a_row_without_counted_tokens_has_advantage_zero_and_finite_gradients():
    none = jnp.zeros_like(TURNS)
    for aggregation in AGGREGATIONS:
        total = lambda logp, how=aggregation: turn_advantages(logp, REF, none, 2, how).sum()  # noqa: E731
        value, gradient = jax.value_and_grad(total)(LOGP)
        assert value == 0.0
        np.testing.assert_array_equal(gradient, np.zeros((1, 6)))


def test_an_unknown_aggregation_is_named():
    with pytest.raises(Exception, match="mean-of-means"):
        turn_advantages(LOGP, REF, TURNS, 3, "mean-of-means")


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 0), st.floats(-5, 0), st.integers(0, 3)), min_size=9, max_size=9))
def test_token_mean_summed_over_turns_is_the_mean_over_all_tokens_that_count(tokens):
    logp, ref, turns = (np.array([column]) for column in zip(*tokens, strict=True))
    found = turn_advantages(jnp.float32(logp), jnp.float32(ref), jnp.int32(turns), 3, "token-mean").sum()
    counted = (logp - ref)[turns > 0]
    np.testing.assert_allclose(found, counted.mean() if counted.size else 0.0, atol=1e-5)


@pytest.mark.slow
@settings(deadline=None)
@given(st.sampled_from(AGGREGATIONS), st.integers(1, 5))
def test_padding_changes_no_advantage(aggregation, padding):
    wide = ((0, 0), (0, padding))
    logp = jnp.pad(LOGP, wide, constant_values=-7)
    found = turn_advantages(logp, jnp.pad(REF, wide), jnp.pad(TURNS, wide), 3, aggregation)
    np.testing.assert_allclose(found, turn_advantages(LOGP, REF, TURNS, 3, aggregation), atol=1e-6)


def test_the_preference_loss_of_scores_2_and_minus_1_at_beta_a_tenth_is_log_of_1_plus_exp_of_minus_0_3():
    loss = preference_loss(jnp.array([2.0, 0.0, -1.0]), jnp.array([-1.0, 0.0, 2.0]), beta=0.1)
    np.testing.assert_allclose(loss, [0.5543552, 0.6931472, 0.8543552], atol=1e-6)


def test_label_smoothing_mixes_in_the_loss_of_the_opposite_preference():
    loss = preference_loss(jnp.array([2.0]), jnp.array([-1.0]), beta=0.1, label_smoothing=0.1)
    np.testing.assert_allclose(loss, [0.9 * 0.5543552 + 0.1 * 0.8543552], atol=1e-6)


def test_the_preference_loss_stays_finite_for_huge_margins():
    loss = preference_loss(jnp.array([1e6, -1e6]), jnp.array([-1e6, 1e6]), beta=1.0)
    np.testing.assert_allclose(loss, [0.0, 2e6])


def test_preference_metrics_are_sums_over_the_pairs_present():
    metrics = preference_metrics(
        jnp.array([2.0, 1.0, 9.0]), jnp.array([-1.0, 3.0, 0.0]), jnp.array([True, True, False]), beta=0.5
    )
    assert {name: (float(ratio.sum), float(ratio.count)) for name, ratio in metrics.items()} == {
        "rewards/chosen": (1.5, 2.0),
        "rewards/rejected": (1.0, 2.0),
        "rewards/margins": (0.5, 2.0),
        "rewards/accuracies": (1.0, 2.0),
    }


def test_nll_sums_over_its_own_mask_and_never_counts_the_first_token():
    found = nll(jnp.array([[0.0, -1.0, -2.0, -4.0]]), jnp.array([[True, True, False, True]]))
    assert (float(found.sum), float(found.count)) == (5.0, 2.0)
    np.testing.assert_array_equal(drop_first_token(jnp.array([[True, True, False]])), [[False, True, False]])


def test_a_ratio_is_divided_once_and_is_zero_where_nothing_was_counted():
    assert MeanMetric(jnp.float32(3.0), jnp.float32(4.0)).value == 0.75
    assert MeanMetric(jnp.float32(0.0), jnp.float32(0.0)).value == 0.0
