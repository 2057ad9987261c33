"""A reward: the fraction of hidden tests passed, in the sandbox, and a fifth less for answers of many lines.

    python -m launch.train --plugin=examples/plugins/my_reward.py
    python -m launch.evaluate --plugin=examples/plugins/my_reward.py --trajectories=played.jsonl

A reward may be any number from 0 to 1 and 1 is success. Samples of a task whose rewards differ by 0.1 are compared.
"""

import atexit
import functools

from colbench_env.grading import Grader
from colbench_env.types import Task
from sweet_jax.plugins import Plugin

MANY_LINES = 12


@functools.cache
def open_grader() -> Grader:
    """Start the sandbox's workers, once a process."""
    grader = Grader(workers=1)
    atexit.register(grader.close)
    return grader


def reward(task: Task, answer: str) -> float:
    """Grade an answer, a Python program; "" where the agent gave none."""
    if not answer.strip():
        return 0.0
    passed = open_grader().grade(task, answer).fraction
    return passed if len(answer.strip().splitlines()) <= MANY_LINES else 0.8 * passed


plugin = Plugin(reward=reward)
