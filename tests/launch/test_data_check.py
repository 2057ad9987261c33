"""`launch.data check`: every defective row is named in one sentence, the rest is counted, flagged and run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from colbench_env.mini import make_tasks
from colbench_env.tasks import write_rows
from colbench_env.types import BadInput
from launch import data
from launch.data_tools import run_references as references
from tests.launch.data_rows import DIALOGUE, PAGE, TASK, data_command, row_checker

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


@pytest.fixture
def run(monkeypatch, capsys):
    with data_command(monkeypatch, capsys) as start:
        yield start


@pytest.fixture
def check(run, tmp_path):
    return row_checker(run, tmp_path / "rows.jsonl")


def test_the_text_names_defective_rows_then_sums_up_and_ends_with_their_number(run, tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(TASK) + "\n{\n" + json.dumps(TASK | {"ground_truth": "def f("}) + "\n")
    status, out, err = run("check", path, "--no-run")
    lines = out.splitlines()
    assert status == 2
    assert lines[0].startswith(f"{path}:2: invalid JSON (")
    assert lines[1] == f"{path}:3: 'ground_truth' does not parse as Python ('(' was never closed in line 1)"
    assert lines[3].split(maxsplit=1) == ["rows", "3, backend, 2 defective"]
    assert err == f"error: {path}: 2 of 3 rows are defective\n"


@pytest.mark.slow
def test_good_tasks_are_run_and_end_with_status_0(run, tmp_path):
    path = tmp_path / "mini.jsonl"
    write_rows(path, make_tasks("train", 3, 0))
    status, out, err = run("check", path)
    assert status == 0
    assert "references" in out and "3 run twice; calls: pass 30" in out
    assert "flagged" not in out and "error" not in err
    assert "stage=running references done=3/3" in err


def test_the_same_file_as_json_is_one_object(check):
    status, sentences, report = check([TASK, TASK, PAGE | {"test_cases": {"a": "len('')"}, "ground_truth": "x = 1"}])
    assert (status, sentences) == (0, [])
    assert report["kind"] == "backend"
    assert report["characters"]["description"] == {"count": 3, "least": 7, "median": 16, "most": 16, "total": 39}
    assert report["rewards"] is report["dialogues"] is report["tokens"] is None
    tasks = report["tasks"]
    assert tasks["repeated"] == [[1, 2]]
    assert (tasks["different"], tasks["tests"], tasks["hidden_differs"]) == (2, {"1": 1, "2": 1}, [1])
    assert tasks["references"]["calls"] == {"pass": 3}


def test_without_a_command_or_with_a_wrong_one_the_commands_are_named(run):
    status, out, _ = run("--help")
    assert status == 0 and "check    Name every defective row" in out
    usage = "usage: python -m launch.data COMMAND [FLAGS]; --help explains them\n"
    for wrong, said in (((), "no command of launch.data is named"), (("chek",), "'chek' is no command of launch.data")):
        assert run(*wrong) == (2, "", f"{usage}error: {said}, expected one of check, convert, assets\n")
    status, out, _ = run("check", "--help")
    assert status == 0 and "--[no-]run" in out and "python -m launch.data check" in out


@pytest.mark.parametrize("flags", [("--workers=0",), ("--kind=tasks",), ("--samples=2",)])
def test_flags_that_make_no_sense_end_with_status_2(run, tmp_path, flags):
    (tmp_path / "x.jsonl").write_text(json.dumps(TASK))
    assert run("check", tmp_path / "x.jsonl", *flags)[0] == 2


def test_a_file_that_cannot_be_read_is_one_sentence(run, tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n\n")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("missing.jsonl", "cannot read the file: No such file or directory"),
        ("", "cannot read the file: Is a directory"),
        ("empty.jsonl", "the file has no rows, expected one JSON object a line"),
        ("pipe", "is no file on a disk, expected one, as it is read several times"),
    ):
        status, out, err = run("check", tmp_path / name)
        assert (status, out) == (2, "")
        assert err.startswith("error: ") and err.endswith(f"{reason}\n") and err.count("\n") == 1


def test_without_a_sandbox_nothing_is_run_unless_the_user_says_so(run, tmp_path, monkeypatch):
    def no_sandbox(**_):
        raise BadInput("nothing on this machine keeps an answer from anything")

    monkeypatch.setattr(references, "Grader", no_sandbox)
    (tmp_path / "x.jsonl").write_text(json.dumps(TASK))
    status, out, err = run("check", tmp_path / "x.jsonl")
    assert (status, out) == (2, "")
    assert err.endswith("keeps an answer from anything; with --no-run nothing is run\n")
    assert run("check", tmp_path / "x.jsonl", "--no-run")[0] == 0


@pytest.mark.slow
def test_a_reader_that_goes_early_is_one_sentence(tmp_path):
    (tmp_path / "x.jsonl").write_text("{\n" * 20_000)
    command = [sys.executable, "-m", "launch.data", "check", str(tmp_path / "x.jsonl")]
    root = Path(data.__file__).parents[1]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    errors = [line for line in process.stderr if not line.startswith("stage=")]
    process.stderr.close()
    assert process.wait() == 1
    assert errors == ["error: standard output was closed before everything was printed\n"]


@pytest.mark.slow
def test_hostile_lines_are_each_one_sentence_and_the_rest_is_checked(check):
    long = "x" * 10_000_000
    rows = [
        (TASK, ""),
        (b"[" * 100_000 + b"\n", "invalid JSON (maximum recursion depth exceeded"),
        (b'{"a":' * 100_000 + b"\n", "invalid JSON (maximum recursion depth exceeded"),
        (json.dumps(TASK | {"n": 0}).replace("0}", "1e999}").encode() + b"\n", "invalid JSON (1e999 is too large"),
        (b'{"n": ' + b"1" * 5000 + b"}\n", "invalid JSON (Exceeds the limit"),
        (b"\0" * 1000 + b"\n", "invalid JSON (Expecting value"),
        (b'{"problem_description": "a\0b"}\n', "invalid JSON (Invalid control character"),
        (b"\xff\xfe{\0}\0\n", "byte 1 is not UTF-8"),
        ({long: 1}, "'problem_description' is missing, the row has 'xxxx"),
        ({str(number): 1 for number in range(10_000)}, "'problem_description' is missing, the row has '0', '1', "),
        (TASK | {"problem_description": long}, ""),
        (TASK | {"ground_truth": f"x = '{long}"}, "'ground_truth' does not parse as Python (unterminated string"),
        (TASK | {"ground_truth": "\0"}, "'ground_truth' does not parse as Python (source code"),
        (TASK | {"ground_truth": "x = '\ud800'"}, ""),
        (TASK | {"ground_truth": "-" * 100_000 + "1"}, "'ground_truth' does not parse as Python ("),
        (TASK | {"problem_description": "\ud800"}, ""),
        (TASK | {"deep": json.loads("[" * 800 + "]" * 800)}, ""),
        (TASK | {"test_cases": {long: "("}}, "test_cases: 'xxxx"),
        (
            TASK | {"test_cases": {"a": "x = 1", "b": "f(", "c": "f(1)"}},
            "test_cases: 'a' is not an expression (invalid",
        ),
        (TASK | {"test_cases": {}}, "'test_cases' is missing or empty, expected an object"),
        (DIALOGUE, "'problem_description' is missing, the row has 'task',"),
        (7, "found a number, expected a JSON object"),
        (json.dumps(TASK)[:70].encode(), "the last line is cut off or invalid JSON"),
    ]
    status, sentences, report = check([row for row, _ in rows], "--no-run")
    expected = [f"{line}: {start}" for line, (_, start) in enumerate(rows, 1) if start]
    assert status == 2
    assert len(sentences) == len(expected)
    assert [s for s, start in zip(sentences, expected, strict=True) if not s.startswith(start)] == []
    assert report["rows"] == len(rows)
    assert report["half_characters"] == [14, 16]
    assert report["tasks"]["different"] == 4  # the row with a deep unknown key is the first task again
    assert report["form"]["ends_with_line_end"] is False


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [PAGE, PAGE | {"ground_truth": "def f(): pass"}],
            "2: 'ground_truth' has no <html> and no <body>, expected a page",
        ),
        ([DIALOGUE, DIALOGUE | {"reward": "1"}], "2: 'reward' is a string, expected a number"),
        (
            [DIALOGUE | {"task": TASK | {"test_cases": {"t": "f("}}}],
            "1: task: test_cases: 't' is not an expression ('(' was never closed in line 1), "
            "expected calls such as f(1, 2)",
        ),
        ([{"chosen": "a", "rejected": "b"}, {"chosen": "a"}], "2: 'rejected' is missing, the row has 'chosen'"),
        (
            [{"x": 1}],
            "1: the keys are those of no known row, expected one of backend, frontend, trajectories, critic-pairs, "
            "turn-pairs, candidates, ranked",
        ),
        ([b"3\n"], "1: found no JSON object, expected a row"),
    ],
)
def test_rows_that_are_not_of_their_kind_are_named(check, rows, sentence):
    status, sentences, _ = check(rows, "--no-run")
    assert (status, sentences) == (2, [sentence])


@pytest.mark.slow
def test_references_that_can_never_be_met_are_defective_and_others_counted(check):
    sources = {
        "never ends": "def f(x):\n    while True: pass",
        "always raises": "def f(x): raise ValueError('no')",
        "raises once": "def f(x): return 1 / (x - 1)",
        "has no such module": "import surely_not_there\ndef f(x): return x",
        "is NaN": "def f(x): return 1e999 - 1e999",
        "is the clock": "import time\ndef f(x): return time.monotonic_ns()",
        "is good": "def f(x): return x",
    }
    rows = [TASK | {"problem_description": name, "ground_truth": source} for name, source in sources.items()]
    rows[0]["test_cases"] = {"test1": "f(1)"}  # five seconds, not ten
    status, sentences, report = check(rows)
    assert status == 2
    assert sentences == [
        "1: the reference runs for too long in test1 (killed after 5.0 s)",
        "2: the reference gives no value in any of its 2 tests (ValueError: no)",
    ]
    assert report["tasks"]["flags"] == {"missing-module": [4], "nan": [5], "random": [6]}
    references = report["tasks"]["references"]
    assert references["failing"] == {"error": [2, 3, 4], "timeout": [1]}
    assert references["calls"] == {"error": 5, "pass": 7, "timeout": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "rows", "flags"),
    [
        ("colbench/backend_test_800.jsonl", "backend", 800, {"comparison": 6, "missing-module": 1, "random": 1}),
        ("colbench/frontend_test_800.jsonl", "frontend", 800, {}),
        ("trajectories/qwen3_4b_40.jsonl", "trajectories", 40, {}),
    ],
)
def test_the_real_files_go_through(run, name, kind, rows, flags):
    if not (SHARED / name).exists():
        pytest.skip(f"../shared/data/{name} is not beside this checkout")
    status, out, _ = run("check", SHARED / name, "--no-run", "--json")
    report = json.loads(out)
    assert (status, report["kind"], report["rows"], report["defects"]) == (0, kind, rows, [])
    found = {flag: len(lines) for flag, lines in report["tasks"]["flags"].items()}
    found.setdefault("missing-module", flags.get("missing-module", 0))  # bs4 may be installed here
    assert found == {"missing-module": 0} | flags
