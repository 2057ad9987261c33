"""`launch.evaluate`: what it does with bad input, and when it is killed and started again."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from colbench_env.grade_file import alone_on
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import Trajectory
from launch import evaluate as command
from launch.evaluation.inputs import lines_text
from tests.launch.evaluate_rows import dialogue, read_json, right, task, three_tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def evaluate(in_process):
    return functools.partial(in_process, command.main)


@pytest.fixture
def file(tmp_path):
    return three_tasks(tmp_path / "rows.jsonl")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_defect_is_named_by_its_line_and_the_rest_is_graded_and_written(evaluate, tmp_path):
    rows = tmp_path / "rows.jsonl"
    good, big = dialogue(task(1), right(1)), dialogue(task(2), right(2) + "\n#" + "x" * 2_000_000)
    broken = dialogue(task(3, "def f(x:"), right(3))
    endless = dialogue(task(4, "def f(x):\n    while True: pass", tests=1), right(4))
    no_call = dialogue(replace(task(5), test_cases={"test1": "f(1)", "test2": "y = f(2)"}), right(5))
    raising = dialogue(task(6, "def f(x):\n    raise KeyError(x)"), right(6))
    lines = [json.dumps(row.to_json()) for row in (good, big, broken, endless, no_call, raising)]
    missing = json.dumps({name: value for name, value in good.to_json().items() if name != "answer"})
    text = f"{lines[0]}\r\n\n{lines[1]}\n{missing}\r\n[1]\n" + "\n".join(lines[2:]) + "\n" + lines[0][:90]
    rows.write_bytes(text.encode())
    outputs = [tmp_path / name for name in ("output", "json", "html")]
    ended = evaluate(f"--trajectories={rows}", *(f"--{path.name}={path}" for path in outputs))
    assert ended.refuses() == "error: 8 defects in the input, named above; everything else was evaluated"
    said = {
        3: "the answer has 2,000,048 characters, more than the 1,000,000 that are run: it passes no test",
        4: "'answer' is missing",
        5: "found a list, expected a JSON object",
        6: "the reference is not Python ('(' was never closed in line 1); the dialogue is not graded",
        7: "the reference runs for too long in test1",
        8: "test2 is not an expression (invalid syntax in line 1): 'y = f(2)'; the dialogue is not graded",
        9: "the reference gives no value in any of its 4 tests (KeyError: 1); the dialogue is not graded",
        10: "the last line is cut off or invalid JSON",
    }
    assert [line for line in said if f"{rows}:{line}: {said[line]}" in ended.stderr] == list(said)
    graded = read_rows(outputs[0], Trajectory)
    assert [row.reward for row in graded] == [1.0, 0.0, None, None, None, None]
    found = read_json(outputs[1])
    assert (found["rows"], len(found["defects"])) == (6, 8)
    assert found["excluded"] == {"defective reference or test": 4}
    assert found["policies"]["evaluated"]["success"]["mean"] == 0.5
    assert outputs[2].stat().st_size < 200_000


def test_dialogues_of_different_turn_budgets_are_told(evaluate, tmp_path):
    def write(name, *rules):
        rows = [dialogue(task(number), right(number), rules=told) for number, told in enumerate(rules)]
        write_rows(tmp_path / name, [replace(row, reward=1.0) for row in rows])  # nothing is left to be graded
        return tmp_path / name

    rows = write("rows.jsonl", {"max_turns": 8}, {"max_turns": 8})
    other = write("other.jsonl", {"max_turns": 10}, "mine")
    told = "dialogues of at most 8 and 10 agent turns: their scores cannot be compared"
    alone = evaluate(f"--trajectories={rows}", "--no-references")
    assert (alone.status, told in alone.stderr) == (0, False)
    both = evaluate(f"--trajectories={rows}", f"--baseline={other}", "--no-references")
    assert (both.status, told in both.stderr) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["trajectories", "baseline"])
def test_rewards_of_another_scale_are_refused_and_can_be_given_anew(evaluate, file, tmp_path, flag):
    rows = [replace(row, reward=reward) for row, reward in zip(read_rows(file, Trajectory), (0, 1, -1), strict=False)]
    other = tmp_path / "other.jsonl"
    other.write_text("\n" + "\n\n".join(json.dumps(row.to_json()) for row in rows))
    files = {"trajectories": file, "baseline": file} | {flag: other}
    flags = [
        *(f"--{name}={path}" for name, path in files.items() if path != file or name == "trajectories"),
        "--no-references",
    ]
    assert evaluate(*flags).refuses() == (
        f"error: {other}:6: 'reward' is -1, expected 0 to 1 (the share of the tests passed); "
        "launch.evaluate --regrade --output=FILE grades the answers anew"
    )
    ended = evaluate(*flags, "--regrade")
    assert ended.status == 0
    figures = {"trajectories": "Success 33.3 % [0.0, 100.0], 66.7 % [25.0, 100.0]", "baseline": "66.7"}
    assert figures[flag] in ended.stdout


def test_a_graded_file_that_is_not_the_run_s_is_told_by_its_line(evaluate, file, tmp_path):
    output = tmp_path / "graded.jsonl"
    first, second, *_ = read_rows(file, Trajectory)
    done = replace(first, reward=1.0, extra=first.extra | {"grader": "strict", "verdicts": {}})
    lines = [json.dumps(row.to_json()) for row in (done, replace(second, answer="other"))]
    output.write_text(f"\n{lines[0]}\n\n\n{lines[1]}\n")
    told = evaluate(f"--trajectories={file}", f"--output={output}", "--no-references").refuses()
    assert told.startswith(f"error: {output}:5: this is not row 2 of what is graded here")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "samples", "line", "says"),
    [
        ((1, 1, 2, 2), 2, 4, "the file is task-major"),
        ((1, 2, 2, 1), 2, 4, "is of the task 'Add 2.', expected that of row"),
        ((1, 2, 1), 2, 5, "row 4 is missing"),
        ((1, 2, 3), 3, 3, "is of the task 'Add 2.'"),
    ],
)
def test_a_wrong_layout_is_named_and_the_rest_goes_on(evaluate, tmp_path, order, samples, line, says):
    rows = tmp_path / "rows.jsonl"
    texts = [json.dumps(dialogue(task(n), right(n)).to_json()) for n in order]
    rows.write_text(texts[0] + "\n\n" + "\n".join(texts[1:]) + "\n")  # a blank line: row 2 is line 3
    ended = evaluate(f"--trajectories={rows}", f"--samples={samples}", f"--json={tmp_path / 'json'}", "--no-references")
    ended.refuses()
    assert re.search(rf"{re.escape(str(rows))}:{line}: .*{re.escape(says)}", ended.stderr), ended.stderr
    assert read_json(tmp_path / "json")["graded"] == len(order)


def test_files_that_cannot_be_read_or_written_are_one_sentence_before_any_work(evaluate, file, tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "bad").write_text("{}\n{}\n")
    for flag, says in (
        ("--trajectories=" + str(tmp_path / "none"), "none: cannot read the file: No such file"),
        ("--trajectories=" + str(tmp_path / "empty"), "empty: the file has no rows"),
        ("--trajectories=" + str(tmp_path / "bad"), "bad:1: 'task' is missing, the row has no keys (and 1 more such"),
        ("--output=" + str(tmp_path / "none" / "x"), "x: cannot be written: No such file or directory"),
        ("--html=" + str(tmp_path), "cannot be written: there is something else of that name"),
        ("--tasks=" + str(tmp_path / "none"), "none: cannot read the file"),
        ("--baseline=" + str(tmp_path / "empty"), "empty: the file has no rows"),
        ("--model=" + str(tmp_path / "none"), "none: no such model directory"),
    ):  # fmt: skip
        ended = evaluate(f"--trajectories={file}", flag)
        assert says in ended.refuses()
        assert "stage=" not in ended.stderr


def test_an_output_that_is_an_input_or_another_output_is_refused(evaluate, file, tmp_path):
    for flags in ((f"--output={file}",), (f"--json={tmp_path / 'a'}", f"--html={tmp_path / 'a'}")):
        ended = evaluate(f"--trajectories={file}", *flags)
        assert ended.status == 2 and "are the same file" in " ".join(ended.stderr.split())


# --- killed and started again -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_run_goes_on_and_writes_the_same_bytes(tmp_path):
    tasks = [task(n) for n in range(1, 41)]
    rows = [dialogue(t, right(n, n % 5)) for n, t in enumerate(tasks, start=1)]
    write_rows(tmp_path / "rows.jsonl", rows)

    def start(output):
        flags = [f"--trajectories={tmp_path / 'rows.jsonl'}", f"--output={output}", "--no-references"]
        return subprocess.Popen(
            [sys.executable, "-m", "launch.evaluate", *flags],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    straight, killed = tmp_path / "straight.jsonl", tmp_path / "killed.jsonl"
    told, errors = start(straight).communicate()
    assert len(read_rows(straight, Trajectory)) == 40, errors
    process = start(killed)
    while process.poll() is None and (not killed.exists() or killed.read_bytes().count(b"\n") < 10):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    left = killed.read_bytes()
    assert 10 <= left.count(b"\n") < 40 and straight.read_bytes().startswith(left)
    killed.write_bytes(left[:-20])  # a line that was not written to its end
    again, errors = start(killed).communicate()
    assert killed.read_bytes() == straight.read_bytes()
    without_time = [re.sub(r"time +.*", "", text) for text in (told, again)]
    assert without_time[0] == without_time[1]


@pytest.mark.slow
def test_a_finished_output_is_not_graded_again(evaluate, file, tmp_path, monkeypatch):
    flags = (f"--trajectories={file}", f"--output={tmp_path / 'out'}", "--no-references")
    first = evaluate(*flags)
    from colbench_env.grading import Grader

    monkeypatch.setattr(Grader, "grade", None)  # nothing is graded
    second = evaluate(*flags)
    assert second.status == 0
    assert [re.sub(r"time +.*", "", ended.stdout) for ended in (first, second)] == 2 * [
        re.sub(r"time +.*", "", first.stdout)
    ]


@pytest.mark.slow
def test_an_output_of_other_rows_or_another_grader_is_refused(evaluate, file, tmp_path):
    flags = (f"--trajectories={file}", f"--output={tmp_path / 'out'}", "--no-references")
    assert evaluate(*flags).status == 0
    assert "out:1: the row was graded by 'strict', not 'official'" in evaluate(*flags, "--grader=official").refuses()
    rows = read_rows(file, Trajectory)
    write_rows(file, [rows[0], *rows[2:]])
    assert "out:6: the file has more rows than there are to grade, 5" in evaluate(*flags).refuses()
    write_rows(file, [rows[0], *rows[2:], rows[1]])
    assert "out:2: this is not row 2 of what is graded here" in evaluate(*flags).refuses()


def test_two_runs_do_not_write_one_output(evaluate, file, tmp_path):
    with alone_on(tmp_path / "out"):
        ended = evaluate(f"--trajectories={file}", f"--output={tmp_path / 'out'}")
    assert "out: another process is writing this file" in ended.refuses()


def test_lines_are_told_in_few_words():
    assert lines_text(["f:1", "f:2", "f:3", "f:9"]) == "lines 1-3, 9"
    assert lines_text(["a:b:7"]) == "line 7"
    assert lines_text([f"f:{2 * n}" for n in range(1, 24)]).endswith("38, 40 and 3 more stretches")
