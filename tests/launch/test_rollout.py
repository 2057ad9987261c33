"""`launch.rollout`: the same whatever is played beside, killed and continued, failures recorded and played again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colbench_env.episodes import Settings
from colbench_env.tasks import read_rows
from colbench_env.types import Trajectory
from launch import rollout
from launch.common import cli
from launch.common.benchmarks import default_turns
from launch.common.settings import Rollouts
from launch.rollouts.config import RolloutConfig, settings_of
from launch.training.presets import PRESETS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

SMALL = ("--num-tasks=4", "--samples=2", "--max-new-tokens=8", "--max-turns=3", "--max-length=512", "--rows=4")


@pytest.fixture
def flags(tiny_model):
    return (*SMALL, f"--model={tiny_model}", "--agent-prompt=none")


def test_a_dialogue_does_not_depend_on_how_many_are_under_way(in_process, flags, tmp_path):
    written = []
    for in_flight in (1, 7):
        output = tmp_path / f"{in_flight}.jsonl"
        ended = in_process(rollout.main, *flags, f"--in-flight={in_flight}", f"--output={output}")
        assert ended.status == 0, ended.stderr
        written.append(output.read_bytes())
    assert written[0] == written[1]
    rows = read_rows(output, Trajectory)
    assert [row.extra["sample"] for row in rows] == [0] * 4 + [1] * 4
    assert [row.task for row in rows[:4]] == [row.task for row in rows[4:]]
    assert rows[0].dialogue_history != rows[4].dialogue_history


def test_a_file_cut_off_anywhere_is_continued_to_the_same_bytes(in_process, flags, tmp_path):
    output = tmp_path / "rows.jsonl"
    assert in_process(rollout.main, *flags, f"--output={output}").status == 0
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) // 2])
    ended = in_process(rollout.main, *flags, f"--output={output}")
    assert (ended.status, output.read_bytes()) == (0, whole)
    refused = in_process(rollout.main, *flags, f"--output={output}", "--temperature=0.5").refuses()
    assert "was played with" in refused


def test_a_killed_rollout_goes_on_with_what_is_missing(in_process, flags, tmp_path):
    whole, output = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    assert in_process(rollout.main, *flags, f"--output={whole}").status == 0
    command = [sys.executable, "-m", "launch.rollout", *flags, "--in-flight=1", f"--output={output}"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    while child.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert output.stat().st_size
    assert in_process(rollout.main, *flags, f"--output={output}").status == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_mesh_of_eight_devices_and_two_processes_write_the_rows_of_one_device(in_process, flags, tmp_path):
    one, eight, two = (tmp_path / f"{name}.jsonl" for name in ("one", "eight", "two"))
    processes = several(*flags, "--mesh=2x1", f"--output={two}")
    for mesh, output in (("1x1", one), ("4x2", eight)):
        ended = in_process(rollout.main, *flags, f"--mesh={mesh}", f"--output={output}")
        assert ended.status == 0, ended.stderr
    first, second = (process.communicate(timeout=300)[1] for process in processes)
    assert [process.returncode for process in processes] == [0, 0], first + second
    assert "8 dialogues, 4 are played here" in first and second == ""
    assert two.read_bytes() == one.read_bytes()
    (texts, logprobs), (other_texts, other_logprobs) = map(apart, (one, eight))
    assert other_texts == texts  # token ids included
    assert other_logprobs == pytest.approx(logprobs, abs=2e-4)  # sums over a split axis differ in the last digit
    assert sorted(path.name for path in tmp_path.glob("two*")) == ["two.jsonl"]


def apart(path):
    """The rows of a file without the log-probs of their turns, and these."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    turns = [turn for row in rows for turn in row["dialogue_history"] if turn["role"] == "assistant"]
    return rows, [turn.pop("logprob") for turn in turns]


def several(*flags):
    """`launch.rollout` started as two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = (*flags, f"--hosts.coordinator={address}", "--hosts.processes=2")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "launch.rollout", *flags, f"--hosts.process={number}"], cwd=ROOT, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip


def test_failed_episodes_are_recorded_left_out_and_played_again(in_process, flags, tmp_path, monkeypatch):
    from colbench_env.humans.scripted import ScriptedSimulator
    from colbench_env.types import NoReply

    output, say = tmp_path / "rows.jsonl", ScriptedSimulator.reply

    async def sometimes(self, request):
        if request.task.problem_description == first:
            raise NoReply("the line is dead")
        return await say(self, request)

    from colbench_env.mini import make_tasks

    first = make_tasks("test", 4, 42)[0].problem_description
    monkeypatch.setattr(ScriptedSimulator, "reply", sometimes)
    ended = in_process(rollout.main, *flags, f"--output={output}")
    assert ended.status == 1 and "2 episodes failed" in ended.errors[0]
    assert len(read_rows(output, Trajectory)) == 6
    records = [json.loads(line) for line in (tmp_path / "rows.failures.jsonl").read_text().splitlines()]
    assert {(r["verdict"], r["by"], r["error"]) for r in records} == {
        ("infrastructure-error", "human", "NoReply: the line is dead (attempts: 1)")
    }
    monkeypatch.undo()
    monkeypatch.setattr(sys, "argv", ["launch", *flags, f"--output={output}"])
    rollout.main()
    assert len(read_rows(output, Trajectory)) == 8


def test_replies_that_leaked_at_every_attempt_are_played_with_more_attempts(in_process, flags, tmp_path, monkeypatch):
    from colbench_env.humans.scripted import ScriptedSimulator

    output, say, asked = tmp_path / "rows.jsonl", ScriptedSimulator.reply, set()

    async def leaks_at_first(self, request):
        asked.add(request.seed)
        return await say(self, request) if request.seed - 1 in asked else "```def```"

    monkeypatch.setattr(ScriptedSimulator, "reply", leaks_at_first)
    ended = in_process(rollout.main, *flags, "--no-leaks", "--attempts=1", f"--output={output}")
    assert ended.status == 1 and "8 episodes failed" in ended.errors[0], ended.errors
    assert "with more --attempts where every reply leaked" in ended.errors[0]
    ended = in_process(rollout.main, *flags, "--no-leaks", "--attempts=2", f"--output={output}")
    assert ended.status == 0, ended.stderr
    assert {row.extra["reasked"] for row in read_rows(output, Trajectory)} == {2}


def test_the_model_can_play_the_human_and_prompts_begin_twice_by_name(in_process, tmp_path, flags):
    output, prompt = tmp_path / "rows.jsonl", tmp_path / "human.txt"
    prompt.write_text("{hidden_information} {{}} {dialogue_history}")
    flags = [flag for flag in flags if "max-turns" not in flag and "num-tasks" not in flag]
    more = ("--num-tasks=1", "--max-turns=2", "--human=model", f"--human-prompt={prompt}", "--human-max-tokens=16")
    ended = in_process(rollout.main, *flags, *more, "--quirks", "double-bos", f"--output={output}")
    assert ended.status == 0, ended.stderr
    rows = read_rows(output, Trajectory)
    assert len(rows) == 2
    for row in rows:
        ids = row.extra["tokens"]["ids"]
        assert ids[0] == ids[1] != ids[2]
        assert (row.extra["human"]["name"], row.extra["human"]["settings"]["max_new_tokens"]) == ("model", 16)


@pytest.mark.parametrize(
    ("flags", "turns"),
    [
        ([], 8),
        (["--benchmark=frontend"], 4),
        (["--tasks=x.jsonl", "--human=rules"], 10),
        (["--tasks=mini.jsonl"], 8),
        (["--max-turns=5"], 5),
    ],
)
def test_a_dialogue_has_as_many_turns_as_the_benchmark_has_it(flags, turns):
    config = cli.parse_plain(RolloutConfig, flags, "launch.rollout")
    assert config.turns == settings_of(config)["max_turns"] == turns


def test_rollouts_and_training_play_the_miniature_with_the_same_budget():
    for benchmark in ("backend", "frontend"):
        trained = PRESETS["embedded"]("sweet", benchmark).rollouts.max_turns
        assert RolloutConfig(benchmark=benchmark).turns == trained == default_turns(benchmark, is_toy=True)
    assert Rollouts().max_turns == default_turns("backend", is_toy=False) == Settings().max_turns == 10


def test_every_row_has_its_budget_and_a_file_of_another_is_refused(in_process, flags, tmp_path):
    output = tmp_path / "rows.jsonl"
    assert in_process(rollout.main, *flags, "--num-tasks=1", "--samples=1", f"--output={output}").status == 0
    (row,) = read_rows(output, Trajectory)
    assert row.extra["rules"]["max_turns"] == 3
    refused = in_process(
        rollout.main, *flags, "--num-tasks=1", "--samples=1", "--max-turns=4", f"--output={output}"
    ).refuses()
    assert (
        "was played with {'rules': {'max_turns': 3" in refused and "this run has {'rules': {'max_turns': 4" in refused
    )


def test_rules_answer_about_tasks_that_have_no_fact_lines_and_the_row_names_them(in_process, flags, tmp_path):
    source = "def f(x):\n    return round(x, 2)"
    (tmp_path / "tasks.jsonl").write_text(
        json.dumps({"problem_description": "Write f(x).", "ground_truth": source}) + "\n"
    )
    for human in ("rules", "standard-v1"):
        output = tmp_path / f"{human}.jsonl"
        turns = [flag for flag in flags if not (human == "standard-v1" and "max-turns" in flag)]
        ended = in_process(
            rollout.main, *turns, "--num-tasks=1", "--samples=1", f"--tasks={tmp_path / 'tasks.jsonl'}",
            f"--human={human}", f"--output={output}",
        )  # fmt: skip
        assert ended.status == 0, ended.stderr
        (row,) = read_rows(output, Trajectory)
        assert row.extra["human"] == {
            "name": human, "settings": {"answers": "from the reference by rules", "version": 2},
        }  # fmt: skip
        assert row.extra["leaks"] == 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--human=openai"], "--human=openai needs --human-model=NAME"),
        (["--agent-url=http://x/v1"], "needs both --agent-url and --agent-model"),
        (["--samples=0"], "samples is 0"),
        (["--temperature=nan"], "temperature is nan, it must be finite and not negative"),
        (["--human-temperature=-1"], "temperature is -1.0, it must be finite and not negative"),
        (["--top-p=0"], "top_p 0.0: at least 0 (off), and above 0 and at most 1 (off)"),
        (["--max-turns=-1"], "max_turns is -1, it must be at least 0"),
        (["--agent-omit=seed"], "--agent-omit and --agent-body are for an agent behind an endpoint"),
        (["--human-omit=seed"], "--human=scripted takes no --human-omit"),
        (["--human=rules", "--benchmark=frontend"], "--human=rules reads Python"),
        (["--human=standard-v1"], "goes with 10 agent turns (here 8)"),
        (["--human=standard-v1", "--tasks=x", "--no-leaks"], "neither --no-leaks nor --leak-free nor"),
        (["--human=model", "--no-leaks", "--leak-free"], "asked for again or cleaned, not both"),
        (["--human=standard-v1", "--tasks=x", "--human-limit=100"], "replies of the usual length"),
    ],
)
def test_flags_that_make_no_sense_are_refused(in_process, wrong, message):
    ended = in_process(rollout.main, *wrong)
    shown = " ".join(word for word in ended.stderr.split() if word != "│")
    assert ended.status == 2 and message in shown, shown


def test_an_endpoint_that_is_down_is_one_sentence_before_anything_is_played(in_process, tmp_path):
    down = [f"--{side}-{flag}" for side in ("human", "agent") for flag in ("url=http://127.0.0.1:9/v1", "model=m")]
    output = tmp_path / "rows.jsonl"
    ended = in_process(rollout.main, "--human=openai", *down, "--human-retries=0", f"--output={output}")
    assert "http://127.0.0.1:9/v1: the endpoint cannot be reached" in ended.refuses()
    assert not output.exists()
