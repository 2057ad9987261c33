"""Kinds of turns, and how a critic's scores are compared with them and with what turns are worth."""

import math

import pytest

from colbench_env.critic_truth import JudgedTurns, judge_critic, spearman, top_half_precision
from colbench_env.turn_kinds import turn_kind
from colbench_env.types import Message, Task

KEYWORDS = {"rounding": ("round",), "unit": ("unit",), "empty": ("empty list",)}
TASK = Task("Add.", "def f(x): return 1", {}, "rounding?: It depends.\nrounding: Down.\nempty: Three.")
RIGHT = "Here. I WANT TO ANSWER:\ndef f(x): return 1"
WRONG = "I WANT TO ANSWER: def f(x): return 2"


def before(*questions):
    said = [Message("user", "Add.")]
    for question in questions:
        said += [Message("assistant", question), Message("user", "Well.")]
    return said


@pytest.mark.parametrize(
    ("questions", "turn", "kind"),
    [
        ((), "How do I round?", "hidden"),
        (("Round it?",), "How do I round?", "hidden"),  # the user was vague
        (("Round it?", "Really, round?"), "How do I round?", "repeat"),
        ((), "Which unit?", "not hidden"),
        (("Which unit?",), "The unit, please?", "repeat"),
        ((), "Who will use it?", "needless"),
        ((), WRONG, "early"),
        (("Round?", "Empty list?"), WRONG, "early"),
        (("Round?", "Empty list?", "Round?"), WRONG, "wrong"),
        (("Round?", "Empty list?", "Round?"), RIGHT, "right"),
    ],
)
def test_a_turn_is_of_the_kind_that_the_hidden_facts_say(questions, turn, kind):
    assert turn_kind(TASK, before(*questions), turn, KEYWORDS) == kind


def test_the_last_turn_is_an_answer_whatever_it_says():
    assert turn_kind(TASK, before(), "How do I round?", KEYWORDS, is_last=True) == "early"
    assert turn_kind(TASK, before(), TASK.ground_truth, KEYWORDS, is_last=True) == "right"


def test_rank_correlation_and_top_half():
    assert spearman((1, 2, 3), (0.1, 0.2, 0.9)) == pytest.approx(1)
    assert spearman((3, 2, 1), (0.1, 0.2, 0.9)) == pytest.approx(-1)
    assert spearman((1, 2, 2, 3), (1, 2, 3, 4)) == pytest.approx(0.9486832980505138)  # scipy.stats.spearmanr
    assert spearman((1, 1), (0, 1)) is spearman((1,), (1,)) is spearman((1, 2), (1, 1)) is None
    assert top_half_precision((4, 3, 2, 1), (0, 1, 1, 0)) == 0.5
    assert top_half_precision((4, 3, 2, 1), (1, 1, 1, 0)) == 1
    assert top_half_precision((4, 3), (1, 1)) is None


def test_a_critic_that_knows_the_truth_is_told_from_one_that_inverts_it():
    kinds, values = ("hidden", "not hidden", "needless", "early"), (0.8, 0.4, 0.4, 0.0)

    def positions(sign):
        return [
            JudgedTurns(
                f"t{i}", 1, kinds, tuple(sign * value for value in (3.0, 2.0, 1.0, 0.0)), values, (values, values)
            )
            for i in range(20)
        ]

    good, bad = judge_critic(positions(1)), judge_critic(positions(-1))
    assert good.rank_correlation.mean > 0.9 > -0.9 > bad.rank_correlation.mean
    assert good.preferences["hidden over not hidden"].mean == 1 and bad.preferences["hidden over not hidden"].mean == 0
    assert good.counts["right answer over any question"] == 0
    assert math.isnan(good.preferences["right answer over any question"].mean)
    assert good.reliability.mean == pytest.approx(1) and good.shares["early"] == 0.25


def test_intervals_are_drawn_over_tasks_and_not_over_positions():
    def truth(tasks):
        rows = [
            JudgedTurns(f"t{i % tasks}", 1, ("hidden", "needless"), (float(i % tasks % 2), 0.5), (1.0, 0.0))
            for i in range(200)
        ]
        return judge_critic(rows).preferences["hidden over needless"]

    few, many = truth(4), truth(100)
    assert few.mean == many.mean == 0.5 and few.high - few.low > 3 * (many.high - many.low)
