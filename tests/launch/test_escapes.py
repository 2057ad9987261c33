"""Rows of strangers that hold escape sequences: no command sends them to the terminal."""

import io
import json

import numpy as np
import pytest

from colbench_env.tasks import write_rows
from colbench_env.types import Message, Task, Trajectory
from launch import data, evaluate, show
from launch.common import cli
from launch.common.console import Console
from launch.viewer.training_rows import painted
from sweet_jax.data.batch import TokenRow
from tests.launch import show_rows

EVIL = "\x1b[2J\x1b]8;;http://a.test\x1b\\go\x07\x9b31m\r\u202e\u2066\x00\ud800"
SHOWN = r"\x1b[2J\x1b]8;;http://a.test\x1b\go\x07\x9b31m\r\u202e\u2066\x00"


def harmless(text):
    """The text, in which there is nothing that a terminal obeys."""
    assert not set(text) & {*map(chr, range(10)), *"\x0b\x0c\r\x1b\x07\x9b\u202e\u2066"} - {"\t"}
    return text


def poisoned(value):
    """The same JSON value with EVIL behind every text."""
    if isinstance(value, dict):
        return {name: poisoned(part) if name not in FIXED else part for name, part in value.items()}
    if isinstance(value, list):
        return [poisoned(part) for part in value]
    return value + EVIL if isinstance(value, str) else value


FIXED = ("role", "test_cases", "verdicts", "chosen_tokens", "rejected_tokens", "images")


def test_show_prints_every_part_of_an_episode_without_obeying_it(in_process, tmp_path):
    flags = show_rows.everything(tmp_path)
    evil_tests = {"test1": "f(1)" + EVIL, "test2": "f(2)"}
    task = {**poisoned(show_rows.TASK), "test_cases": evil_tests}
    solved = {**poisoned(show_rows.SOLVED), "task": task}
    ranked = poisoned({**show_rows.RANKED, "messages": show_rows.SOLVED["dialogue_history"][:1]})
    show_rows.write(tmp_path / "rows.jsonl", solved)
    show_rows.write(tmp_path / "ranked.jsonl", ranked)
    show_rows.write(tmp_path / "other.jsonl", solved)
    show_rows.write(tmp_path / "rows.failures.jsonl", poisoned(show_rows.FAILURE))
    done = in_process(show.main, *flags, "--terminal")
    assert done.status == 0, done.stderr
    text = "".join(harmless(done.stdout).split())  # long lines are wrapped
    for words in (
        "Addafeetoaprice.", "Whichfee?", "Two.", "returnx+2", "fee:two", "best", "scripted",
    ):  # fmt: skip
        assert words + SHOWN in text
    failed = in_process(show.main, *flags, "--terminal", "--row=2")
    assert "503fromtheendpoint" + SHOWN in "".join(harmless(failed.stdout).split())


def test_show_prints_tokens_without_obeying_them():
    class EvilPieces:
        def text(self, token):
            return EVIL

    row = TokenRow(np.array([0, 1], np.int32), np.array([0, 1], np.int32))
    assert harmless(painted(row, EvilPieces(), colours=False).plain).count(SHOWN) == 2
    assert harmless(painted(row, EvilPieces(), colours=True).plain).count(SHOWN) == 2


def test_evaluate_prints_names_and_sentences_without_obeying_them(in_process, tmp_path):
    task = Task("A task" + EVIL, "def f(x): return x", {"test1": "f(1)"})
    row = Trajectory(
        task,
        (Message("user", task.problem_description), Message("assistant", "I WANT TO ANSWER: x")),
        "x",
        0.5,
        {"human": {"name": "someone" + EVIL}, "grader": "mine" + EVIL},
    )
    write_rows(tmp_path / "rows.jsonl", [row])
    done = in_process(evaluate.main, f"--trajectories={tmp_path / 'rows.jsonl'}", "--no-references")
    assert done.status == 0, done.stderr
    harmless(done.stderr)
    assert "someone" + SHOWN in harmless(done.stdout) and "grader mine" + SHOWN in done.stdout


def test_data_check_prints_defects_and_facts_without_obeying_them(in_process, tmp_path):
    path = tmp_path / ("rows\x1b[31m.jsonl")
    rows = [{"task" + EVIL: 1}, {**show_rows.SOLVED, "human": {"name": "someone" + EVIL}}, {"chosen": "a" + EVIL}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = in_process(data.main, "check", str(path), "--no-run")
    assert done.status == 2
    assert r"rows\x1b[31m.jsonl:1" in harmless(done.stdout) and r"rows\x1b[31m.jsonl" in harmless(done.stderr)


def test_what_a_console_says_is_harmless_on_the_terminal_and_in_the_log(tmp_path):
    stream = io.StringIO()
    console = Console(stream)
    with console.logged_to(tmp_path / "log.txt"):
        console.say(f"the endpoint said {EVIL}")
        console.warn("a human" + EVIL)
        console.table([("name", EVIL)])
    assert harmless(stream.getvalue()).count(SHOWN) == 3
    assert (tmp_path / "log.txt").read_text() == stream.getvalue()


@pytest.mark.parametrize(
    "error",
    [cli.bad_input("no " + EVIL), cli.Stopped(EVIL), ConnectionError(EVIL), OSError(2, "not there", "a" + EVIL)],
)
def test_the_sentence_of_an_error_is_harmless(error):
    status, sentence = cli.verdict(error)
    assert status in (1, 2) and SHOWN in harmless(sentence)
