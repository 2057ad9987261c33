"""`launch.rank`: candidates, scores and turn pairs with a critic from elsewhere."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import released

from colbench_env.tasks import read_rows
from colbench_env.types import Candidates, Pair, Ranked
from launch import rank
from sweet_jax.data.chat import Chat

ROOT = Path(__file__).parents[2]
SMALL = ("--samples=4", "--rows=4", "--max-new-tokens=8", "--max-length=256")


@pytest.fixture
def start(in_process):
    """Starts `launch.rank` in this process with flags, gives `Ended`."""
    return functools.partial(in_process, rank.main)


@pytest.fixture(scope="module")
def graded(tiny_model, tmp_path_factory) -> Path:
    rows = released.trajectories(Chat.load(tiny_model), 2)
    return released.write(tmp_path_factory.mktemp("rank") / "graded.jsonl", rows)


@pytest.mark.slow
def test_graded_dialogues_become_candidates_scores_and_pairs_also_after_kills(start, tiny_model, graded, tmp_path):
    flags = (f"--critic={tiny_model}", f"--model={tiny_model}", f"--trajectories={graded}", *SMALL)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-m", "launch.rank", *flags, f"--output={killed}"], cwd=ROOT,
                               env=os.environ, stderr=subprocess.PIPE, text=True)  # fmt: skip
    while not (killed / "candidates" / "done.json").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for output in (straight, killed):
        ended = start(*flags, f"--output={output}")
        assert ended.status == 0, ended.stderr
    assert " candidates: already done" in ended.stdout + ended.stderr
    assert (
        "4 of 4 dialogues (--data-fraction=1; launch.train takes the first 10%), 10 agent turns with 4 candidates each"
    ) in ended.stderr.splitlines()
    names = ("candidates/candidates.jsonl", "ranking/ranked.jsonl")
    for name in names:
        assert (straight / name).read_bytes() == (killed / name).read_bytes()
    rows = read_rows(straight / "candidates" / "candidates.jsonl", Candidates)
    assert len(rows) == 2 * 2 + 2 * 3
    ranked = read_rows(straight / "ranking" / "ranked.jsonl", Ranked)
    # critic and start policy are the same model here, so every log-ratio is 0
    assert {score for row in ranked for score in row.judge_result} == {0.0}
    assert {row.candidates.extra["older"]["judge_result"] for row in ranked} == {0.0}
    assert read_rows(straight / "turn-pairs" / "pairs.jsonl", Pair)


def test_what_cannot_be_ranked_is_told_in_a_sentence(start, tiny_model, graded, tmp_path):
    output = f"--output={tmp_path / 'out'}"
    given = f"--trajectories={graded}"
    assert start("--critic=nowhere", given, output).refuses() == "error: --critic=nowhere: no such directory"
    assert start(f"--critic={tmp_path}", given, output).refuses() == (
        f"error: --critic={tmp_path}: neither a run directory whose stage critic has finished, nor that stage, nor a "
        "Hugging Face directory (config.json with a model_type)"
    )
    assert start(f"--critic={tiny_model}", given, output).refuses() == (
        f"error: --critic={tiny_model} is a Hugging Face directory, so --model=DIR is needed: the start policy"
    )
    too_long = start(f"--critic={tiny_model}", "--max-length=1000000", given, output).refuses()
    assert too_long.startswith(f"error: --max-length=1000000: the critic of {tiny_model} has ")
    ungraded = tmp_path / "ungraded.jsonl"
    lines = [json.loads(line) for line in graded.read_text().splitlines()]
    ungraded.write_text(json.dumps({name: lines[0][name] for name in lines[0] if name != "reward"}) + "\n")
    models = (f"--critic={tiny_model}", f"--model={tiny_model}")
    assert start(*models, f"--trajectories={ungraded}", output).refuses() == (
        f"error: {ungraded}:1: the dialogue has no reward: launch.evaluate --output=FILE grades it"
    )
    both = start(*models, given, f"--candidates={graded}", output)
    assert both.status == 2 and "both of them was given" in " ".join(both.stderr.split())


def test_a_critic_that_was_never_trained_is_refused(start, graded, tmp_path):
    run = tmp_path / "run"
    (run / "critic").mkdir(parents=True)
    (run / "config.json").write_text('{"model": "embedded"}')
    (run / "critic" / "done.json").write_text('{"pairs": 0}')
    assert start(f"--critic={run}", f"--trajectories={graded}", f"--output={tmp_path / 'out'}").refuses() == (
        f"error: --critic={run}: no critic was trained in that run, it had no pairs"
    )
