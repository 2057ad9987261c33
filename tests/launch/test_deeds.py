"""The paragraph on what a run did."""

from pathlib import Path

import pytest

from launch.training.config import TrainConfig
from launch.training.summary import deeds

SWEET = {
    "tasks": {"train": 800, "eval": 300, "seconds": 9.0},
    "rollouts": {"trajectories": 3200, "seconds": 1.0},
    "grading": {"trajectories": 3200, "reward": 0.29, "success": 0.225625, "turns": 5.4},
    "pairs": {"pairs": 1262, "tasks": 800},
    "critic": {"pairs": 1262, "steps": 237},
    "candidates": {"trajectories": 320, "positions": 1752, "candidates": 28032},
    "ranking": {"positions": 1752, "scored": 16346},
    "turn-pairs": {"pairs": 6657},
    "policy": {"rows": 6657, "steps": 100},
    "evaluation": {"start": {"success": 0.19}},
}


def test_a_whole_run_is_told_in_the_order_of_its_stages():
    assert deeds(SWEET, TrainConfig(), 1017.4) == (
        "There were 800 tasks to train on and 300 held-out ones. 3,200 dialogues were played by the start policy. "
        "22.6 % of their answers passed all tests. They gave 1,262 pairs of a better and a worse dialogue. "
        "The critic was trained on 1,262 such pairs in 237 steps. "
        "At 1,752 turns, 28,032 candidate turns in all were sampled. The candidates at 1,752 turns were ranked. "
        "The ranking gave 6,657 pairs of a better and a worse turn. "
        "The policy was trained on 6,657 pairs in 100 steps. All stages together took 16 min 57 s."
    )


@pytest.mark.parametrize(
    ("notes", "changes", "text"),
    [
        ({"rollouts": {"trajectories": 9, "from": "a.jsonl"}}, {}, "9 dialogues were taken, given as a.jsonl."),
        (
            {"pairs": {"pairs": 0, "tasks": 4}, "critic": {"pairs": 0, "steps": 0}},
            {},
            "They gave 0 pairs of a better and a worse dialogue.",
        ),
        (
            {"turn-pairs": {"pairs": 9, "from": "b.jsonl"}},
            {},
            "The ranking gave 9 pairs of a better and a worse turn, given as b.jsonl.",
        ),
        (
            {"policy": {"rows": 9, "steps": 2}},
            {"algorithm": "rft"},
            "The policy was trained on 9 dialogues in 2 steps.",
        ),
        ({"grading": {"success": float("nan")}}, {}, "n/a of their answers passed all tests."),
        (
            {"selection": {"step": 50, "tasks": 100, "success": {"0": 0.2, "50": 0.415}}},
            {},
            "On 100 validation tasks the checkpoint of step 50 was the best, with 41.5 % success.",
        ),
        (
            {"selection": {"step": 0, "tasks": 9, "success": {"0": 1 / 3, "50": 0.0}}},
            {},
            "On 9 validation tasks the start policy was the best, with 33.3 % success.",
        ),
        ({"grading": {}}, {}, ""),
        (
            {"tasks": {"train": 800, "eval": 3}},
            {"trajectories": Path("rows.jsonl")},
            "There were 3 held-out tasks.",
        ),
    ],
)
def test_what_was_given_left_out_or_is_not_known_is_told_so(notes, changes, text):
    assert deeds(notes, TrainConfig(**changes), 1.0) == f"{text} All stages together took 1.0 s.".lstrip()
