"""Which dialogues ran out of turns."""

from dataclasses import replace

import pytest

from colbench_env.endings import ran_out_of_turns
from colbench_env.statistics import summarise
from colbench_env.types import NO_ANSWER, Message, Task, Trajectory

TASK = Task("A sum.", "def f(x): return x", {"test1": "f(1)", "test2": "f(2)"})


def row(*turns, answer=None, reward=0.0, most=2, task=TASK, raw=None):
    history = [Message("user", "A sum.")]
    for turn in turns:
        history += [Message("assistant", turn, output=raw), Message("user", "Yes.")]
    verdicts = {"test1": "syntax-error", "test2": "syntax-error"}
    extra = {"verdicts": verdicts} | ({} if most is None else {"rules": {"max_turns": most}})
    return Trajectory(task, tuple(history[:-1]), turns[-1] if answer is None else answer, reward, extra)


@pytest.mark.parametrize(
    ("given", "ended"),
    [
        (row("Which fee?", "Which cap?"), True),
        (row("Which fee?", "", answer=NO_ANSWER), True),
        (row("Which fee?", "I WANT TO ANSWER: def f"), False),
        (row("Which fee?", "Fine.", raw="Fine. OUTPUT: I WANT TO ANSWER: def f"), False),
        (row("Which fee?", "def f(x): return x", reward=0.5), False),  # graded as an answer, and not in vain
        (row("Which fee?", answer=NO_ANSWER), False),  # ended before, for instance because the context was full
        (row("Which fee?", "Which cap?", most=None), False),  # nobody knows how many there were
        (row("Which fee?", "Which cap?", reward=None), False),
        (row("<html>1</html>", "<html>2</html>", task=Task("A page.", "<html></html>")), False),
    ],
)
def test_a_dialogue_ran_out_of_turns_if_its_last_turn_is_no_answer_and_passed_nothing(given, ended):
    assert ran_out_of_turns(given) is ended


def test_a_row_whose_rules_cannot_be_read_says_nothing():
    one = row("Which fee?", "Which cap?")
    for rules in (None, 3, [], {"max_turns": "2"}):
        assert not ran_out_of_turns(replace(one, extra={"rules": rules}))


def test_a_summary_counts_them_and_their_part_of_the_verdicts():
    found = summarise([row("Which fee?", "Which cap?"), row("Which fee?", "I WANT TO ANSWER: def f")])
    assert found.verdicts == {"syntax-error": 4}
    assert (found.out_of_turns, found.out_of_turns_verdicts) == (1, {"syntax-error": 2})
    older = {name: part for name, part in found.to_json().items() if not name.startswith("out_of_turns")}
    assert type(found).from_json(older).out_of_turns == 0  # a report.json from before
