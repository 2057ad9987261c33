"""The command `colbench`: play, grade, report."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from colbench_env.__main__ import main
from colbench_env.mini import make_tasks
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import Trajectory

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the agent of docs/colbench.md in agent.py."""
    text = (ROOT / "docs" / "colbench.md").read_text(encoding="utf-8")
    (agent,) = re.findall(r"^(WISHES = .*?)^rows = ", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "agent.py").write_text(agent)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_agent_of_the_document_plays_is_graded_and_solves_something(folder, capsys):
    assert main(["play", "--agent=agent.py:agent", "--output=rows.jsonl", "--count=6", "--seed=3"]) == 0
    told = capsys.readouterr()
    assert told.out == "6 dialogues in rows.jsonl\n" and told.err.splitlines()[-1] == "dialogues 6/6"
    assert main(["grade", "rows.jsonl", "--output=graded.jsonl"]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("sandbox: ") and told.out.endswith("\n6 graded dialogues in graded.jsonl\n")
    rewards = [row.reward for row in read_rows("graded.jsonl", Trajectory)]
    assert rewards.count(1.0) > 0
    assert main(["report", "graded.jsonl"]) == 0
    lines = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["success"].strip() == f"{100 * rewards.count(1.0) / 6:.1f} %"
    assert lines["dialogues"].strip() == "6, 0 of them without a reward"


def test_the_same_command_plays_what_has_failed(folder, capsys):
    (folder / "shy.py").write_text(
        "import pathlib\ncalls = []\ndef agent(messages):\n    calls.append(1)\n"
        "    if not pathlib.Path('up').exists() and len(calls) > 1:\n        raise ConnectionError('down')\n"
        "    return 'I WANT TO ANSWER: x = 1'\n"
    )
    flags = ["play", "--agent=shy.py:agent", "--output=rows.jsonl", "--count=3", "--threads=1"]
    assert main(flags) == 1
    told = capsys.readouterr()
    assert told.out == "1 dialogues in rows.jsonl\n"
    assert told.err.splitlines()[-1].startswith("error: 2 dialogues failed, the last one: task ")
    (folder / "up").touch()
    assert main(flags) == 0 and len(read_rows("rows.jsonl", Trajectory)) == 3


def test_a_model_can_play_the_human_on_tasks_of_a_file(folder):
    write_rows("tasks.jsonl", make_tasks("test", 2, 0))
    (folder / "human.py").write_text("def speak(messages, seed):\n    return f'Reply to {len(messages)}.'\n")
    (folder / "asker.py").write_text("def agent(messages):\n    return 'Why?' if len(messages) < 4 else 'x = 1'\n")
    flags = ["--tasks=tasks.jsonl", "--human=human.py:speak", "--max-turns=2", "--samples=2"]
    assert main(["play", "--agent=asker.py:agent", "--output=rows.jsonl", *flags]) == 0
    rows = read_rows("rows.jsonl", Trajectory)
    assert [row.dialogue_history[2].content for row in rows] == ["Reply to 1."] * 4
    assert {row.extra["human"]["name"] for row in rows} == {"chat"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["play", "--agent=agent", "--output=o.jsonl"], "'agent' names no function, expected FILE.py:NAME"),
        (["play", "--agent=none.py:f", "--output=o.jsonl"], "none.py: no such file"),
        (["play", "--agent=agent.py:f", "--output=o.jsonl"], "agent.py: defines no function 'f'"),
        (["play", "--agent=broken.py:f", "--output=o.jsonl"], "broken.py: cannot be imported: SyntaxError: "),
        (["play", "--agent=agent.py:agent", "--output=o.jsonl", "--samples=0"], "0 samples of each task"),
        (["grade", "none.jsonl", "--output=o.jsonl"], "none.jsonl: cannot read the file: No such file"),
        (["grade", "untested.jsonl", "--output=o.jsonl"], "untested.jsonl:2: the answer cannot be graded: "),
        (["report", "untested.jsonl"], "untested.jsonl: no dialogue has a reward: colbench grade"),
        (["report", "points.jsonl"], "points.jsonl:1: 'reward' is 7, expected 0 to 1"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(folder, capsys, arguments, says):
    history = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x"}]
    row = {"task": {"problem_description": "p"}, "dialogue_history": history, "answer": "x"}
    (folder / "untested.jsonl").write_text("\n" + json.dumps(row))
    (folder / "points.jsonl").write_text(json.dumps(row | {"reward": 7}))
    (folder / "broken.py").write_text("def f(:")
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {says}") and told.err.count("\n") == 1


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "colbench_env", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: colbench [-h] play|grade|report")
