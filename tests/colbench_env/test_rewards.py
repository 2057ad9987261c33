"""Rewards of another scale are refused, with their place."""

import pytest

from colbench_env.rewards import check_rewards, reward_problem, scale_of
from colbench_env.tasks import Located
from colbench_env.types import BadInput, Message, Task, Trajectory

FUNCTION = Task("f", "def f(x): return x", {"t": "f(1)"})


def located(*rewards):
    history = (Message("user", "f"), Message("assistant", "x", None, "x"))
    return [Located(f"f:{n}", n, Trajectory(FUNCTION, history, "x", reward)) for n, reward in enumerate(rewards, 3)]


@pytest.mark.parametrize("reward", [None, 0.0, 0.5, 1.0, 1.0000001])
def test_a_share_of_tests_is_between_none_and_all(reward):
    assert reward_problem(reward, "backend") == ""


@pytest.mark.parametrize(
    ("reward", "scale", "problem"),
    [
        (10.0, "backend", "'reward' is 10, expected 0 to 1 (the share of the tests passed)"),
        (-1.0, "backend", "'reward' is -1, expected 0 to 1 (the share of the tests passed)"),
        (-0.01, "backend", "'reward' is -0.01, expected 0 to 1 (the share of the tests passed)"),
        (1.5, "frontend", "'reward' is 1.5, expected -1 to 1 (the similarity of two pages)"),
        (-100.0, "frontend", "'reward' is -100, expected -1 to 1 (the similarity of two pages)"),
    ],
)
def test_what_is_out_of_range_is_told_with_the_range(reward, scale, problem):
    assert reward_problem(reward, scale) == problem


def test_a_cosine_may_be_negative():
    assert reward_problem(-1.0, "frontend") == "" and reward_problem(1.0000001, "frontend") == ""


@pytest.mark.parametrize(
    ("task", "scale"),
    [
        (FUNCTION, "backend"),
        (Task("f", "def f(x): return x"), "backend"),
        (Task("f", "", {"t": "f(1)"}), "backend"),
        (Task("page", "<!doctype html>\n<HTML><p>a</html>"), "frontend"),
        (Task("page", "<!-- " + "a" * 2000 + " -->\n<html><p>a</html>"), "frontend"),
        (Task("page", "<body class='x'>a</body>"), "frontend"),
        (Task("f", "def f(): return '<html></html>'", {"t": "f()"}), "backend"),
        (Task("unknown"), "frontend"),
    ],
)
def test_a_task_tells_its_scale_and_an_unknown_one_has_the_wider(task, scale):
    assert scale_of(task) == scale


def test_the_first_wrong_row_is_named_and_the_others_counted():
    check_rewards(located(0.0, None, 1.0), "backend")
    with pytest.raises(BadInput) as told:
        check_rewards(located(0.5, -1.0, 1.0, 2.0, -1.0), "backend")
    assert str(told.value) == (
        "f:4: 'reward' is -1, expected 0 to 1 (the share of the tests passed), and 2 more rows have such rewards; "
        "launch.evaluate --regrade --output=FILE grades the answers anew"
    )
    with pytest.raises(BadInput, match=r"passed\); ask somebody else$"):
        check_rewards(located(2.0), "backend", hint="ask somebody else")
