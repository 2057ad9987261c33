"""`launch.train --benchmark=frontend`, each method from mini pages to its report, with a real browser."""

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from colbench_env.tasks import read_rows
from colbench_env.types import Pair, Ranked, Task, Trajectory
from launch import rank, train
from tests.colbench_env.chromium import chromium_or_skip

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]

ROOT = Path(__file__).parents[2]
SMALL = (
    "--benchmark=frontend", "--num-tasks=8", "--evaluation.num-tasks=3", "--policy.select=last", "--rollouts.samples=3",
    "--rollouts.max-turns=2", "--rollouts.rows=8", "--ranking.candidates=4", "--ranking.data-fraction=0.2",
    "--critic.training.max-steps=2", "--policy.training.max-steps=2", "--sampler-mesh=same",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def chromium():
    return chromium_or_skip()


@pytest.fixture(scope="module")
def sweet(optimised, python, tmp_path_factory):
    """The directory of a finished run of SWEET-RL."""
    run_dir = tmp_path_factory.mktemp("pages") / "sweet"
    ended = python("-m", "launch.train", f"--run-dir={run_dir}", *SMALL)
    assert ended.status == 0, ended.stderr
    return run_dir


def test_a_critic_that_sees_the_page_is_trained_where_similarities_differ(sweet):
    graded = read_rows(sweet / "grading" / "trajectories.jsonl", Trajectory)
    assert len(graded) == 24 and all(
        0 < row.reward <= 1 and row.extra["verdicts"] == {"page": "pass"} for row in graded
    )
    scores = {}
    for row in graded:
        scores.setdefault(row.task.task_id, []).append(row.reward)
    wanted = sum(one - other >= 0.1 for each in scores.values() for one in each for other in each)
    pairs = read_rows(sweet / "pairs" / "trajectory_pairs.jsonl", Pair)
    assert len(pairs) == wanted > 0
    references = {row.task.ground_truth for row in graded}
    assert all(
        sum(reference in side for reference in references) >= 1 for p in pairs for side in (p.chosen, p.rejected)
    )
    (last,) = [json.loads(line) for line in (sweet / "critic" / "metrics.jsonl").read_text().splitlines()][-1:]
    assert last["step"] == 2


def test_turns_are_pages_that_the_critic_prefers_and_the_policy_never_sees_the_reference(sweet):
    ranked = read_rows(sweet / "ranking" / "ranked.jsonl", Ranked)
    assert all(row.candidates.ground_truth in row.candidates.input_with_ground_truth for row in ranked)
    pairs = read_rows(sweet / "turn-pairs" / "pairs.jsonl", Pair)
    advantages = {}
    for row in ranked:
        for output, advantage in zip(row.candidates.additional_outputs, row.judge_result, strict=True):
            advantages[row.candidates.input + output + "<|end|>"] = advantage
    assert pairs
    for pair in pairs:
        assert advantages[pair.chosen] > advantages[pair.rejected]
        assert "<html>" not in pair.chosen.split("<|assistant|>")[0]


def test_the_report_shows_the_pages_of_both_policies(sweet):
    numbers = json.loads((sweet / "report.json").read_text())
    assert {"start", "trained"} <= set(numbers["policies"])
    page = (sweet / "report.html").read_text()
    for words in (
        "Pages side by side",
        "data:image/",
        "Grader: structural (not the paper&#39;s metric).",
        "similarity x 100: ",
    ):
        assert words in page
    again, other = numbers["command"], numbers["next_commands"][1]
    mesh = numbers["mesh"]  # "auto" as it was settled: the command makes the same bits elsewhere
    assert again.startswith(f"python -m launch.train --benchmark=frontend --mesh={mesh} --run-dir=")
    assert "--num-tasks=8" in again
    assert "--benchmark=frontend" in other and "--algorithm=mtdpo" in other


def test_the_runs_critic_ranks_pages_again_byte_for_byte(sweet, in_process, tmp_path):
    done = in_process(
        rank.main, f"--critic={sweet}", f"--candidates={sweet / 'candidates' / 'candidates.jsonl'}",
        f"--output={tmp_path / 'ranked'}",
    )  # fmt: skip
    assert done.status == 0, done.stderr
    ours, theirs = (folder / "ranking" / "ranked.jsonl" for folder in (tmp_path / "ranked", sweet))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_value_head_ranks_pages_and_goes_on_from_given_dialogues(sweet, python, tmp_path):
    given = f"--trajectories={sweet / 'grading' / 'trajectories.jsonl'}"
    head = ("--critic.parameterisation=value-head", "--critic.nll-coef=0")
    ended = python("-m", "launch.train", f"--run-dir={tmp_path / 'head'}", *SMALL, *head, given)
    assert ended.status == 0, ended.stderr
    ours, theirs = (
        [row.judge_result for row in read_rows(folder / "ranking" / "ranked.jsonl", Ranked)]
        for folder in (tmp_path / "head", sweet)
    )
    assert len(ours) == len(theirs) and ours != theirs


def test_two_processes_play_the_dialogues_of_one(sweet, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copytree(sweet / "tasks", tmp_path / "run" / "tasks")
    flags = (*SMALL, f"--run-dir={tmp_path / 'run'}", "--mesh=2x1", "--stage=rollouts", "--hosts.processes=2")
    flags += (f"--hosts.coordinator=127.0.0.1:{port}",)
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "launch.train", *flags, f"--hosts.process={process}"], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for process in (0, 1)
    ]  # fmt: skip
    for one in started:
        said, _ = one.communicate(timeout=240)
        assert one.returncode == 0, said
    ours, theirs = (
        [
            [(message.role, message.content) for message in row.dialogue_history]
            for row in read_rows(run_dir / "rollouts" / "trajectories.jsonl", Trajectory)
        ]
        for run_dir in (tmp_path / "run", sweet)
    )
    assert ours == theirs


def test_tasks_of_the_other_benchmark_are_refused(in_process, tmp_path):
    (tmp_path / "tasks.jsonl").write_text(json.dumps(Task("A task.", "def f(): pass", {"t": "f()"}).to_json()) + "\n")
    done = in_process(train.main, *SMALL, f"--tasks={tmp_path / 'tasks.jsonl'}", f"--run-dir={tmp_path / 'run'}")
    assert "tasks.jsonl:1: the reference is no HTML page" in done.refuses()
