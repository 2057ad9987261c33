"""Made-up dialogues for the tests of `launch.evaluate`."""

import json

from colbench_env.tasks import write_rows
from colbench_env.types import NO_ANSWER, Message, Task, Trajectory

HUMAN = {"name": "scripted", "settings": {"hash": "abc"}}


def task(number, reference=None, tests=4):
    reference = reference or f"def f(x):\n    return x + {number}"
    return Task(f"Add {number}.", reference, {f"test{i}": f"f({i})" for i in range(1, tests + 1)}, "adding: yes")


def right(number, passed=4):
    """An answer for `task(number)` that passes so many of the four tests."""
    return f"def f(x):\n    return x + {number} if x <= {passed} else None"


def dialogue(of, answer, replies=1, **extra):
    history = [Message("user", of.problem_description)]
    for turn in range(replies):
        history += [
            Message("assistant", f"Ask {turn}?", f"<in {turn}>", f"Ask {turn}?", {"tokens": 3}),
            Message("user", "Add it."),
        ]
    history.append(Message("assistant", "I WANT TO ANSWER: code", "<prompt>", f"ANSWER {answer}", {"tokens": 30}))
    return Trajectory(of, tuple(history), answer, extra={"human": HUMAN} | extra)


def three_tasks(path):
    """A file of three tasks, two samples of each, sample-major."""
    first = [dialogue(task(1), right(1)), dialogue(task(2), right(2, 3), 0), dialogue(task(3), right(3, 1), 2)]
    second = [dialogue(task(1), right(1, 2)), dialogue(task(2), right(2)), dialogue(task(3), NO_ANSWER)]
    write_rows(path, first + second)
    return path


def read_json(path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)
