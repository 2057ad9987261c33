"""The command `colbench`: play, grade, report."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from colbench_env import mini
from colbench_env.__main__ import main
from colbench_env.dialogue import MAX_TURNS
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
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:  # the modules of this folder, of which each test has others
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith((str(tmp_path), "agent.py")):
            del sys.modules[name]


def command(*arguments, **options):
    """The ended process of the command; options: of subprocess.run, in place of captured streams."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 120}
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""} | options.pop("variables", {})
    return subprocess.run([sys.executable, "-m", "colbench_env", *arguments], env=environment, **(streams | options))


@pytest.mark.slow
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
    told = capsys.readouterr().err.splitlines()  # one of the three was there
    assert told == ["dialogues 2/3", "dialogues 3/3"]
    assert main(flags) == 0
    assert capsys.readouterr() == ("3 dialogues in rows.jsonl\n", "")


def test_turns_are_those_of_the_miniature_or_else_of_the_benchmark_unless_they_are_told(folder):
    write_rows("tasks.jsonl", make_tasks("test", 1, 0))
    (folder / "asker.py").write_text("def agent(messages):\n    return 'Why?'\n")
    cases = {"mini": (["--count=1"], mini.MINI_TURNS), "file": (["--tasks=tasks.jsonl"], MAX_TURNS),
             "told": (["--count=1", "--max-turns=3"], 3)}  # fmt: skip
    for name, (flags, turns) in cases.items():
        assert main(["play", "--agent=asker.py:agent", f"--output={name}.jsonl", *flags]) == 0
        (row,) = read_rows(f"{name}.jsonl", Trajectory)
        assert (len(row.agent_turns), row.extra["rules"]["max_turns"]) == (turns, turns)


def test_the_humans_without_a_model_have_names(folder):
    write_rows("tasks.jsonl", make_tasks("test", 1, 0))
    (folder / "asker.py").write_text("def agent(messages):\n    return 'How do I round?'\n")
    cases = {"mini": (["--count=1"], "scripted"), "file": (["--tasks=tasks.jsonl"], "rules"),
             "rules": (["--count=1", "--human=rules"], "rules"),
             "scripted": (["--tasks=tasks.jsonl", "--human=scripted"], "scripted")}  # fmt: skip
    for name, (flags, human) in cases.items():
        assert main(["play", "--agent=asker.py:agent", f"--output={name}.jsonl", "--max-turns=2", *flags]) == 0
        assert [row.extra["human"]["name"] for row in read_rows(f"{name}.jsonl", Trajectory)] == [human]


def test_an_agent_may_hold_dataclasses_and_import_what_lies_beside_it(folder, monkeypatch):
    (folder / "agents").mkdir()
    (folder / "agents" / "holder.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass, field\nimport beside_the_holder\n"
        "@dataclass\nclass Holder:\n    words: list[str] = field(default_factory=list)\n"
        "    code: str = beside_the_holder.CODE\n"
        "def agent(messages):\n    return f'I WANT TO ANSWER: {Holder().code}'\n"
    )
    (folder / "agents" / "beside_the_holder.py").write_text("CODE = 'x = 17'\n")
    assert main(["play", "--agent=agents/holder.py:agent", "--output=rows.jsonl", "--count=1"]) == 0
    assert [row.answer for row in read_rows("rows.jsonl", Trajectory)] == ["x = 17"]


def test_a_file_with_the_name_of_a_module_does_not_take_its_place(folder):
    (folder / "json.py").write_text("def agent(messages):\n    return 'I WANT TO ANSWER: x'\n")
    assert main(["play", "--agent=json.py:agent", "--output=rows.jsonl", "--count=1"]) == 0
    assert sys.modules["json"] is json


def test_ctrl_c_is_one_sentence_and_status_130(folder, capsys):
    (folder / "stopper.py").write_text("def agent(messages):\n    raise KeyboardInterrupt\n")
    assert main(["play", "--agent=stopper.py:agent", "--output=rows.jsonl", "--count=2"]) == 130
    assert capsys.readouterr() == ("", "stopped; run the same command again to continue\n")


def write_graded():
    row = {"task": {"problem_description": "p"}, "answer": "x", "reward": 1.0,
           "dialogue_history": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x"}]}  # fmt: skip
    Path("graded.jsonl").write_text(json.dumps(row))


@pytest.mark.parametrize("arguments", [["report", "graded.jsonl"], ["--help"]])
def test_output_that_cannot_be_written_is_one_sentence_and_status_1(folder, arguments):
    write_graded()
    with open("/dev/full", "w") as full:
        done = command(*arguments, stdout=full)
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as closed:
        done = command(*arguments, stdout=closed)
    assert (done.returncode, done.stderr) == (1, "error: the output was closed before everything was printed\n")


def test_standard_error_that_cannot_be_written_leaves_the_status(folder):
    write_graded()
    with open("/dev/full", "w") as full:
        assert command("report", "none.jsonl", stderr=full).returncode == 2
        assert command("report", "graded.jsonl", stderr=full).returncode == 0


def test_an_error_of_the_system_names_its_file(folder, capsys, monkeypatch):
    monkeypatch.setattr("colbench_env.__main__.read_located_rows", lambda *_: open("none/there"))
    assert main(["report", "graded.jsonl"]) == 1
    assert capsys.readouterr().err == "error: none/there: No such file or directory\n"


def test_what_a_model_says_does_nothing_to_a_terminal_and_fits_into_its_encoding(folder):
    (folder / "odd.py").write_text("def agent(messages):\n    raise ValueError('\\x1b[31m\\u202e\\n\\u4e2d')\n")
    flags = ["--agent=odd.py:agent", "--output=rows.jsonl", "--count=1"]
    done = command("play", *flags, variables={"PYTHONIOENCODING": "ascii"})
    warning, progress, error = done.stderr.splitlines()
    assert done.returncode == 1 and progress == "dialogues 1/1"
    assert warning.startswith("warning: task ") and error.startswith("error: 1 dialogues failed, ")
    assert all(r"ValueError: \x1b[31m\u202e \u4e2d" in line for line in (warning, error))


@pytest.mark.parametrize(("name", "status"), [("graded.jsonl", 0), ("none.jsonl", 2)])
def test_closed_streams_leave_the_status(folder, name, status):
    write_graded()
    line = f"{shlex.quote(sys.executable)} -m colbench_env report {name} >&- 2>&-"
    assert subprocess.run(line, shell=True, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode == status


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
        (["play", "--agent=agent.py:agent", "--output=o.jsonl", "--count=0"], "--count=0: expected at least 1 task"),
        (["play", "--agent=agent.py:agent", "--output=o.jsonl", "--count=-3"], "--count=-3: expected at least 1 task"),
        (["play", "--agent=agent.py:agent", "--output=o.jsonl", "--max-turns=0"], "max_turns=0, "),
        (
            ["play", "--agent=agent.py:agent", "--output=o.jsonl", "--human=rule"],
            "--human=rule: there is no such human, expected scripted, rules or FILE.py:NAME",
        ),
        (
            ["play", "--agent=leaver.py:f", "--output=o.jsonl"],
            "leaver.py: cannot be imported: it ends the program (sys.exit) as it is imported",
        ),
        (["grade", "none.jsonl", "--output=o.jsonl"], "none.jsonl: cannot read the file: No such file"),
        (["grade", "untested.jsonl", "--output=o.jsonl"], "untested.jsonl:2: the answer cannot be graded: "),
        (["report", "untested.jsonl"], "untested.jsonl: no dialogue has a reward: colbench grade"),
        (
            ["report", "points.jsonl"],
            "points.jsonl:1: 'reward' is 7, expected 0 to 1 (the share of the tests passed); "
            "colbench grade FILE --output=GRADED gives new ones to rows without 'reward'",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(folder, capsys, arguments, says):
    history = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x"}]
    row = {"task": {"problem_description": "p"}, "dialogue_history": history, "answer": "x"}
    (folder / "untested.jsonl").write_text("\n" + json.dumps(row))
    (folder / "points.jsonl").write_text(json.dumps(row | {"reward": 7}))
    (folder / "broken.py").write_text("def f(:")
    (folder / "leaver.py").write_text("import sys\nf = print\nsys.exit()\n")
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {says}") and told.err.count("\n") == 1


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "colbench_env", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: colbench [-h] play|grade|report")
