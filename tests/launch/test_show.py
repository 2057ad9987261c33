"""launch.show without a browser: what is joined, printed, refused."""

import base64
import gzip
import json
import re

import pytest

from colbench_env.types import Message, Task
from launch import show
from launch.viewer.highlight import coloured
from launch.viewer.turns import thought_and_said
from tests.launch.show_rows import (
    FAILURE,
    HOSTILE,
    RANKED,
    SOLVED,
    TURN_PAIR,
    UNGRADED,
    everything,
    write,
)  # fmt: skip


def unpacked(html, name):
    text = re.search(rf'<script type="application/json" id="{name}">([^<]*)</script>', html).group(1)
    return [json.loads(gzip.decompress(base64.b64decode(line))) for line in text.split("\n")]


@pytest.fixture
def made(in_process, tmp_path):
    """The page of everything, as HTML."""
    done = in_process(show.main, *everything(tmp_path), f"--output={tmp_path / 'show.html'}")
    assert done.status == 0, done.stderr
    assert "5 episodes" in done.stdout
    return (tmp_path / "show.html").read_text(encoding="utf-8")


def test_the_list_has_a_row_for_each_episode_and_each_failure(made):
    (index,) = unpacked(made, "index")
    statuses = [index["statuses"][row[2]] for row in index["rows"]]
    assert [row[:2] for row in index["rows"]] == [
        ["episodes", 1], ["episodes", 2], ["episodes", 3], ["episodes", 4], ["baseline", 1],
    ]  # fmt: skip
    assert statuses == ["solved", "failed", "not graded", "infrastructure-error", "partly"]
    assert [row[4] for row in index["rows"]][:3] == ["2 of 2 tests passed", "0 of 2 tests passed", "not graded"]


def test_a_turn_has_its_advantage_and_its_candidates_best_first_with_their_picks(made):
    turn = unpacked(made, "blocks")[0]["turns"][0]
    assert (turn["thought"], turn["said"], turn["advantage"]) == ("They hide it.", "Which fee?", 0.25)
    assert (turn["ids"], turn["log_ratios"]) == ([11, 5], [0.4, 0.1])
    found = [(c["text"], c["advantage"], c["chosen"], c["rejected"], c["log_ratios"]) for c in turn["candidates"]]
    assert found == [("best", 0.3, 2, 0, [0.6, 0.0]), ("middle", 0.0, 0, 0, [0.0, 0.0]),
                     ("worst", -0.4, 0, 2, [-0.9, 0.1])]  # fmt: skip


def test_an_episode_has_facts_tests_and_the_same_task_of_the_baseline(made):
    solved, failed, ungraded, broken, _ = unpacked(made, "blocks")
    assert dict(map(tuple, solved["facts"])) == {
        "sample": "0", "seed": "42", "simulator": "scripted", "turns": "2", "cut turns": "1",
        "leaks": "0 of 1 replies", "asked again": "2",
    }  # fmt: skip
    assert solved["baseline"] == ["baseline", 1]
    assert failed["tests"][1] == {
        "name": "test2", "call": "f(2)", "verdict": "error", "expected": None, "got": None, "detail": HOSTILE,
    }  # fmt: skip
    assert ungraded["tests"][0]["verdict"] is None
    assert solved["replies"] == [{"text": "Two.", "leaks": [], "reasked": 2}]
    assert broken["error"] == "The human failed: 503 from the endpoint"
    assert broken["replies"] == [{"text": "Then def f(x): it is.", "leaks": ["definition"], "reasked": 1}]


def test_the_token_rows_of_turn_pairs_stand_with_their_log_ratios_behind_the_dialogue(made):
    dialogue, first, second = unpacked(made, "blocks")[0]["rows"]
    assert [one["title"] for one in (dialogue, first, second)] == ["dialogue", "turn 1, pair 1", "turn 1, pair 2"]
    assert dialogue["rows"][0]["log_ratios"] == [0.4, 0.1, None, None]  # turn 2 was not ranked
    assert [(row["title"], row["ids"], row["log_ratios"]) for row in first["rows"]] == [
        ("chosen", [0, 10, 31, 5], [0.6, 0.0]), ("rejected", [0, 10, 30, 5], [-0.9, 0.1]),
    ]  # fmt: skip
    assert first["rows"][0]["counts"] == (
        "4 tokens, 2 counted, prefix 1; counted per turn 1: 2; turns cut off: not known without a tokenizer"
    )


def test_failures_are_shown_where_no_episode_has_ended(in_process, tmp_path):
    write(tmp_path / "rows.failures.jsonl", FAILURE)
    for empty in (False, True):
        if empty:
            (tmp_path / "rows.jsonl").touch()
        done = in_process(show.main, f"--trajectories={tmp_path / 'rows.jsonl'}", "--terminal")
        assert done.status == 0, done.stderr
        assert "Infrastructure error. The human failed: 503 from the endpoint" in done.stdout
        assert "human · leaks: definition · asked again 1 x" in done.stdout


def test_the_page_holds_no_byte_of_the_data_as_markup(made):
    assert "onerror" not in made and "window.hit" not in made
    assert made.count("<script") == 4
    assert "default-src 'none'" in made and "unsafe" not in made and "innerHTML" not in made


def test_a_ranking_without_our_extras_is_shown_without_them(in_process, tmp_path):
    bare = {key: value for key, value in RANKED.items() if key not in ("token_log_ratios", "older")}
    flags = [
        f"--trajectories={write(tmp_path / 'rows.jsonl', SOLVED)}",
        f"--ranked={write(tmp_path / 'ranked.jsonl', bare)}",
        f"--turn-pairs={write(tmp_path / 'pairs.jsonl', {k: v for k, v in TURN_PAIR.items() if k != 'picked'})}",
    ]
    assert in_process(show.main, *flags, f"--output={tmp_path / 'a.html'}").status == 0
    turn = unpacked((tmp_path / "a.html").read_text(), "blocks")[0]["turns"][0]
    assert (turn["advantage"], turn["log_ratios"], turn["candidates"][0]["chosen"]) == (None, None, None)
    text = in_process(show.main, *flags, "--terminal").stdout
    assert "turn 1, advantage not recorded" in text and "picks not recorded" in text


def test_a_run_directory_brings_its_own_files_and_tokenizer(in_process, tiny_model, tmp_path):
    run, pair = tmp_path / "run", {"ids": [0, 90, 10, 11, 5, 12, 20, 5], "spans": [[1, 3, 5], [2, 6, 8]], "prefix": 2}
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"model": str(tiny_model)}))
    write(run / "grading" / "trajectories.jsonl", SOLVED)
    write(run / "ranking" / "ranked.jsonl", RANKED)
    write(run / "turn-pairs" / "pairs.jsonl", TURN_PAIR)
    task = Task.from_json(SOLVED["task"], "").task_id
    sides = {"chosen": "a", "rejected": "b", "chosen_tokens": pair, "rejected_tokens": {**pair, "ids": [0] * 8}}
    write(run / "pairs" / "trajectory_pairs.jsonl", {**sides, "task": task})
    for name in ("start", "trained", "trained_ungraded"):
        write(run / "evaluation" / f"{name}.jsonl", SOLVED)
    done = in_process(show.main, f"--run-dir={run}", f"--output={tmp_path / 'a.html'}")
    assert done.status == 0, done.stderr
    html = (tmp_path / "a.html").read_text()
    (index,), blocks = unpacked(html, "index"), unpacked(html, "blocks")
    assert list(index["groups"]) == ["training", "start", "trained"] and index["texts"]
    assert index["pieces"]["0"] == "<|bos|>" and index["pieces"]["5"] == "<|end|>"
    rows = {one["title"]: one["rows"] for one in blocks[0]["rows"]}
    assert list(rows) == ["dialogue", "trajectory pair 1", "turn 1, pair 1"]
    assert [(row["title"], row["ids"][1]) for row in rows["trajectory pair 1"]] == [
        ("chosen (this episode)", 90), ("rejected", 0),
    ]  # fmt: skip
    assert rows["dialogue"][0]["counts"] == (
        "7 tokens, 4 counted, prefix 1; counted per turn 1: 2, 2: 2; turns cut off: none"
    )
    assert blocks[2]["baseline"] == ["start", 1]
    assert in_process(show.main, f"--trajectories={run}", f"--output={tmp_path / 'b.html'}").status == 0
    assert (tmp_path / "b.html").read_text() == html
    both = in_process(show.main, f"--trajectories={run}", f"--run-dir={run}", f"--output={tmp_path / 'b.html'}")
    assert both.refuses() == f"error: {run}: is a directory, expected a file of trajectories beside --run-dir"


def test_the_terminal_view_tells_the_same_and_has_no_colours_in_a_pipe(in_process, tmp_path):
    done = in_process(show.main, *everything(tmp_path), "--terminal")
    assert done.status == 0, done.stderr
    assert "\x1b" not in done.stdout
    for words in (
        "solved: 2 of 2 tests passed", "cut turns 1", "thought, not shown to the human", "They hide it.",
        "agent, turn 1, advantage +0.250", "+0.300  chosen x2    best", "-0.400  rejected x2  worst", "Two.",
        "test1  f(1)  pass     3         3", "the policy never sees this", "fee: two", "baseline, line 1",
        "7 tokens, 4 counted, prefix 1",
    ):  # fmt: skip
        assert words in done.stdout
    broken = in_process(show.main, f"--trajectories={tmp_path / 'rows.jsonl'}", "--terminal", "--row=4").stdout
    assert "Infrastructure error. The human failed: 503 from the endpoint" in broken


def test_grade_runs_the_tests_of_rows_that_have_no_grade(in_process, tmp_path):
    path = write(tmp_path / "rows.jsonl", UNGRADED)
    done = in_process(show.main, f"--trajectories={path}", "--terminal", "--grade")
    assert done.status == 0, done.stderr
    assert "2 of 2 tests passed" in done.stdout and "test2  f(2)  pass     4         4" in done.stdout


@pytest.mark.parametrize(
    ("name", "row", "sentence"),
    [
        ("rows", {"answer": "x"}, "rows.jsonl:1: 'task' is missing"),
        ("rows", {**SOLVED, "tokens": {"ids": [1]}}, "rows.jsonl:1: token ids cannot be read"),
        ("ranked", {**RANKED, "trajectory": 7}, "ranked.jsonl:1: turn 1 of trajectory 7 is not in"),
        ("ranked", {**RANKED, "trajectory": 1}, "ranked.jsonl:1: the dialogue is not that of"),
        ("ranked", {**RANKED, "token_log_ratios": [[1], [1, 2], [1, 2]]}, "not a list of 2 numbers"),
        ("ranked", {**RANKED, "older": 3}, "ranked.jsonl:1: 'output_ids', 'token_log_ratios' or 'older'"),
        ("turn_pairs", {**TURN_PAIR, "picked": 3}, "turn_pairs.jsonl:1: 'picked'"),
        ("turn_pairs", {**TURN_PAIR, "picked": [1, 9]}, "turn_pairs.jsonl:1: 'picked' names candidates"),
        ("rows.failures", {"by": "human"}, "rows.failures.jsonl:1: no record of a failed episode"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_sentence_and_nothing_is_written(in_process, tmp_path, name, row, sentence):
    flags = everything(tmp_path)
    write(tmp_path / f"{name}.jsonl", row)
    assert sentence in in_process(show.main, *flags, f"--output={tmp_path / 'a.html'}").refuses()
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--trajectories=a"],
        ["--run-dir=a", "--output=b", "--terminal"],
        ["--run-dir=a", "--ranked=r", "--terminal"],
    ],
)
def test_flags_that_do_not_fit_together_end_with_status_2(in_process, flags):
    assert in_process(show.main, *flags).status == 2


@pytest.mark.slow
def test_missing_files_and_rows_are_named(in_process, tmp_path):
    path = write(tmp_path / "rows.jsonl", SOLVED)
    assert "rows.jsonl:5: there is no row" in in_process(show.main, f"--tokens={path}", "--row=5").refuses()
    flags = (f"--trajectories={path}", "--terminal", "--row=2")
    assert "rows.jsonl:2: there is no episode" in in_process(show.main, *flags).refuses()
    assert "no dialogues in it" in in_process(show.main, f"--run-dir={tmp_path}", "--terminal").refuses()


def test_code_is_cut_into_kinds_and_loses_nothing():
    assert coloured("x = 'a'  # b") == (
        ("", "x "), ("o", "="), ("", " "), ("s", "'a'"), ("", "  "), ("c", "# b"),
    )  # fmt: skip
    html = "<html><p>a</p>\n"
    assert "".join(text for _, text in coloured(html)) == html
    assert ("f", "html") in coloured(html)


@pytest.mark.parametrize(
    ("output", "content", "thought"),
    [
        ("Hm. OUTPUT: Which?", "Which?", "Hm."),
        (None, "Which?", ""),
        ("I WANT TO ANSWER: print('OUTPUT: 1')", "I WANT TO ANSWER: print('OUTPUT: 1')", ""),
    ],
)
def test_the_thought_is_what_stands_before_the_marker(output, content, thought):
    assert thought_and_said(Message("assistant", content, output=output)) == (thought, content)
