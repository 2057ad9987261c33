"""The range of rewards. Rows of other tools have other scales (-1 and 1, points, numbers of tests), on which neither a
mean nor "solved" (a reward of 1) means what it means here: they are refused."""

from collections.abc import Iterable
from typing import Literal

from colbench_env.design.html import extract_html
from colbench_env.tasks import Located
from colbench_env.types import BadInput, Task, Trajectory

Scale = Literal["backend", "frontend"]

LIMITS: dict[Scale, tuple[int, int]] = {"backend": (0, 1), "frontend": (-1, 1)}
_MEANING: dict[Scale, str] = {"backend": "the share of the tests passed", "frontend": "the similarity of two pages"}
REGRADE = "launch.evaluate --regrade --output=FILE grades the answers anew"
_ROUNDING = 1e-6  # a cosine in float32 can be a little more than 1


def scale_of(task: Task) -> Scale:
    """Tell which benchmark the task is of, and so the scale on which answers to it are graded.

    "frontend" for one without tests whose reference is a page; also where nothing tells, as that scale is the wider.
    """
    is_code = task.test_cases or (task.ground_truth.strip() and extract_html(task.ground_truth) is None)
    return "backend" if is_code else "frontend"


def reward_problem(reward: float | None, scale: Scale) -> str:
    """Say what is wrong with a reward, or "".

    In: 10, "backend"   Out: "'reward' is 10, expected 0 to 1 (the share of the tests passed)"
    """
    low, high = LIMITS[scale]
    if reward is None or low - _ROUNDING <= reward <= high + _ROUNDING:
        return ""
    return f"'reward' is {reward:g}, expected {low} to {high} ({_MEANING[scale]})"


def check_rewards(rows: Iterable[Located[Trajectory]], scale: Scale, hint: str = REGRADE) -> None:
    """Raise BadInput with the first reward that is out of range and how many more are: all are in doubt then.

    hint: how to get right ones, as the end of the sentence.
    """
    wrong = [(row.location, problem) for row in rows if (problem := reward_problem(row.row.reward, scale))]
    if wrong:
        location, problem = wrong[0]
        more = {1: "", 2: ", and 1 more row has such a reward"}.get(
            len(wrong), f", and {len(wrong) - 1} more rows have such rewards"
        )
        raise BadInput(f"{location}: {problem}{more}; {hint}")
