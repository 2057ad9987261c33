"""The paper's figures, to compare with one's own."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

CLIP = "openai/clip-vit-base-patch32"


class PaperRow(NamedTuple):
    """A policy of the paper and its two figures, each in per cent."""

    policy: str
    first: float
    second: float


@dataclass(frozen=True)
class PaperTable:
    """A column pair of the paper's tables. num_tasks: that were tested. keys: what the two figures are, in JSON; heads:
    the same for display."""

    title: str
    num_tasks: int
    keys: tuple[str, str]
    heads: tuple[str, str]
    rows: tuple[PaperRow, ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rows as JSON objects."""
        return [{"policy": row.policy, self.keys[0]: row.first, self.keys[1]: row.second} for row in self.rows]


PAPER: Mapping[str, PaperTable] = {
    "backend": PaperTable(
        "ColBench backend",
        1000,
        ("tests_passed", "success"),
        ("tests passed, %", "success, %"),
        (
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
        ),
    ),
    "frontend": PaperTable(
        "ColBench frontend",
        500,
        ("cosine", "win_rate"),
        ("CLIP cosine x 100", "win rate against GPT-4o, %"),
        (
            PaperRow("8B single turn", 63.1, 13.6),
            PaperRow("8B zero-shot", 72.4, 33.8),
            PaperRow("8B rejection fine-tuning", 75.2, 38.6),
            PaperRow("8B multi-turn DPO", 76.9, 42.8),
            PaperRow("8B SWEET-RL", 77.7, 48.2),
            PaperRow("70B zero-shot", 73.7, 39.8),
            PaperRow("O1-mini", 77.5, 47.2),
            PaperRow("GPT-4o", 78.1, 50.0),
        ),
    ),
}
"""ColBench in arXiv 2503.15478v1, by benchmark."""


def paper_differences(benchmark: str, tasks: int, simulator: str, grader: str) -> list[str]:
    """List what keeps figures from being compared with the paper's, a sentence each.

    tasks: how many were counted.
    simulator: its name, as the rows have it.
    grader: the mode of the rewards (backend), or the name of the similarity (frontend).
    """
    tested = PAPER[benchmark].num_tasks
    same = [
        f"Tasks: {tasks} here, {tested} test tasks in the paper; nothing says that they are the same ones.",
        f"Simulated human: {simulator} here, another one in the paper.",
    ]
    if benchmark == "frontend":
        return [
            *same,
            f"Similarity: {grader} here, the cosine of {CLIP} in the paper.",
            "Rendering: Chromium without a network here, Firefox with one in the paper.",
            "Win rate: against the baseline named here, against GPT-4o in the paper; a tie counts half.",
        ]
    minor = platform.python_version_tuple()[1]
    scope = (
        "official, the released grader's rules as Python 3.12 and older give them"
        if grader == "official"
        else f"{grader}; the released one scores 0 for answers with top-level imports or helper functions"
    )
    return [
        *same,
        f"Grader: {scope}.",
        f"Python: 3.{minor} here, not known of the paper; the released grader's scores depend on it (3.13: all 0).",
    ]
