"""The layout of files with several samples of each task. Rows are written as letters of tasks, ? is unreadable."""

from pathlib import Path

import pytest

from colbench_env.samples import Layout, check_layout, detect_layout
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Message, Task, Trajectory

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def rows(letters):
    return [
        BadInput("unreadable")
        if letter == "?"
        else Trajectory(Task(f"Task {letter}."), (Message("user", "x"), Message("assistant", "y")), f"answer {number}")
        for number, letter in enumerate(letters)
    ]


@pytest.mark.parametrize(
    ("letters", "layout"),
    [
        ("a", Layout(1, 1, "sample-major")),
        ("abc", Layout(3, 1, "sample-major")),
        ("abcabc", Layout(3, 2, "sample-major")),
        ("aaaa", Layout(1, 4, "sample-major")),
        ("aabaab", Layout(3, 2, "sample-major")),
        ("ab?abc", Layout(3, 2, "sample-major")),
        ("?", Layout(1, 1, "sample-major")),
        ("aabbcc", Layout(3, 2, "task-major")),
        ("aaa?bb", Layout(2, 3, "task-major")),
        ("abcab", Layout(3, 2, "irregular", 6)),
        ("abcacb", Layout(3, 2, "irregular", 5)),
        ("abcabcd", Layout(4, 2, "irregular", 7)),
        ("aabb?", Layout(2, 2, "irregular", 6)),
        ("aabc", Layout(3, 2, "irregular", 4)),
        ("aabbaa", Layout(2, 4, "irregular", 5)),
    ],
)
def test_the_layout_of_a_file(letters, layout):
    assert detect_layout(rows(letters)) == layout


def test_no_rows_have_no_layout():
    with pytest.raises(BadInput, match="no rows whose layout could be told"):
        detect_layout([])


@pytest.mark.parametrize(("letters", "samples"), [("abcabc", 2), ("aabaab", 2), ("aba", 1), ("ab?abc", 2), ("aaaa", 2)])
def test_sample_major_rows_pass(letters, samples):
    check_layout(rows(letters), samples)


@pytest.mark.parametrize(
    ("letters", "samples", "start", "end"),
    [
        (
            "abcacb",
            2,
            "row 5 is of the task 'Task c.', expected that of row 2, 'Task b.': 6 rows were to be 2",
            "again)",
        ),
        (
            "aabb",
            2,
            "row 3 is of the task 'Task b.', expected that of row 1, 'Task a.'",
            "samples of a task lie together",
        ),
        ("?bcabbbbc", 3, "row 6 is of the task 'Task b.', expected that of row 3, 'Task c.'", "again)"),
        ("abcab", 2, "row 6 is missing: 5 rows cannot be 2 samples of each task", "expected a multiple of 2"),
        ("", 2, "row 1 is missing: 0 rows cannot be 2 samples", "expected a multiple of 2"),
        ("ab", 0, "0 samples of each task, expected at least 1", ""),
    ],
)
def test_the_first_row_in_a_wrong_place_is_named(letters, samples, start, end):
    with pytest.raises(BadInput) as caught:
        check_layout(rows(letters), samples)
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(end)


def test_a_long_task_is_cut_in_the_sentence():
    long, short = (Trajectory(Task(text), (), "") for text in ("Sum up\n" * 1000, "b"))
    with pytest.raises(
        BadInput, match=r"of the task 'Sum up (Sum up )*S\.\.\.', expected that of row 1, 'b'"
    ) as caught:
        check_layout([short, long], 2)
    assert len(str(caught.value)) < 300


def test_the_real_dialogues_are_task_major():
    path = SHARED / "trajectories/qwen3_4b_40.jsonl"
    if not path.exists():
        pytest.skip("../shared/data is not beside this checkout")
    dialogues = read_rows(path, Trajectory)
    assert detect_layout(dialogues) == Layout(20, 2, "task-major")
    with pytest.raises(BadInput, match="^row 21 is of the task .* the file is task-major"):
        check_layout(dialogues, 2)
    check_layout(dialogues[::2] + dialogues[1::2], 2)
