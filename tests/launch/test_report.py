"""The end of a run: the table on the console and report.json. No model is loaded."""

import dataclasses
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from colbench_env.statistics import Estimate
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import NO_ANSWER, BadInput, Message, Trajectory
from launch.common import cli
from launch.common.files import write_json
from launch.reporting.metric_names import METRIC_NAMES, duration, points, share
from launch.reporting.result_tables import Results, result_rows
from launch.training.command_line import command_line, next_commands
from launch.training.config import TrainConfig
from launch.training.presets import DEFAULT_PRESET, PRESETS
from launch.training.report import write_report
from tests.launch.report_runs import (
    make_run,
    printed,
    read_json,
    trajectory,
    write_metrics,
)


@pytest.fixture
def run(tmp_path):
    """A finished run: the start policy solves tasks 1 to 5 of 20, the trained one 2 to 17."""
    return make_run(tmp_path / "runs" / "first")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_dialogues(run):
    write_report(run, 123.45)
    found = read_json(run)
    start, trained = found["policies"]["start"], found["policies"]["trained"]
    assert (start["success"]["mean"], trained["success"]["mean"]) == (0.25, 0.8)
    assert (start["reward"]["mean"], trained["reward"]["mean"]) == (0.625, 0.8)
    assert start["success"]["low"] < 0.25 < start["success"]["high"]
    assert found["difference"]["tasks"] == 20
    assert found["difference"]["success"]["mean"] == pytest.approx(0.55)
    assert found["difference"]["reward"]["mean"] == pytest.approx(0.175)
    assert found["intervals_overlap"] == {"reward": True, "success": False}
    assert (start["turns"], start["reply_tokens"], start["unasked"]) == (1.0, 20.0, 20)
    assert (trained["turns"], trained["reply_tokens"], trained["unasked"]) == (3.0, 10.0, 0)
    assert [p["verdicts"] for p in (start, trained)] == [{"pass": 125, "wrong": 75}, {"pass": 160, "wrong": 40}]
    assert trained["by_turns"] == [{"turns": 3, "dialogues": 20, "counted": 20, "successes": 16, "rewards": 16.0}]


@pytest.mark.slow
def test_the_report_says_how_the_run_was_made(run):
    write_report(run, 123.45)
    found = read_json(run)
    assert found["stages"]["critic"] == {"pairs": 120, "steps": 250, "seconds": 10.0}
    assert found["stages"]["evaluation"] == {"start": {"success": None}, "seconds": 6.5}  # NaN is no JSON
    assert list(found["stages"]) == ["start", "critic", "evaluation"]
    assert (found["stage_seconds"], found["last_start_seconds"]) == (100.0, 123.5)
    assert found["warnings"] == ["stage critic: an old one", "stage policy: a new <one>"]
    assert found["settings"]["critic"]["beta"] == 0.1
    # 16 x 8 embeddings, two norms and a last one of 8, q 64, k and v 32 each, o 64, three times 8 x 16
    assert found["parameters"] == 128 + 24 + 64 + 64 + 64 + 384
    assert found["peak_memory_gib"] > 0
    assert found["versions"].keys() >= {"python", "jax", "numpy"}
    assert (found["devices"], found["mesh"]) == ("1 of 1 cpu devices (cpu)", "1x1")
    assert found["max_turns"] == 10
    assert "at most 10 agent turns" in (run.directory.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["backend", "frontend"])
def test_results_of_a_plugins_reward_keep_its_names_and_the_benchmark(benchmark, run):
    write_report(run, 123.45)
    row = read_json(run)
    known = Results.from_json(row)
    names = dataclasses.replace(METRIC_NAMES["plugin"], benchmark=benchmark)
    again = Results.from_json(dataclasses.replace(known, metric_names=names).to_json())
    assert (again.metric_names, again.benchmark) == (names, benchmark)
    assert [line.name for line in result_rows(again)][:2] == ["reward x 100", "of reward 1"]
    del row["rewards"]  # as written before there were plugins
    assert Results.from_json(row) == known


@pytest.mark.slow
def test_pages_that_did_not_get_their_stylesheet_are_a_warning_of_the_report(run):
    path = run.directory.path / "evaluation" / "trained.jsonl"
    first, *rest = read_rows(path, Trajectory)
    path.unlink()
    page = {"refused": 1, "missing_sheets": ["https://fonts.test/css2?family=A"]}
    write_rows(path, [dataclasses.replace(first, extra=first.extra | {"page": page}), *rest])
    write_report(run, 123.45)
    told = "trained policy: 1 of 1 pages asked for a style sheet that they did not get: fonts.test/css2 (1)"
    assert read_json(run)["warnings"][-1] == told and f"warning: {told}\n" in printed(run)


@pytest.mark.slow
def test_dialogues_out_of_turns_have_a_verdict_of_their_own_and_keep_the_recorded_one_in_the_numbers(run):
    path = run.directory.path / "evaluation" / "start.jsonl"
    rows = read_rows(path, Trajectory)
    path.unlink()
    ended = (Message("user", "?"), Message("assistant", "Which fee?"))
    verdicts = {f"test{i}": "syntax-error" for i in range(1, 11)}
    for place in (0, 10, 11):
        rows[place] = dataclasses.replace(
            rows[place], dialogue_history=ended, answer="Which fee?", reward=0.0,
            extra={"verdicts": verdicts, "rules": {"max_turns": 1}},
        )  # fmt: skip
    write_rows(path, rows)
    write_report(run, 1.0)
    start = read_json(run)["policies"]["start"]
    assert start["verdicts"] == {"pass": 105, "wrong": 65, "syntax-error": 30}
    assert (start["out_of_turns"], start["out_of_turns_verdicts"]) == (3, {"syntax-error": 30})
    table = {line[:28].strip(): line[28:].split() for line in printed(run).splitlines()}
    assert table["dialogues out of turns"] == ["3", "of", "20", "0", "of", "20"]
    html = (run.directory.path / "report.html").read_text()
    assert "syntax-error" not in html and "<td>30 (15.0 %)</td>" in html
    assert "out of turns: no answer within 1" in html and '<td class="bad">out of turns</td>' in html


@pytest.mark.slow
def test_a_critic_with_accuracy_1_at_most_logged_steps_is_a_warning_of_the_report(run):
    rows = [
        {"stage": "critic", "step": s, "total": 13, "rewards/accuracies": 1.0 if s > 4 else 0.9} for s in range(1, 14)
    ]
    write_metrics(run.directory.path / "critic", rows)
    write_report(run, 1.0)
    (warning,) = [text for text in read_json(run)["warnings"] if "accuracy" in text]
    assert warning.startswith("stage critic: preference accuracy was 1.0 at 9 of 13 logged steps: ")
    assert f"warning: {warning}\n" in printed(run)


@pytest.mark.slow
def test_the_entropy_of_each_policy_stands_by_turn(run):
    path = run.directory.path / "evaluation" / "trained.jsonl"
    rows = read_rows(path, Trajectory)
    path.unlink()
    given = [(-3.0, 2), (-1.0, 2), (-2.0, 1)]
    for place, (logprob, tokens) in enumerate(given):
        turn = Message("assistant", "Which?", extra={"logprob": logprob, "tokens": tokens})
        history = [Message("user", "?"), turn] if place else [Message("user", "?"), turn, Message("user", "a"), turn]
        rows[place] = dataclasses.replace(rows[place], dialogue_history=tuple(history))
    write_rows(path, rows)
    write_report(run, 1.0)
    assert read_json(run)["entropy"] == {
        "start": [],
        "trained": [
            {"turn": 1, "turns": 3, "tokens": 5, "nats": 1.2},
            {"turn": 2, "turns": 1, "tokens": 2, "nats": 1.5},
        ],
    }
    html = (run.directory.path / "report.html").read_text()
    assert "Entropy of the policy by turn" in html and html.count("<svg") == 10


@pytest.mark.slow
def test_the_console_shows_the_table_the_files_and_what_to_try(run):
    write_report(run, 123.45)
    folder, lines = run.directory.path, printed(run).splitlines()
    table = {line[:28].strip(): line[28:].split() for line in lines}
    assert table["success"][:2] == ["25.0", "%"]
    assert table["success"][4:6] == ["80.0", "%"]
    assert table["success"][8:10] == ["+55.0", "points"]
    assert table["turns"] == ["1.00", "3.00", "+2.00"]
    assert table["answers without a question"] == ["20", "of", "20", "0", "of", "20"]
    assert any("intervals of the two policies do not overlap" in line for line in lines)
    rest = dict(line.split("  ", 1) for line in lines[-5:])
    assert [text.strip() for text in rest.values()] == [
        str(folder / "report.html"),
        str(folder / "report.json"),
        str(folder / "policy" / "model"),
        *next_commands(run.config),
    ]


@pytest.mark.slow
def test_a_second_start_only_tells_the_table_again(run, monkeypatch):
    write_report(run, 123.45)
    first, files = printed(run), [run.directory.path / name for name in ("report.json", "report.html")]
    times = [os.stat(file).st_mtime_ns for file in files]
    run.console._stream.truncate(0)
    run.console._stream.seek(0)
    (run.directory.path / "evaluation" / "start.jsonl").unlink()  # nothing is read again
    monkeypatch.setitem(sys.modules, "launch.training.report_page", None)  # nothing is drawn again: importing it fails
    write_report(run, None)
    assert printed(run) == first.removeprefix("warning: stage policy: a new <one>\n")
    assert times == [os.stat(file).st_mtime_ns for file in files]


@pytest.mark.slow
def test_a_report_older_than_a_stage_or_without_its_page_is_made_again_and_keeps_what_it_knew(run):
    write_report(run, 123.45)
    folder = run.directory.path
    write_json(folder / "report.json", read_json(run) | {"peak_memory_gib": 99.5})
    os.utime(folder / "report.json", (1, 1))
    write_report(run, None)
    assert (read_json(run)["last_start_seconds"], read_json(run)["peak_memory_gib"]) == (123.5, 99.5)
    (folder / "report.html").unlink()
    write_report(run, None)
    assert (folder / "report.html").exists()
    (folder / "report.json").write_text("{")
    write_report(run, None)
    assert read_json(run)["last_start_seconds"] is None


@pytest.mark.slow
def test_a_zero_shot_run_has_one_policy_and_no_difference(tmp_path):
    run = make_run(tmp_path / "run", algorithm="zero-shot")
    write_report(run, 1.0)
    found = read_json(run)
    assert (list(found["policies"]), found["difference"], found["intervals_overlap"]) == (["start"], None, None)
    assert "Success of the start policy on 20 held-out tasks: 25.0 %" in printed(run)
    assert "trained" not in printed(run)
    assert "trained policy" not in (run.directory.path / "report.html").read_text()
    write_report(run, None)


@pytest.mark.slow
def test_answers_that_could_not_be_graded_are_told_and_left_out(run):
    folder = run.directory.path / "evaluation"
    rows = [dataclasses.replace(trajectory(n, 0, 10, 5), reward=None if n <= 2 else 1.0) for n in range(1, 21)]
    write_rows(folder / "trained.jsonl", rows)
    write_report(run, 1.0)
    found = read_json(run)
    assert (found["policies"]["trained"]["excluded"], found["difference"]["tasks"]) == (2, 18)
    assert re.search(r"excluded: not graded +0 of 20 +2 of 20", printed(run))
    assert "could not be graded" in (run.directory.path / "report.html").read_text()


@pytest.mark.slow
def test_a_run_in_which_nothing_could_be_graded_still_has_a_report(run):
    for name in ("start", "trained"):
        rows = [dataclasses.replace(trajectory(n, 0, 0, 5), reward=None, answer=NO_ANSWER) for n in range(1, 3)]
        write_rows(run.directory.path / "evaluation" / f"{name}.jsonl", rows)
    write_report(run, 1.0)
    assert read_json(run)["difference"]["success"] == {"mean": None, "low": None, "high": None}
    assert "Success went from n/a to n/a" in printed(run)
    write_report(run, None)


def test_a_line_of_metrics_that_cannot_be_read_is_named(run):
    path = run.directory.path / "critic" / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss"\n')
    with pytest.raises(BadInput, match=re.escape(f"{path}:2: ")):
        write_report(run, 1.0)


def test_a_command_line_has_the_flags_that_differ_from_the_preset():
    assert command_line(PRESETS[DEFAULT_PRESET]()) == "python -m launch.train"
    assert command_line(PRESETS["embedded"]()) == "python -m launch.train --preset=embedded"
    tiny = PRESETS["tiny"]()
    rollouts = dataclasses.replace(tiny.rollouts, max_turns=4)
    critic = dataclasses.replace(tiny.critic, privileged=False)
    config = dataclasses.replace(
        tiny, run_dir=Path("my runs/a"), mesh="4x2", stage="policy", unsafe=True, rollouts=rollouts, critic=critic,
        simulator=dataclasses.replace(tiny.simulator, attempts=5),
    )  # fmt: skip
    assert command_line(config) == (
        "python -m launch.train --preset=tiny --mesh=4x2 '--run-dir=my runs/a' --attempts=5 --unsafe "
        "--rollouts.max-turns=4 --critic.no-privileged"
    )
    argv = shlex.split(command_line(config))[3:]
    assert cli.parse(TrainConfig, argv, PRESETS, "embedded") == dataclasses.replace(config, stage="all")


@pytest.mark.parametrize(("algorithm", "other"), [("sweet", "mtdpo"), ("mtdpo", "sweet"), ("zero-shot", "sweet")])
@pytest.mark.parametrize("folder", ["runs/a", "runs/a-mtdpo-seed41"])
def test_the_next_commands_have_directories_of_their_own(algorithm, other, folder):
    seed, second = next_commands(dataclasses.replace(TrainConfig(), algorithm=algorithm, seed=42, run_dir=Path(folder)))
    assert "--seed=43" in seed and f"--run-dir=runs/a-{algorithm}-seed43" in seed
    assert "--seed" not in second and f"--run-dir=runs/a-{other}-seed42" in second


def test_the_next_command_of_another_method_has_that_methods_own_defaults():
    config = dataclasses.replace(PRESETS["scenes"](), run_dir=Path("runs/a"), num_tasks=40)
    second = next_commands(config)[1]
    assert second == "python -m launch.train --run-dir=runs/a-mtdpo-seed42 --algorithm=mtdpo --num-tasks=40"
    made = cli.parse(TrainConfig, shlex.split(second)[3:], PRESETS, DEFAULT_PRESET)
    assert made == dataclasses.replace(
        PRESETS["scenes"]("mtdpo"), algorithm="mtdpo", run_dir=made.run_dir, num_tasks=40
    )


def test_numbers_are_written_for_people():
    assert share(Estimate(0.5, 0.25, 0.755)) == "50.0 % [25.0, 75.5]"
    assert points(Estimate(-0.5, -0.75, 0.25)) == "-50.0 points [-75.0, +25.0]"
    assert [duration(s) for s in (8.14, 59.7, 754.2, 7322)] == ["8.1 s", "1 min 00 s", "12 min 34 s", "2 h 02 min"]


@pytest.mark.slow
def test_the_report_is_written_whole_or_not_at_all(run, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(BadInput, match="report.html: cannot be written: No space left on device"):
        write_report(run, 1.0)
    assert not (run.directory.path / "report.json").exists()
