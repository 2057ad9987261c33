"""The end of a run: the table on the console, report.json and report.html. No model is loaded."""

import dataclasses
import io
import json
import os
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from colbench_env.statistics import Estimate
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import NO_ANSWER, BadInput, Message, Task, Trajectory
from launch.common import cli
from launch.common.benchmarks import Backend
from launch.common.console import Console
from launch.common.files import write_json
from launch.common.run_dir import RunDir
from launch.reporting.metric_names import METRIC_NAMES, duration, points, share
from launch.training import report_page as page
from launch.training.command_line import command_line, next_commands
from launch.training.config import TrainConfig
from launch.training.presets import PRESETS
from launch.training.report import write_report
from launch.training.run import Run
from models.config import LlamaConfig
from sweet_jax.mesh import DeviceReport, MeshShape

NETWORK = LlamaConfig(
    vocab_size=16, hidden_size=8, intermediate_size=16, num_layers=1, num_heads=2, num_kv_heads=1, head_size=4,
    max_position_embeddings=64, tie_word_embeddings=True,
)  # fmt: skip
EVIL = '<script>alert(1)</script> & "quoted"'
NUM_TASKS = 20


def trajectory(number, questions, passed, tokens, reward=None):
    tests = {f"test{i}": f"f({i}) <b>" for i in range(1, 11)}
    task = Task(f"Task {number}: {EVIL}", "def f(x):\n    return x < 3", tests)
    history = [Message("user", task.problem_description)]
    for question in range(questions):
        history += [Message("assistant", f"Which {question}?", extra={"tokens": tokens}), Message("user", EVIL)]
    history.append(Message("assistant", "I WANT TO ANSWER:\ndef f(x): ...", extra={"tokens": tokens}))
    verdicts = {f"test{i}": "pass" if i <= passed else "wrong" for i in range(1, 11)}
    reward = passed / 10 if reward is None else reward
    return Trajectory(task, tuple(history), "def f(x): ...", reward, {"verdicts": verdicts})


def metrics_rows(names, steps=250):
    return [{"stage": "s", "step": s, "total": steps} | {name: 1 / s for name in names} for s in range(1, steps + 1)]


def write_metrics(folder, rows):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def run(tmp_path):
    """A finished run: the start policy solves tasks 1 to 5 of 20, the trained one 2 to 17."""
    return make_run(tmp_path / "runs" / "first")


def make_run(folder, **changes):
    folder.mkdir(parents=True)
    config = TrainConfig(run_dir=folder, model="scratch", **changes)
    directory = RunDir(folder)
    write_json(folder / "start" / "model" / "config.json", NETWORK.to_hf())
    write_metrics(folder / "start", metrics_rows(["loss", "nll", "grad_norm"]))
    for stage in ("critic", "policy"):
        write_metrics(folder / stage, metrics_rows(["loss", "rewards/accuracies", "rewards/margins", "nll"]))
    (folder / "evaluation").mkdir()
    numbers = range(1, NUM_TASKS + 1)
    start = [trajectory(n, questions=0, passed=10 if n <= 5 else 5, tokens=20) for n in numbers]
    trained = [trajectory(n, questions=2, passed=10 if 2 <= n <= 17 else 0, tokens=10) for n in numbers]
    write_rows(folder / "evaluation" / "start.jsonl", start)
    if config.algorithm != "zero-shot":
        write_rows(folder / "evaluation" / "trained.jsonl", trained)
    directory.finish("start", {"dialogues": 400, "complete": 0.4275, "seconds": 83.5})
    directory.finish("critic", {"pairs": 120, "steps": 250, "seconds": 10.0})
    directory.finish("evaluation", {"start": {"success": float("nan")}, "seconds": 6.5})
    (folder / "log.txt").write_text("hello\nwarning: stage critic: an old one\nwarning: stage critic: an old one\n")
    console = Console(io.StringIO())
    console.warn("stage policy: a new <one>")
    return Run(config, directory, console, DeviceReport("cpu", "cpu", 1, 1, False), MeshShape(), Backend())


def said(run):
    return run.console._stream.getvalue()


def read_json(run):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads((run.directory.path / "report.json").read_text(), parse_constant=refuse)


class Elements(HTMLParser):
    """Every tag of a page with its attributes, and whether all are closed."""

    VOID = {"meta", "path", "use", "rect", "br"}

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def html(run):
    write_report(run, 123.45)
    return (run.directory.path / "report.html").read_text(encoding="utf-8")


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


def test_pages_that_did_not_get_their_stylesheet_are_a_warning_of_the_report(run):
    path = run.directory.path / "evaluation" / "trained.jsonl"
    first, *rest = read_rows(path, Trajectory)
    path.unlink()
    page = {"refused": 1, "missing_sheets": ["https://fonts.test/css2?family=A"]}
    write_rows(path, [dataclasses.replace(first, extra=first.extra | {"page": page}), *rest])
    write_report(run, 123.45)
    told = "trained policy: 1 of 1 pages asked for a style sheet that they did not get: fonts.test/css2 (1)"
    assert read_json(run)["warnings"][-1] == told and f"warning: {told}\n" in said(run)


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
    table = {line[:28].strip(): line[28:].split() for line in said(run).splitlines()}
    assert table["dialogues out of turns"] == ["3", "of", "20", "0", "of", "20"]
    html = (run.directory.path / "report.html").read_text()
    assert "syntax-error" not in html and "<td>30 (15.0 %)</td>" in html
    assert "out of turns: no answer within 1" in html and '<td class="bad">out of turns</td>' in html


def test_a_critic_with_accuracy_1_at_most_logged_steps_is_a_warning_of_the_report(run):
    rows = [
        {"stage": "critic", "step": s, "total": 13, "rewards/accuracies": 1.0 if s > 4 else 0.9} for s in range(1, 14)
    ]
    write_metrics(run.directory.path / "critic", rows)
    write_report(run, 1.0)
    (warning,) = [text for text in read_json(run)["warnings"] if "accuracy" in text]
    assert warning.startswith("stage critic: preference accuracy was 1.0 at 9 of 13 logged steps: ")
    assert f"warning: {warning}\n" in said(run)


def test_the_page_says_in_a_paragraph_what_the_run_did(html):
    assert (
        "<p>The start policy was trained on 400 scripted dialogues. The critic was trained on 120 such pairs in 250 "
        "steps. All stages together took 1 min 40 s.</p>"
    ) in html


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


def test_figures_of_the_miniature_stand_in_no_table_of_the_paper(run, tmp_path):
    own = make_run(tmp_path / "own", tasks=Path("tasks.jsonl"))
    for one in (run, own):
        write_report(one, 1.0)
    miniature, real = ((one.directory.path / "report.html").read_text() for one in (run, own))
    assert "this run, start policy" in real and "this run, start policy" not in miniature
    assert "8B SWEET-RL" in miniature and "do not stand here" in miniature


def test_the_console_shows_the_table_the_files_and_what_to_try(run):
    write_report(run, 123.45)
    folder, lines = run.directory.path, said(run).splitlines()
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


def test_the_page_loads_nothing_and_links_only_to_files_of_the_run(html, run):
    elements = Elements(html)
    assert elements.open == []
    assert {tag for tag, _ in elements.found} & {"script", "link", "img", "iframe", "object"} == set()
    assert "://" not in html
    assert "@import" not in html
    targets = {attrs[name] for _, attrs in elements.found for name in ("src", "href", "xlink:href") if name in attrs}
    files = {target for target in targets if not target.startswith("#")}
    assert {"report.json", "log.txt", "evaluation/start.jsonl", "critic/metrics.jsonl", "start/model/"} <= files
    assert all((run.directory.path / file).exists() for file in files)


def test_marks_inside_the_drawings_are_found_and_unique(html):
    found = Elements(html).found
    ids = [attrs["id"] for _, attrs in found if "id" in attrs]
    used = {attrs["xlink:href"][1:] for _, attrs in found if "xlink:href" in attrs}
    used |= set(re.findall(r"url\(#([^)]*)\)", html))
    assert len(ids) == len(set(ids))
    assert used and used <= set(ids)


def test_text_of_dialogues_tasks_and_warnings_is_shown_not_run(html):
    assert "<script" not in html and "<b>" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quoted&#34;") == 12
    assert "a new &lt;one&gt;" in html and "f(1) &lt;b&gt;" in html and "return x &lt; 3" in html


def test_every_stage_that_trains_has_its_plots_in_the_colours_of_the_page(html):
    figures = re.findall(r"<figcaption>(.*?)</figcaption>", html)
    assert figures[2:] == ["nll", *2 * ["loss", "rewards/accuracies", "rewards/margins"]]
    assert html.count("<svg") == 9
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", html)) == set()
    assert "var(--trained)" in html and "prefers-color-scheme: dark" in html


def test_what_keeps_figures_from_the_papers_is_told_of_ones_own_tasks_and_the_miniature_is_called_one(run, tmp_path):
    own = make_run(tmp_path / "own", tasks=Path("tasks.jsonl"))
    for one in (run, own):
        write_report(one, 1.0)
    miniature, real = ((one.directory.path / "report.html").read_text() for one in (run, own))
    assert "its tasks are a miniature" in miniature and "nothing says that they are the same ones" not in miniature
    assert "its tasks are a miniature" not in real
    assert "<li>Tasks: 20 here, 1000 test tasks in the paper; nothing says that they are the same ones.</li>" in real


def test_the_examples_are_the_first_of_each_kind(run):
    dialogues = {
        "start": [trajectory(n, 0, p, 1) for n, p in enumerate([3, 10, 10, 2, 1], start=1)],
        "trained": [trajectory(n, 0, p, 1) for n, p in enumerate([4, 10, 10, 10, 10], start=1)],
    }
    found = page.examples(dialogues, METRIC_NAMES["backend"])
    assert [(example.number, example.kind) for example in found] == [
        (4, "solved only after training"),
        (1, "solved neither before nor after training"),
        (2, "solved before and after training"),
    ]
    assert [side.outcome for side in found[0].sides] == ["2 of 10 tests passed", "10 of 10 tests passed"]
    alone = page.examples({"start": dialogues["start"][1:3]}, METRIC_NAMES["backend"])
    assert [(example.number, example.kind) for example in alone] == [(1, "solved"), (2, "solved")]


def test_a_second_start_only_tells_the_table_again(run, monkeypatch):
    write_report(run, 123.45)
    first, files = said(run), [run.directory.path / name for name in ("report.json", "report.html")]
    times = [os.stat(file).st_mtime_ns for file in files]
    run.console._stream.truncate(0)
    run.console._stream.seek(0)
    (run.directory.path / "evaluation" / "start.jsonl").unlink()  # nothing is read again
    monkeypatch.setitem(sys.modules, "launch.training.report_page", None)  # nothing is drawn again: importing it fails
    write_report(run, None)
    assert said(run) == first.removeprefix("warning: stage policy: a new <one>\n")
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


def test_a_zero_shot_run_has_one_policy_and_no_difference(tmp_path):
    run = make_run(tmp_path / "run", algorithm="zero-shot")
    write_report(run, 1.0)
    found = read_json(run)
    assert (list(found["policies"]), found["difference"], found["intervals_overlap"]) == (["start"], None, None)
    assert "Success of the start policy on 20 held-out tasks: 25.0 %" in said(run)
    assert "trained" not in said(run)
    assert "trained policy" not in (run.directory.path / "report.html").read_text()
    write_report(run, None)


def test_answers_that_could_not_be_graded_are_told_and_left_out(run):
    folder = run.directory.path / "evaluation"
    rows = [dataclasses.replace(trajectory(n, 0, 10, 5), reward=None if n <= 2 else 1.0) for n in range(1, 21)]
    write_rows(folder / "trained.jsonl", rows)
    write_report(run, 1.0)
    found = read_json(run)
    assert (found["policies"]["trained"]["excluded"], found["difference"]["tasks"]) == (2, 18)
    assert re.search(r"excluded: not graded +0 of 20 +2 of 20", said(run))
    assert "could not be graded" in (run.directory.path / "report.html").read_text()


def test_a_run_in_which_nothing_could_be_graded_still_has_a_report(run):
    for name in ("start", "trained"):
        rows = [dataclasses.replace(trajectory(n, 0, 0, 5), reward=None, answer=NO_ANSWER) for n in range(1, 3)]
        write_rows(run.directory.path / "evaluation" / f"{name}.jsonl", rows)
    write_report(run, 1.0)
    assert read_json(run)["difference"]["success"] == {"mean": None, "low": None, "high": None}
    assert "Success went from n/a to n/a" in said(run)
    write_report(run, None)


def test_a_line_of_metrics_that_cannot_be_read_is_named(run):
    path = run.directory.path / "critic" / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss"\n')
    with pytest.raises(BadInput, match=re.escape(f"{path}:2: ")):
        write_report(run, 1.0)


def test_a_command_line_has_the_flags_that_differ_from_the_preset():
    assert command_line(PRESETS["embedded"]()) == "python -m launch.train"
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


def test_numbers_are_written_for_people():
    assert share(Estimate(0.5, 0.25, 0.755)) == "50.0 % [25.0, 75.5]"
    assert points(Estimate(-0.5, -0.75, 0.25)) == "-50.0 points [-75.0, +25.0]"
    assert [duration(s) for s in (8.14, 59.7, 754.2, 7322)] == ["8.1 s", "1 min 00 s", "12 min 34 s", "2 h 02 min"]


def test_the_smallest_runs_can_be_drawn():
    from launch.reporting.plots import bars, curve

    assert len(re.findall(r"<use [^>]*fill: var\(--trained\)", curve("one", [(1, 0.5)]))) == 1
    assert curve("one", [(1, 0.5)]) == curve("one", [(1, 0.5)])
    assert ">start</text>" in bars("failed", {"start": {10: (0.0, "2")}}, "success, %")


def test_long_curves_are_drawn_as_means():
    from launch.reporting.plots import _thin

    assert _thin([(1, 2.0), (2, 4.0)]) == [(1, 2), (2, 4)]
    assert _thin([(step, float(step)) for step in range(1, 151)])[:2] == [(1.5, 1.5), (3.5, 3.5)]
    assert len(_thin([(step, 0.0) for step in range(1001)])) == 91


def test_the_report_is_written_whole_or_not_at_all(run, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(BadInput, match="report.html: cannot be written: No space left on device"):
        write_report(run, 1.0)
    assert not (run.directory.path / "report.json").exists()
