"""How the user simulator did, from what it said."""

from dataclasses import replace

import pytest

from colbench_env.humans.scripted import SHRUGS
from colbench_env.mini import UNKNOWN_REPLIES
from colbench_env.simulator_health import OVERLAP, has_failed, is_spoilt, simulator_health, simulator_name
from colbench_env.types import Message, Task, Trajectory

REFERENCE = "def fee(amount):\n    if amount > 100:\n        return amount * 0.9\n    return amount + 5\n"
PAGE = "<HTML><p>a</HTML>"


def dialogue(*replies, reference=REFERENCE, human=None):
    history = [Message("user", "def fee(amount) ```" + REFERENCE)]  # the opening is no reply
    for reply in replies:
        history += [Message("assistant", "And then?"), Message("user", reply)]
    history.append(Message("assistant", "I WANT TO ANSWER: x"))
    extra = {} if human is None else {"human": human}
    return Trajectory(Task("fee", reference, {"test1": "fee(1)"}), tuple(history), "x", extra=extra)


@pytest.mark.parametrize(
    "reply",
    ["No response.", "no response", "[No response received]", "Error code: 503 - overloaded", "Request timed out.",
     "API error: too many requests", "internal error", "no output"],
)  # fmt: skip
def test_what_a_failed_call_leaves_is_a_failed_reply(reply):
    assert has_failed(reply) and is_spoilt(dialogue("Yes.", reply))


@pytest.mark.parametrize(
    "reply",
    ["No.", "None", "No response is needed when the list is empty.", "An error of 5 is fine.", "Return 503.",
     "Raise an error, code: 17", "I don't know."],
)  # fmt: skip
def test_an_honest_reply_is_no_failed_one(reply):
    assert not has_failed(reply) and not is_spoilt(dialogue(reply))


def test_replies_are_counted_by_what_is_wrong_with_them():
    found = simulator_health([
        dialogue("I don't know.", "Round down.", "x" * 400, "x" * 399),
        dialogue("", "No response.", "No idea, sorry."),
        dialogue("Use ```fee```.", "def fee(amount): ...", "Like I said, the def is fine."),
        dialogue(),
    ])  # fmt: skip
    assert (found.dialogues, found.replies, found.compared) == (4, 10, 10)
    assert (found.empty, found.failed, found.spoilt) == (1, 1, 1)
    assert (found.unknown, found.truncated) == (2, 1)
    assert (found.fenced, found.definitions, found.overlaps, found.leaks) == (1, 1, 0, 2)


@pytest.mark.parametrize(
    ("task", "limit"),
    [
        (Task("fee", REFERENCE, {"t": "fee(1)"}), 400),
        (Task("fee", REFERENCE), 400),
        (Task("page", PAGE), 1000),
        (Task("page", f"<!-- {'a' * 300} -->{PAGE}"), 1000),
        (Task("page", "<body>a</body>"), 1000),
        (Task("unknown"), 1000),
    ],
)
def test_a_reply_is_cut_off_at_the_limit_of_the_benchmark_that_the_task_is_of(task, limit):
    row = dialogue(*("x" * length for length in (399, 400, 401, 1000)))
    assert simulator_health([replace(row, task=task)]).truncated == 1
    assert simulator_health([replace(dialogue("x" * limit), task=task)]).truncated == 1


@pytest.mark.parametrize("reply", [*SHRUGS, *UNKNOWN_REPLIES, "I’m not sure, honestly.", "I do not really know"])
def test_a_reply_without_information_is_counted(reply):
    assert simulator_health([dialogue(reply)]).unknown == 1


@pytest.mark.parametrize("reply", ["Everyone knows that it is 5.", "Use your idea.", "Not below zero."])
def test_a_reply_with_information_is_not(reply):
    assert simulator_health([dialogue(reply)]).unknown == 0


def test_a_long_run_of_the_reference_is_a_leak_however_it_is_spaced():
    # if amount > 100 : return amount * 0 . 9 is 12 pieces
    assert OVERLAP == 12
    leak, short = "Well: if amount>100:\nreturn amount*0.9!", "Well: if amount>100: return amount*0"
    assert [simulator_health([dialogue(said)]).overlaps for said in (leak, short)] == [1, 0]
    assert simulator_health([dialogue(leak, leak)]).leaks == 2


def test_without_a_reference_nothing_can_be_compared_with_it():
    found = simulator_health([dialogue("if amount > 100:\n return amount * 0.9", reference="")])
    assert (found.compared, found.overlaps, found.leaks) == (0, 0, 0)


def test_the_simulator_is_named_with_its_settings():
    one = dialogue(human={"name": "model", "settings": {"temperature": 1.0, "model": "m"}})
    rows = [one, one, dialogue(), dialogue(human={"name": "scripted"}), dialogue(human="somebody")]
    assert simulator_health(rows).simulators == {
        'model {"model": "m", "temperature": 1.0}': 2,
        "not recorded": 1,
        "scripted": 1,
        '"somebody"': 1,
    }
    assert simulator_name(rows[2]) == "not recorded"


@pytest.mark.slow
def test_a_reply_of_megabytes_is_looked_at_like_any_other():
    found = simulator_health([dialogue("no, " * 1_000_000, reference="x = 1\n" * 100_000)])
    assert (found.replies, found.leaks) == (1, 0)
