"""Means, intervals and differences of graded trajectories."""

import itertools
import json
import math

import pytest

from colbench_env.statistics import (
    BestOf,
    Bin,
    Difference,
    Estimate,
    Summary,
    TurnCount,
    best_of,
    bootstrap,
    compare,
    expected_best,
    histogram,
    rewards_by_task,
    sign_flip_p,
    summarise,
)
from colbench_env.types import NO_ANSWER, BadInput, Message, Task, Trajectory


def trajectory(task, reward, turns=1, tokens=None, verdicts=None, answer="x = 1"):
    extra = {} if tokens is None else {"tokens": tokens}
    said = (Message("user", "u"), Message("assistant", "a", extra=extra))
    return Trajectory(Task(task, "ref"), said * turns, answer, reward, {"verdicts": verdicts} if verdicts else {})


def test_the_interval_is_that_of_the_binomial_the_resamples_draw_from():
    # Means of ten fair coins: P(<= 0.1) = 1.1 %, P(<= 0.2) = 5.5 %, and the same from above.
    assert bootstrap([0.0] * 5 + [1.0] * 5) == Estimate(0.5, 0.2, 0.8)


def test_equal_values_have_an_interval_of_no_width():
    assert bootstrap([0.75] * 4) == Estimate(0.75, 0.75, 0.75)


def test_the_same_values_give_the_same_interval():
    values = [0.1, 0.4, 0.35, 0.9, 0.0, 1.0, 0.2]
    assert bootstrap(values) == bootstrap(iter(values))
    assert bootstrap(values, seed=1) != bootstrap(values)


def test_nothing_counted_is_no_number_and_is_written_as_null():
    nothing = bootstrap([])
    assert all(map(math.isnan, (nothing.mean, nothing.low, nothing.high)))
    assert nothing.to_json() == {"mean": None, "low": None, "high": None}
    assert math.isnan(Estimate.from_json(nothing.to_json()).low)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ((0.1, 0.3), (0.4, 0.6), False),
        ((0.1, 0.4), (0.4, 0.6), True),
        ((0.2, 0.3), (0.1, 0.9), True),
        ((0.1, 0.3), (math.nan, math.nan), True),
    ],
)
def test_intervals_that_share_a_point_overlap(one, other, overlap):
    first, second = Estimate(0.5, *one), Estimate(0.5, *other)
    assert (first.overlaps(second), second.overlaps(first)) == (overlap, overlap)


def test_a_summary_counts_what_has_a_reward_and_tells_what_has_none():
    found = summarise([
        trajectory("a", 1.0, turns=3, tokens=4, verdicts={"test1": "pass", "test2": "pass"}),
        trajectory("b", 0.5, turns=1, tokens=10, verdicts={"test1": "wrong", "test2": "pass"}),
        trajectory("c", 0.0, 3, 5, {"test1": "no-answer", "test2": "no-answer"}, NO_ANSWER),
        trajectory("d", None, turns=1, verdicts={"test1": "infrastructure-error"}, answer=NO_ANSWER),
    ])  # fmt: skip
    assert (found.dialogues, found.excluded, found.tasks) == (4, 1, 3)
    assert (found.reward.mean, found.success.mean) == (0.5, 1 / 3)
    assert (found.turns, found.reply_tokens) == (2.0, (3 * 4 + 10 + 3 * 5) / 7)
    assert (found.unasked, found.unanswered) == (1, 2)
    assert list(found.verdicts.items()) == [("pass", 3), ("wrong", 1), ("no-answer", 2), ("infrastructure-error", 1)]
    assert found.by_turns == (TurnCount(1, 2, 1, 0, 0.5), TurnCount(3, 2, 2, 1, 1.0))


def test_samples_of_one_task_make_one_value():
    rows = [trajectory("a", 1.0), trajectory("b", 0.0), trajectory("a", 0.0), trajectory("b", 0.5)]
    ids = [Task("a", "ref").task_id, Task("b", "ref").task_id]
    assert rewards_by_task(rows) == {ids[0]: [1.0, 0.0], ids[1]: [0.0, 0.5]}
    found = summarise(rows)
    assert (found.tasks, found.dialogues) == (2, 4)
    assert found.reward == Estimate(0.375, 0.25, 0.5)  # task means 0.5 and 0.25
    assert found.success == Estimate(0.25, 0.0, 0.5)  # task means 0.5 and 0.0


def test_replies_without_token_counts_have_no_mean_length():
    assert summarise([trajectory("a", 1.0)]).reply_tokens is None


def test_the_paired_difference_is_certain_where_every_task_gains_the_same():
    before = [trajectory("a", 0.0), trajectory("b", 0.25), trajectory("c", 0.5)]
    after = [trajectory("a", 0.5), trajectory("b", 0.75), trajectory("c", 1.0)]
    found = compare(before, after)
    assert (found.tasks, found.reward) == (3, Estimate(0.5, 0.5, 0.5))
    assert found.success == Estimate(1 / 3, 0.0, 1.0)
    before_alone, after_alone = summarise(before).reward, summarise(after).reward
    assert before_alone.overlaps(after_alone)  # what pairing removes: the tasks differ more than the policies


def test_a_task_without_reward_on_one_side_is_left_out_of_the_difference():
    before = [trajectory("a", 0.0), trajectory("b", None)]
    after = [trajectory("b", 1.0), trajectory("a", 1.0)]  # paired by task, not by line
    one = Estimate(1.0, 1.0, 1.0)
    assert compare(before, after) == Difference(1, one, one, one, 1.0, 1.0, 0, only_after=1, gained=1, lost=0)


def test_policies_are_compared_on_the_tasks_that_both_have():
    before = [trajectory("a", 1.0), trajectory("b", 0.5), trajectory("c", 1.0)]
    after = [trajectory("b", 1.0), trajectory("c", 0.0), trajectory("d", 1.0), trajectory("e", 1.0)]
    found = compare(before, after)
    assert (found.tasks, found.only_before, found.only_after) == (2, 1, 2)
    assert (found.reward.mean, found.success.mean) == (-0.25, 0.0)
    assert (found.gained, found.lost, found.wins.mean) == (1, 1, 0.5)
    nothing = compare(before[:1], after)
    assert (nothing.tasks, nothing.p_success) == (0, 1.0) and math.isnan(nothing.success.mean)
    with pytest.raises(BadInput, match="no trajectories"):
        summarise([])


def test_the_win_rate_takes_every_pair_of_dialogues_about_a_task_and_counts_ties_half():
    before = [trajectory("a", 0.5), trajectory("a", 0.9), trajectory("b", 0.2)]
    after = [trajectory("a", 0.9), trajectory("b", 0.2 + 1e-9), trajectory("c", 1.0)]
    assert compare(before, after).wins.mean == (0.75 + 0.5) / 2  # a: a win and a tie; b: a tie; c is in one file only


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([], 1.0),
        ([0.0, 0.0], 1.0),
        ([1.0], 1.0),
        ([1.0, 1.0, 1.0, 0.0, -1.0], 0.625),  # McNemar: twice the chance of at least 3 heads in 4 throws, 5/16
        ([1.0] * 10, 2 / 2**10),
        ([-0.3] * 10, 2 / 2**10),
        ([0.1, 0.2, 0.4], 0.25),  # of 8 choices only + + + and - - - reach 0.7
        ([1 / 3, 1 / 3, -2 / 3], 1.0),
        ([1.0] * 600, 2.0**-599),  # nothing is lost to rounding
    ],
)
def test_the_paired_test_counts_the_choices_of_signs(differences, p):
    assert sign_flip_p(differences) == pytest.approx(p, rel=1e-9)


def test_the_paired_test_agrees_with_going_through_all_choices():
    differences = [0.3, -0.1, 0.7, 0.2, 0.2, -0.4, 1.0, 0.1]
    seen = abs(sum(differences))
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in itertools.product((1, -1), repeat=8)
    ]
    assert sign_flip_p(differences) == sum(abs(x) > seen - 1e-9 for x in sums) / 2**8


def test_differences_without_a_common_unit_are_rounded_to_a_thousandth():
    assert sign_flip_p([0.12345, 0.54321, 0.77777, 1 / 7, 1 / 11, 1 / 13]) == 2 / 2**6


@pytest.mark.parametrize(
    ("values", "k", "best"),
    [
        ([0.0, 0.5, 1.0], 1, 0.5),
        ([0.0, 0.5, 1.0], 2, (0.5 + 1.0 + 1.0) / 3),
        ([1.0, 0.5, 0.0], 3, 1.0),
        ([1.0, 0.0, 0.0, 0.0, 0.0], 2, 1 - (4 * 3) / (5 * 4)),  # pass@k: 1 - C(4, 2) / C(5, 2)
        ([1.0, 1.0, 1.0, 0.0, 0.0], 3, 1.0),
    ],
)
def test_the_best_of_k_is_the_mean_over_all_choices_of_k(values, k, best):
    assert expected_best(values, k) == pytest.approx(best)


@pytest.mark.slow
def test_the_best_of_k_is_told_for_doubling_k_over_the_tasks_that_have_so_many_samples():
    rows = [trajectory("a", reward) for reward in (1.0, 0.0, 0.5)] + [trajectory("b", 0.0), trajectory("b", 0.5)]
    assert [(b.k, b.tasks, b.reward.mean, b.success.mean) for b in best_of(rows)] == [
        (1, 2, pytest.approx(0.375), pytest.approx(1 / 6)),
        (2, 2, pytest.approx((2.5 / 3 + 0.5) / 2), pytest.approx(1 / 3)),
        (3, 1, 1.0, 1.0),
    ]
    assert best_of(rows)[2].to_json()["success"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert isinstance(best_of(rows)[0], BestOf)
    assert best_of([trajectory("a", 1.0), trajectory("b", 1.0)]) == ()


def test_lengths_are_counted_in_bins_that_grow():
    assert histogram([3, 4, 12]) == (Bin(2, 4, 2), Bin(5, 9, 0), Bin(10, 19, 1))
    assert histogram([0, 1, 1, 2_000_000])[:2] == (Bin(0, 0, 1), Bin(1, 1, 2))
    assert histogram([0, 1, 1, 4_999_999])[-1] == Bin(2_000_000, 4_999_999, 1)
    assert histogram([]) == ()


@pytest.mark.slow
def test_what_other_tools_write_under_the_same_names_is_no_count():
    odd = trajectory("a", 1.0, tokens="many")
    assert summarise([odd]).reply_tokens is None
    for verdicts in (["pass"], "pass", 3):
        assert summarise([trajectory("a", 1.0, verdicts=verdicts)]).verdicts == {}
    assert summarise([trajectory("a", 1.0, verdicts={"test1": ["pass"], "test2": "pass"})]).verdicts == {"pass": 1}


def test_summaries_and_differences_survive_a_file():
    rows = [trajectory("a", 1.0, turns=2, tokens=3, verdicts={"test1": "pass"}), trajectory("b", 0.5)]
    summary, difference = summarise(rows), compare(rows, rows)
    assert Summary.from_json(json.loads(json.dumps(summary.to_json(), allow_nan=False))) == summary
    assert Difference.from_json(json.loads(json.dumps(difference.to_json(), allow_nan=False))) == difference
