"""`launch.data check`: every defective row is named in one sentence, the rest is counted, flagged and run."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from colbench_env.mini import make_tasks
from colbench_env.tasks import write_rows
from colbench_env.types import BadInput
from launch import data
from launch.common import cli
from launch.data_tools import run_references as references
from launch.data_tools.report_data import FileForm, Lengths, Rewards

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
TASK = {
    "problem_description": "Double a number.",
    "ground_truth": "def f(x):\n    return 2 * x",
    "test_cases": {"test1": "f(1)", "test2": "f(2)"},
    "hidden_information": "double: Twice.",
}
PAGE = {"problem_description": "A page.", "ground_truth": "<html></html>"}
DIALOGUE = {
    "task": {"problem_description": "Double a number."},
    "dialogue_history": [
        {"role": "user", "content": "Double a number."},
        {"role": "assistant", "content": "Why?", "input": "<s>Double", "output": "Why?"},
        {"role": "user", "content": "So."},
        {"role": "assistant", "content": "def f(x): return 2 * x", "input": None, "output": None},
    ],
    "answer": "def f(x): return 2 * x",
    "reward": 1.0,
}
CANDIDATES = {
    "input": "<s>user: hi",
    "input_with_ground_truth": "In light that the final answer is: x. <s>user: hi",
    "older_output": "Up?",
    "reward": 0.5,
    "ground_truth": "def f(x): return x",
    "messages": [{"role": "user", "content": "hi"}],
    "additional_outputs": ["a", "b"],
    "additional_reference_logprobs": [-0.5, -0.25],
    "additional_reference_logprobs_sum": [-5.0, -2.5],
}


@pytest.fixture
def run(monkeypatch, capsys):
    """Starts `launch.data` in this process with arguments: exit status, standard output, standard error."""
    handlers, level = logging.root.handlers[:], logging.root.level

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch.data", *map(str, arguments)])
        try:
            status = cli.exit_status(data.main)
        except SystemExit as stop:  # --help, or flags that the parser does not know
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    yield start
    logging.captureWarnings(False)
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.fixture
def check(run, tmp_path):
    """Checks rows (objects, or lines as bytes) with flags: exit status, the sentences, the JSON object."""

    def start(rows, *flags):
        path = tmp_path / "rows.jsonl"
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows]
        path.write_bytes(b"".join(lines))
        status, out, err = run("check", path, "--json", *flags)
        assert "Traceback" not in err
        report = json.loads(out)
        prefix = f"{path}:"
        sentences = [defect["sentence"] for defect in report["defects"]]
        assert all(sentence.startswith(prefix) and "\n" not in sentence for sentence in sentences)
        assert all(len(sentence) < 1000 for sentence in sentences)
        return status, [sentence.removeprefix(prefix) for sentence in sentences], report

    return start


# --- what a user sees ------------------------------------------------------------------------------------------------


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
    assert status == 0 and "check    Names every defective row" in out
    usage = "usage: python -m launch.data COMMAND [FLAGS]; --help explains them\n"
    for wrong, said in (((), "no command of launch.data is named"), (("chek",), "'chek' is no command of launch.data")):
        assert run(*wrong) == (2, "", f"{usage}error: {said}, expected one of check, assets\n")
    status, out, _ = run("check", "--help")
    assert status == 0 and "--no-run" in out and "python -m launch.data check" in out


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


# --- defective rows --------------------------------------------------------------------------------------------------


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


# --- kinds and facts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (TASK, "backend"),
        (PAGE, "frontend"),
        (DIALOGUE, "trajectories"),
        ({"chosen": "In light that the final answer is: x.y", "rejected": "z"}, "critic-pairs"),
        ({"chosen": "x", "rejected": "z"}, "turn-pairs"),
        (CANDIDATES, "candidates"),
        (CANDIDATES | {"judge_result": [0, 1]}, "ranked"),
    ],
)
def test_the_first_row_of_a_known_kind_tells_the_kind_of_all(check, row, kind):
    status, sentences, report = check([b"nonsense\n", row], "--no-run")
    assert report["kind"] == kind
    assert (status, len(sentences)) == (2, 1)
    assert check([row], "--no-run", f"--kind={kind}")[0] == 0


def test_every_row_of_a_task_that_no_answer_can_solve_is_named(check):
    hopeless = DIALOGUE | {"task": TASK | {"ground_truth": "def f(x): raise KeyError(x)"}}
    status, sentences, report = check([hopeless, DIALOGUE, hopeless])
    assert (status, [sentence[:26] for sentence in sentences]) == (
        2,
        ["1: the reference gives no ", "3: the reference gives no "],
    )
    assert report["tasks"]["references"]["tasks"] == 1


def test_rows_are_counted_by_what_their_keys_are_those_of(check):
    report = check([TASK, DIALOGUE, b"{\n", {"x": 1}, b"3\n", TASK], "--no-run")[2]
    assert report["kinds"] == {"backend": 2, "not JSON": 1, "trajectories": 1, "unknown": 2}
    assert (report["rows"], len(report["defects"])) == (6, 4)


def test_a_kind_that_is_given_is_what_rows_are_measured_by(check):
    status, sentences, _ = check([PAGE, TASK], "--no-run", "--kind=backend")
    assert (status, len(sentences)) == (2, 1)
    assert sentences[0].startswith("1: 'test_cases' is missing or empty, expected an object of call expressions; ")


def test_dialogues_are_counted_by_turns_and_laid_out_by_task(check):
    one_turn = DIALOGUE | {"dialogue_history": DIALOGUE["dialogue_history"][:2], "answer": "No answer", "reward": None}
    other = one_turn | {"task": {"problem_description": "Halve."}, "reward": 0.25}
    status, _, report = check([DIALOGUE, other, DIALOGUE, b"{\n", one_turn])
    assert status == 2
    assert report["dialogues"] == {
        "layout": {"tasks": 2, "samples": 3, "kind": "irregular", "first_wrong": 6},
        "turns": {"1": 2, "2": 2},
        "agent_turns": 6,
        "without_prompt": 2,
        "unanswered": 2,
        "other_opening": [2],
    }
    assert report["rewards"] == {
        "counted": 3, "without": 1, "mean": 0.75, "least": 0.25, "most": 1.0, "ones": 2, "zeros": 0,
    }  # fmt: skip
    assert report["tasks"]["references"] is None
    assert report["characters"]["human reply"]["total"] == 6


def test_pairs_of_equal_sides_and_candidates_are_counted(check):
    assert check([{"chosen": "x", "rejected": "y"}, {"chosen": "z", "rejected": "z"}])[2]["equal_sides"] == [2]
    assert check([CANDIDATES, CANDIDATES])[2]["candidates"] == {"2": 2}


def test_flags_and_repeated_calls_are_told_by_line(check):
    rows = [TASK, TASK | {"test_cases": {"a": "f(1) == 2", "b": "f(1) == 2"}}, TASK | {"ground_truth": "import random"}]
    tasks = check(rows, "--no-run")[2]["tasks"]
    assert tasks["flags"] == {"comparison": [2], "random": [3]}
    assert tasks["repeated_calls"] == [2]


def test_rows_with_half_characters_are_named_and_are_no_defects(check, run, tmp_path):
    rows = [
        b"\n",
        TASK,
        TASK | {"test_cases": {"cut \ud83d": "f(1)"}},
        TASK | {"ground_truth": "def f(x):\n    return '\udc00'"},
        TASK | {"problem_description": "A whole \U0001f600 and a replaced \ufffd."},
        TASK | {"more": ["\ud83d"]},
    ]
    status, sentences, report = check(rows, "--no-run")
    assert (status, sentences, report["half_characters"]) == (0, [], [3, 4, 6])
    status, out, err = run("check", tmp_path / "rows.jsonl", "--no-run")
    assert status == 0 and "half characters, read as U+FFFD  3: lines 3, 4, 6\n" in out
    assert "half characters" not in run("check", write_task(tmp_path / "one.jsonl"), "--no-run")[1]


def write_task(path):
    path.write_text(json.dumps(TASK))
    return path


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (DIALOGUE | {"task": TASK, "reward": 10}, "'reward' is 10, expected 0 to 1 (the share of the tests passed)"),
        (DIALOGUE | {"task": TASK, "reward": -1.0}, "'reward' is -1, expected 0 to 1 (the share of the tests passed)"),
        (DIALOGUE | {"task": PAGE, "reward": 75}, "'reward' is 75, expected -1 to 1 (the similarity of two pages)"),
        (DIALOGUE | {"reward": -1.5}, "'reward' is -1.5, expected -1 to 1 (the similarity of two pages)"),
        (DIALOGUE | {"reward": True}, "'reward' is a boolean, expected a number"),
        (CANDIDATES | {"reward": 3}, "'reward' is 3, expected 0 to 1 (the share of the tests passed)"),
        (CANDIDATES | {"judge_result": [0, 0], "reward": -3}, "'reward' is -3, expected 0 to 1 (the share of the"),
    ],
)
def test_a_reward_of_another_scale_is_a_defect_of_its_line(check, row, sentence):
    fine = row | {"reward": 1}
    status, sentences, report = check([fine, b"\n", row, fine], "--no-run")
    assert (status, len(sentences)) == (2, 1) and sentences[0].startswith(f"3: {sentence}")
    assert report["rewards"]["counted"] == 2


def test_a_negative_similarity_is_no_defect(check):
    assert check([DIALOGUE | {"task": PAGE, "reward": -0.25}], "--no-run")[0] == 0


def test_lengths_are_counted_in_tokens_of_a_model(check):
    model = Path(data.__file__).parents[1] / "sweet_jax/start_policy"
    report = check([PAGE, PAGE | {"problem_description": "A \ud800 page."}], "--no-run", f"--model={model}")[2]
    lengths = report["tokens"]["description"]
    assert lengths["count"] == 2 and 1 <= lengths["least"] <= lengths["most"] <= 9


def test_a_model_without_a_tokenizer_is_one_sentence(run, tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps(PAGE))
    status, out, err = run("check", tmp_path / "x.jsonl", f"--model={tmp_path}")
    assert (status, out) == (2, "")
    assert "the tokenizer cannot be read" in err


def test_the_form_of_a_file(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"\xef\xbb\xbf{}\r\n{}\n\n{}\r{}")
    assert FileForm.of(path) == FileForm(16, 1, {"LF": 2, "CRLF": 1, "CR": 1}, True, False)
    path.write_bytes(b"{}\n")
    assert FileForm.of(path) == FileForm(3, 0, {"LF": 1}, False, True)


def test_lengths_and_rewards_are_summed_up():
    assert Lengths.of([3, 1, 2, 2]) == Lengths(4, 1, 2.0, 3, 8)
    assert Rewards.of([1.0, None, 0.0, 0.5]) == Rewards(3, 1, 0.5, 0.0, 1.0, 1, 1)
    assert Rewards.of([None]) is None


# --- real files ------------------------------------------------------------------------------------------------------


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
