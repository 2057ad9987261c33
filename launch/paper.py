"""The paper's figures, to stand beside one's own."""

from __future__ import annotations

import platform
from typing import NamedTuple

PAPER_TASKS = 1000


class PaperRow(NamedTuple):
    """A policy of the paper on ColBench backend: % of the tests passed, % of the tasks solved."""

    policy: str
    tests_passed: float
    success: float


PAPER = (
    PaperRow("8B single turn", 11.8, 6.9),
    PaperRow("8B zero-shot", 34.2, 22.4),
    PaperRow("8B rejection fine-tuning", 40.9, 28.2),
    PaperRow("8B multi-turn DPO", 48.0, 34.4),
    PaperRow("8B SWEET-RL", 56.8, 40.4),
    PaperRow("8B SWEET-RL, regression head", 45.3, 36.2),
    PaperRow("8B SWEET-RL, no training-time information", 44.0, 31.2),
    PaperRow("8B SWEET-RL, no normalisation", 4.2, 3.6),
    PaperRow("70B zero-shot", 48.0, 35.0),
    PaperRow("70B rejection fine-tuning, on the 8B's data", 45.5, 31.9),
    PaperRow("70B multi-turn DPO, on the 8B's data", 56.7, 41.8),
    PaperRow("70B SWEET-RL, on the 8B's data", 60.2, 45.6),
    PaperRow("O1-mini", 43.2, 30.3),
    PaperRow("GPT-4o", 54.6, 40.4),
)
"""ColBench backend in arXiv 2503.15478v1."""


def paper_differences(tasks: int, simulator: str, grader: str) -> list[str]:
    """What keeps figures from being compared with the paper's, a sentence each.

    tasks: that were counted. simulator: its name, as the rows have it. grader: the mode of the rewards.
    """
    minor = platform.python_version_tuple()[1]
    scope = (
        "official, the released grader's rules as Python 3.12 and older give them"
        if grader == "official"
        else f"{grader}; the released one scores 0 for answers with top-level imports or helper functions"
    )
    return [
        f"Tasks: {tasks} here, {PAPER_TASKS} test tasks in the paper; nothing says that they are the same ones.",
        f"Simulated human: {simulator} here, another one in the paper.",
        f"Grader: {scope}.",
        f"Python: 3.{minor} here, not known of the paper; the released grader's scores depend on it (3.13: all 0).",
    ]
