"""`launch.train --iterations=N`: the policy of one iteration plays the dialogues of the next."""

import json

import pytest

from colbench_env.tasks import read_rows
from colbench_env.types import Task, Trajectory
from launch import train

pytestmark = pytest.mark.slow

SMALL = (
    "--preset=embedded",
    "--algorithm=rft", "--num-tasks=12", "--rollouts.rows=32", "--evaluation.num-tasks=3", "--policy.batch-size=4",
    "--policy.max-steps=2", "--policy.save-every=1", "--policy.learning-rate=1e-3",
)  # fmt: skip


def test_each_iteration_starts_from_the_policy_before_it_and_more_can_be_added(in_process, tmp_path):
    run_dir = tmp_path / "run"
    ended = in_process(train.main, *SMALL, f"--run-dir={run_dir}")
    assert ended.status == 0, ended.stderr
    first = (run_dir / "report.json").read_bytes()
    ended = in_process(train.main, *SMALL, f"--run-dir={run_dir}", "--iterations=2")
    assert ended.status == 0, ended.stderr
    assert (run_dir / "report.json").read_bytes() == first
    second = run_dir / "iteration-2"
    settings = json.loads((second / "config.json").read_text())
    assert (settings["model"], settings["toy"]) == (str(run_dir / "policy" / "model"), "miniature")
    assert read_rows(second / "tasks" / "train.jsonl", Task) == read_rows(run_dir / "tasks" / "train.jsonl", Task)
    before, after = (read_rows(path / "rollouts" / "trajectories.jsonl", Trajectory) for path in (run_dir, second))
    assert [row.dialogue_history for row in before] != [row.dialogue_history for row in after]
    reached = [json.loads((path / "report.json").read_text())["policies"] for path in (run_dir, second)]
    assert reached[0]["trained"] == reached[1]["start"]  # the same policy, tasks and seeds
    assert "iteration 1" in ended.stderr and "iteration 2" in ended.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--iterations=0",), "iterations is 0, it must be at least 1"),
        (("--iterations=2", "--stage=policy"), "--stage=policy --algorithm=sweet is not repeated"),
        (("--iterations=2", "--algorithm=zero-shot"), "--stage=all --algorithm=zero-shot is not repeated"),
        (
            ("--iterations=2", "--trajectories=rows.jsonl"),
            "iterations is 2 and trajectories rows.jsonl: each iteration plays dialogues of its own with a user",
        ),
    ],
)
def test_what_cannot_be_repeated_is_refused(in_process, tmp_path, flags, sentence):
    ended = in_process(train.main, f"--run-dir={tmp_path / 'run'}", *flags)
    assert ended.status == 2 and sentence in " ".join(ended.stderr.split())
    assert not (tmp_path / "run").exists()
