"""Each method from given files to its report; killed on the way; and the ranking of a run made again by itself."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import released
from released import SMALL

from colbench_env.tasks import read_rows
from colbench_env.types import Ranked, Trajectory
from launch import rank
from sweet_jax.data.chat import Chat

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small(tiny_model) -> tuple[str, ...]:
    """The flags of every run here."""
    return (f"--model={tiny_model}", *SMALL)


@pytest.fixture(scope="module")
def given(tiny_model, tmp_path_factory) -> dict[str, str]:
    """Name -> the flag with a file in the released layout, whose text is of the miniature."""
    chat, folder = Chat.load(tiny_model), tmp_path_factory.mktemp("given")
    rows = released.trajectories(chat)
    made = {
        "trajectories": rows,
        "pairs": released.critic_pairs(rows),
        "candidates": released.candidates(rows),
    }
    return {name: f"--{name}={released.write(folder / f'{name}.jsonl', rows)}" for name, rows in made.items()}


@pytest.fixture(scope="module")
def sweet(small, given, start, tmp_path_factory) -> Path:
    """The directory of a run of SWEET-RL from pairs and candidates."""
    run_dir = tmp_path_factory.mktemp("runs") / "sweet"
    ended = start(f"--run-dir={run_dir}", *small, given["pairs"], given["candidates"])
    assert ended.status == 0, ended.stderr
    return run_dir


def reported(run_dir: Path) -> tuple[dict, str]:
    """The numbers of the report, and its page."""
    return json.loads((run_dir / "report.json").read_text()), (run_dir / "report.html").read_text()


def weights(run_dir: Path) -> bytes:
    return (run_dir / "policy" / "model" / "model.safetensors").read_bytes()


# --- each method to its report ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "files", "policies"),
    [
        ("zero-shot", [], ["start"]),
        ("rft", ["trajectories"], ["start", "trained"]),
        ("mtdpo", ["pairs"], ["start", "trained"]),
    ],
)
def test_a_baseline_ends_with_an_evaluation_and_its_report(
    start, small, given, tiny_model, tmp_path, algorithm, files, policies
):
    flags = (f"--algorithm={algorithm}", *(given[name] for name in files))
    ended = start(f"--run-dir={tmp_path / 'run'}", *small, *flags)
    assert ended.status == 0, ended.stderr
    numbers, page = reported(tmp_path / "run")
    assert list(numbers["policies"]) == policies
    assert (numbers["difference"] is None) == (algorithm == "zero-shot")
    assert f"--algorithm={algorithm}" in numbers["command"] and algorithm in page
    for name in policies:
        assert len(read_rows(tmp_path / "run" / "evaluation" / f"{name}.jsonl", Trajectory)) == 2
    if algorithm != "zero-shot":
        assert weights(tmp_path / "run") != (tiny_model / "model.safetensors").read_bytes()


def test_sweet_from_given_pairs_and_candidates_ends_with_an_evaluation_and_its_report(sweet):
    numbers, page = reported(sweet)
    assert list(numbers["policies"]) == ["start", "trained"]
    assert list(numbers["stages"]) == [
        "tasks", "pairs", "critic", "candidates", "ranking", "turn-pairs", "policy", "evaluation",
    ]  # fmt: skip
    assert "sweet" in page


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["critic", "policy"])
def test_a_run_from_given_files_goes_on_where_it_was_killed(start, sweet, small, given, tmp_path, stage):
    """From pairs and candidates, killed in the critic; and from the turn pairs of that run, killed in the policy."""
    run_dir = tmp_path / "killed"
    files = [given["pairs"], given["candidates"]]
    if stage == "policy":
        files = [f"--turn-pairs={sweet / 'turn-pairs' / 'pairs.jsonl'}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.train", "--preset=embedded", f"--run-dir={run_dir}", *small, *files], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (run_dir / stage / "checkpoints" / "1").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run_dir / stage / "done.json").exists()
    ended = start(f"--run-dir={run_dir}", *small, *files)
    assert ended.status == 0, ended.stderr
    assert f"stage={stage} continues after step " in (run_dir / "log.txt").read_text()
    assert weights(run_dir) == weights(sweet)
    for name in ("start", "trained"):
        graded = Path("evaluation") / f"{name}.jsonl"
        assert (run_dir / graded).read_bytes() == (sweet / graded).read_bytes()


# --- ranking alone ---------------------------------------------------------------------------------------------------


def test_given_candidates_are_ranked_by_the_critic_of_a_run_as_that_run_has_ranked_them(
    in_process, sweet, given, tmp_path
):
    flags = (f"--critic={sweet}", given["candidates"], "--samples=4", "--rows=4", f"--output={tmp_path / 'out'}")
    ended = in_process(rank.main, *flags)
    assert ended.status == 0, ended.stderr
    ranked = tmp_path / "out" / "ranking" / "ranked.jsonl"
    assert ranked.read_bytes() == (sweet / "ranking" / "ranked.jsonl").read_bytes()
    assert all(len(set(row.judge_result)) > 1 for row in read_rows(ranked, Ranked))
