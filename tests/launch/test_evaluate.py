"""`launch.evaluate`: what it grades, writes and says."""

import functools
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import Message, Pair, Task, Trajectory
from launch import evaluate as command
from tests.launch.evaluate_rows import HUMAN, dialogue, read_json, right, task, three_tasks

ROOT = Path(__file__).parents[2]
START_POLICY = ROOT / "sweet_jax" / "start_policy"
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def evaluate(in_process):
    return functools.partial(in_process, command.main)


@pytest.fixture
def file(tmp_path):
    return three_tasks(tmp_path / "rows.jsonl")


# --- what it grades and reports ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_figures_without_the_tasks_that_an_audit_suspects_stand_beside_those_of_all(evaluate, file, tmp_path):
    tasks, suspected = tmp_path / "tasks.jsonl", tmp_path / "suspected.txt"
    write_rows(tasks, [task(7), task(3)])
    suspected.write_text(f"# of an audit\n{task(1).task_id}, 1  # the second row\n")
    flags = (f"--trajectories={file}", f"--tasks={tasks}", f"--suspected={suspected}", f"--json={tmp_path / 'json'}")
    ended = evaluate(*flags)
    assert (ended.status, ended.errors) == (0, [])
    parts = read_json(tmp_path / "json")["parts"]
    assert [(p["name"], p["dialogues"], p["tasks"], p["reward"]["mean"]) for p in parts] == [
        ("all", 6, 3, pytest.approx(3.5 / 6)), ("tasks that no audit suspects", 2, 1, pytest.approx(1.75 / 2))
    ]  # fmt: skip
    assert re.search(r"^tasks that no audit suspects +87\.5 %", ended.stdout, re.M)
    for text, sentence in (
        ("one\n", f"{suspected}:1: 'one', expected the id of a task (12 digits of 0-9a-f) or a number"),
        ("0\n2\n", f"{suspected}:2: 2 is no row of {tasks}, which has rows 0 to 1"),
        ("# none\n", f"{suspected}: names no task"),
    ):
        suspected.write_text(text)
        assert sentence in evaluate(*flags).refuses()
    suspected.write_text("0\n")
    assert "--tasks=FILE is needed, whose row it is" in evaluate(flags[0], flags[2]).refuses()


@pytest.mark.slow
def test_replies_that_leak_are_counted_in_the_table(evaluate, tmp_path):
    row = dialogue(task(1), right(1), 2)
    told = Message("user", "def f(x): return x + 1")
    write_rows(
        tmp_path / "rows", [replace(row, dialogue_history=(*row.dialogue_history[:2], told, *row.dialogue_history[3:]))]
    )
    ended = evaluate(f"--trajectories={tmp_path / 'rows'}", f"--json={tmp_path / 'json'}")
    summary = read_json(tmp_path / "json")["policies"]["evaluated"]
    assert (summary["replies"], summary["leaks"]) == (2, 1)
    assert re.search(r"^replies that leak +1 of 2$", ended.stdout, re.M)


@pytest.mark.slow
def test_a_file_is_graded_and_everything_is_told_three_ways(evaluate, file, tmp_path):
    flags = [f"--{name}={tmp_path / name}" for name in ("output", "json", "html", "pairs")]
    ended = evaluate(f"--trajectories={file}", "--samples=2", *flags)
    assert (ended.status, ended.errors) == (0, [])

    graded = read_rows(tmp_path / "output", Trajectory)
    assert [row.reward for row in graded] == [1.0, 0.75, 0.25, 0.5, 1.0, 0.0]
    assert graded[3].extra["verdicts"] == {"test1": "pass", "test2": "pass", "test3": "wrong", "test4": "wrong"}
    assert graded[5].extra["verdicts"] == dict.fromkeys(("test1", "test2", "test3", "test4"), "no-answer")
    assert {row.extra["grader"] for row in graded} == {"strict"}
    plain = [replace(row, reward=None, extra={"human": HUMAN}) for row in graded]
    assert plain == read_rows(file, Trajectory)

    found = read_json(tmp_path / "json")
    summary = found["policies"]["evaluated"]
    assert (summary["success"]["mean"], summary["reward"]["mean"]) == (
        pytest.approx(1 / 3),
        pytest.approx(3.5 / 6),
    )
    assert summary["verdicts"] == {"pass": 14, "wrong": 6, "no-answer": 4}
    assert (summary["unasked"], summary["unanswered"], summary["dialogues"]) == (1, 1, 6)
    assert [(b["k"], b["reward"]["mean"], b["success"]["mean"]) for b in found["best_of"]] == [
        (1, pytest.approx(3.5 / 6), pytest.approx(1 / 3)),
        (2, pytest.approx(2.25 / 3), pytest.approx(2 / 3)),
    ]
    assert found["chance"] == {"tasks": 3, "reward": 0.25, "success": 0.0}
    assert found["lengths"] == {
        "unit": "tokens",
        "total": 6 * 30 + 6 * 3,
        "bins": [
            {"low": 2, "high": 4, "count": 6},
            {"low": 5, "high": 9, "count": 0},
            {"low": 10, "high": 19, "count": 0},
            {"low": 20, "high": 49, "count": 6},
        ],
    }
    assert found["layout"] == {"tasks": 3, "samples": 2, "kind": "sample-major", "first_wrong": None}
    assert (found["graded"], found["kept"], found["defects"], found["flags"]) == (6, {}, [], {})
    assert found["simulator"]["simulators"] == {'scripted {"hash": "abc"}': 6}
    assert {"policy": "8B SWEET-RL", "tests_passed": 56.8, "success": 40.4} in found["paper"]["rows"]
    assert found["paper"]["differences"][0].startswith("Tasks: 3 here, 1000 test tasks in the paper")

    assert "Success 33.3 % [0.0, 50.0], 58.3 %" in ended.stdout
    for line in (r"pass +14 \(58.3 %\)", r"chance level +25.0 +0.0", r"8B zero-shot +34.2 +22.4", r"sandbox +\w+"):
        assert re.search(rf"^{line}", ended.stdout, re.MULTILINE), line
    assert "Success 33.3 %" in (tmp_path / "html").read_text()
    pairs = read_rows(tmp_path / "pairs", Pair)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [
        (
            f"In light that the final answer is: {task(n).ground_truth}.<prompt>ANSWER {right(n)}",
            f"In light that the final answer is: {task(n).ground_truth}.<prompt>ANSWER {right(n, passed)}",
        )
        for n, passed in ((1, 2), (2, 3))
    ]


@pytest.mark.slow
def test_the_page_loads_nothing_and_shows_text_as_text(evaluate, tmp_path):
    evil = "<script>alert(1)</script>"
    write_rows(tmp_path / "rows.jsonl", [dialogue(task(1), "x", human={"name": evil})])
    with (tmp_path / "rows.jsonl").open("a") as rows:
        rows.write(f'{{"{evil}": 1}}\n')
    ended = evaluate(f"--trajectories={tmp_path / 'rows.jsonl'}", f"--html={tmp_path / 'page.html'}")
    assert ended.status == 2
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html and html.count("&lt;script&gt;") == 3  # simulator, twice, and key
    assert "://" not in html and "@import" not in html and 'src="' not in html
    assert "prefers-color-scheme: dark" in html and html.count("<svg") == 3


@pytest.mark.slow
def test_a_reward_is_kept_unless_it_is_to_be_graded_again(evaluate, tmp_path):
    kept = replace(dialogue(task(1), right(1)), reward=0.0, extra={"grader": "official"})
    bare = replace(dialogue(Task("Add 2."), right(2)), reward=1.0)
    write_rows(tmp_path / "rows.jsonl", [kept, bare])
    flags = [f"--trajectories={tmp_path / 'rows.jsonl'}", f"--json={tmp_path / 'json'}"]
    assert evaluate(*flags).status == 0
    found = read_json(tmp_path / "json")
    assert found["policies"]["evaluated"]["success"]["mean"] == 0.5
    assert (found["graded"], found["kept"]) == (0, {"official": 1, "not recorded": 1})

    ended = evaluate(*flags, "--regrade")
    assert ended.status == 0
    found = read_json(tmp_path / "json")
    assert (found["policies"]["evaluated"]["success"]["mean"], found["graded"]) == (1.0, 1)
    assert found["excluded"] == {"no reference or no tests": 1}
    assert "1 of 2 dialogues have no reward" in ended.stderr and "left out, not scored 0 (line 2)" in ended.stderr


def test_a_tasks_file_supplies_what_the_dialogues_lack(evaluate, tmp_path):
    rows, tasks, output = (tmp_path / name for name in ("rows.jsonl", "tasks.jsonl", "output.jsonl"))
    write_rows(rows, [dialogue(Task("Add 1.", extra={"n": 7}), right(1)), dialogue(Task("Add 9."), right(9))])
    write_rows(tasks, [task(1), task(2)])
    ended = evaluate(f"--trajectories={rows}", f"--tasks={tasks}", f"--output={output}")
    assert ended.status == 0
    graded = read_rows(output, Trajectory)
    assert [row.reward for row in graded] == [1.0, None]
    assert graded[0].task == replace(task(1), extra={"n": 7})
    assert "(line 2)" in ended.stderr and "--tasks=FILE" not in ended.stderr


def test_nothing_that_can_be_graded_is_bad_input_and_says_what_would_help(evaluate, tmp_path):
    write_rows(tmp_path / "rows.jsonl", [dialogue(Task("Add 1."), right(1))] * 3)
    ended = evaluate(f"--trajectories={tmp_path / 'rows.jsonl'}")
    assert "no dialogue has a reward, and none could be graded" in ended.refuses()
    assert "(lines 1-3); --tasks=FILE supplies them" in ended.stderr


def test_two_different_tasks_of_one_description_supply_nothing(evaluate, tmp_path):
    rows, tasks = tmp_path / "rows.jsonl", tmp_path / "tasks.jsonl"
    write_rows(rows, [dialogue(Task("Add 1."), right(1)), dialogue(Task("Add 2."), right(2))])
    write_rows(tasks, [task(1), task(2), replace(task(1), ground_truth="def f(x): return 1"), task(2)])
    ended = evaluate(f"--trajectories={rows}", f"--tasks={tasks}", f"--json={tmp_path / 'json'}")
    ended.refuses()
    assert f"{tasks}:3: the task has the problem_description of line 1 and is another one" in ended.stderr
    assert read_json(tmp_path / "json")["graded"] == 1


@pytest.mark.slow
def test_json_alone_goes_to_standard_output_and_the_text_does_not(evaluate, file):
    for flag in ("--json", "--json=-"):
        ended = evaluate(f"--trajectories={file}", flag, "--no-references")
        found = json.loads(ended.stdout)
        assert (found["format"], found["rows"], found["chance"]) == (2, 6, None)
        assert "Success 33.3 %" in ended.stderr


@pytest.mark.slow
def test_a_share_of_successes_below_the_wanted_one_ends_with_status_1(evaluate, file):
    for share, status in (("0.3", 0), ("0.34", 1)):
        ended = evaluate(f"--trajectories={file}", "--no-references", f"--fail-under={share}")
        assert ended.status == status
    assert ended.errors == ["error: success is 33.3 %, below --fail-under=0.34"]


@pytest.mark.slow
def test_a_baseline_is_compared_on_the_tasks_that_both_have(evaluate, tmp_path):
    base, rows = tmp_path / "base.jsonl", tmp_path / "rows.jsonl"
    write_rows(base, [dialogue(task(n), right(n) if n == 1 else "") for n in range(1, 8)])
    write_rows(rows, [dialogue(task(n), right(n) if n > 1 else "") for n in range(1, 7)] + [dialogue(task(8), "")])
    json_file = tmp_path / "json"
    ended = evaluate(f"--trajectories={rows}", f"--baseline={base}", f"--json={json_file}", "--no-references")
    assert ended.status == 0
    change = read_json(json_file)["difference"]
    assert (change["tasks"], change["only_before"], change["only_after"]) == (6, 1, 1)
    assert (change["gained"], change["lost"], change["success"]["mean"]) == (5, 1, pytest.approx(4 / 6))
    assert change["p_success"] == pytest.approx(2 * (1 + 6) / 2**6)  # McNemar's exact test, 5 against 1
    assert re.search(r"tasks in the baseline only +1\n", ended.stdout)
    assert "+66.7 points [+0.0, +100.0] against the baseline, p = 0.22" in ended.stdout


@pytest.mark.slow
def test_flagged_tasks_and_failed_replies_are_left_out_in_figures_of_their_own(evaluate, tmp_path):
    coin = task(2, "import random\ndef f(x):\n    return random.random()")
    spoilt = dialogue(task(3), "")
    history = (*spoilt.dialogue_history[:2], Message("user", "No response."), *spoilt.dialogue_history[3:])
    spoilt = replace(spoilt, dialogue_history=history)
    write_rows(tmp_path / "rows.jsonl", [dialogue(task(1), right(1)), dialogue(coin, "x"), spoilt])
    ended = evaluate(f"--trajectories={tmp_path / 'rows.jsonl'}", f"--json={tmp_path / 'json'}")
    found = read_json(tmp_path / "json")
    assert [(part["name"], part["tasks"], part["success"]["mean"]) for part in found["parts"]] == [
        ("all", 3, pytest.approx(1 / 3)),
        ("without flagged tasks", 2, 0.5),
        ("without failed replies", 2, 0.5),
    ]
    assert (found["flags"], found["flagged"], found["simulator"]["failed"]) == ({"random": 1}, 1, 1)
    assert ended.status == 0


@pytest.mark.slow
def test_the_two_modes_of_the_grader_are_named(evaluate, tmp_path):
    answer = "import math\ndef f(x):\n    return math.floor(x) + 1"  # an import at the top: 0 as released
    write_rows(tmp_path / "rows.jsonl", [dialogue(task(1), answer)])
    for mode, success in (("strict", 1.0), ("official", 0.0)):
        evaluate(f"--trajectories={tmp_path / 'rows.jsonl'}", f"--json={tmp_path / 'json'}", f"--grader={mode}")
        found = read_json(tmp_path / "json")
        assert (found["grader"], found["policies"]["evaluated"]["success"]["mean"]) == (mode, success)
        assert any(mode in difference for difference in found["paper"]["differences"])


# --- tokens and pairs -------------------------------------------------------------------------------------------------


def without_records(row):
    """The row as another tool has it: texts alone."""
    history = tuple(Message(message.role, message.content) for message in row.dialogue_history)
    return replace(row, dialogue_history=history)


@pytest.mark.slow
def test_turns_without_counts_are_measured_in_characters_or_by_a_tokenizer(evaluate, file, tmp_path):
    rows = [without_records(row) for row in read_rows(file, Trajectory)]
    write_rows(tmp_path / "bare.jsonl", rows)
    flags = [f"--trajectories={tmp_path / 'bare.jsonl'}", f"--json={tmp_path / 'json'}", "--no-references"]
    evaluate(*flags)
    assert read_json(tmp_path / "json")["lengths"]["unit"] == "characters"
    evaluate(*flags, f"--model={START_POLICY}")
    lengths = read_json(tmp_path / "json")["lengths"]
    assert lengths["unit"] == "tokens" and 12 < lengths["total"] < 6 * 22 + 6 * 6  # fewer than there are characters


@pytest.mark.slow
def test_pairs_of_rows_without_prompts_need_a_tokenizer(evaluate, file, tmp_path):
    rows = [without_records(row) for row in read_rows(file, Trajectory)]
    write_rows(tmp_path / "bare.jsonl", rows)
    flags = [f"--trajectories={tmp_path / 'bare.jsonl'}", f"--pairs={tmp_path / 'pairs'}", "--no-privileged"]
    ended = evaluate(*flags)
    ended.refuses()
    assert f"{tmp_path / 'bare.jsonl'}:1: the last turn has no 'input'; --model=DIR" in ended.stderr
    assert not (tmp_path / "pairs").exists()
    assert evaluate(*flags, f"--model={START_POLICY}").status == 0
    pair = read_rows(tmp_path / "pairs", Pair)[0]
    assert pair.chosen == "<|bos|><|user|>Add 1.<|end|><|assistant|>Ask 0?<|end|><|user|>Add it.<|end|>" + (
        "<|assistant|>I WANT TO ANSWER: code"
    )
    assert {"chosen_tokens", "rejected_tokens"} <= pair.extra.keys()


def test_no_pairs_are_no_file(evaluate, tmp_path):
    write_rows(tmp_path / "rows.jsonl", [dialogue(task(1), right(1)), dialogue(task(2), "")])
    ended = evaluate(f"--trajectories={tmp_path / 'rows.jsonl'}", f"--pairs={tmp_path / 'pairs'}", "--no-references")
    ended.refuses()
    assert "no task has both a sample that passes all tests and a worse one" in ended.stderr
    assert not (tmp_path / "pairs").exists()


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_dialogues_keep_their_rewards_and_say_what_is_unknown(evaluate, tmp_path):
    rows = SHARED / "trajectories" / "qwen3_4b_40.jsonl"
    if not rows.exists():
        pytest.skip(f"{rows}: the real dialogues are not here")
    ended = evaluate(f"--trajectories={rows}", f"--json={tmp_path / 'json'}")
    assert ended.status == 0
    found = read_json(tmp_path / "json")
    rewards = [row.reward for row in read_rows(rows, Trajectory)]
    assert found["policies"]["evaluated"]["success"]["mean"] == pytest.approx(rewards.count(1.0) / 40)
    assert (found["graded"], found["kept"], found["chance"]) == (0, {"not recorded": 40}, None)
    assert found["layout"] == {"tasks": 20, "samples": 2, "kind": "task-major", "first_wrong": None}
    ended = evaluate(f"--trajectories={rows}", "--samples=2")
    ended.refuses()
    assert f"{rows}:21: row 21 is of the task" in ended.stderr and "the file is task-major" in ended.stderr
