"""`launch.data check`: which kind of rows a file holds, and what is counted of them."""

import json
from pathlib import Path

import pytest

from launch import data
from launch.data_tools.report_data import FileForm, Lengths, Rewards
from tests.launch.data_rows import CANDIDATES, DIALOGUE, PAGE, TASK, data_command, row_checker


@pytest.fixture
def run(monkeypatch, capsys):
    with data_command(monkeypatch, capsys) as start:
        yield start


@pytest.fixture
def check(run, tmp_path):
    return row_checker(run, tmp_path / "rows.jsonl")


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


@pytest.mark.slow
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
