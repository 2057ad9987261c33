"""`--benchmark=frontend` of the commands, with a real browser."""

import contextlib
import functools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from colbench_env.design.mini import make_page_tasks
from colbench_env.design.page_images import with_pictures
from colbench_env.episodes import Settings
from colbench_env.tasks import read_rows, write_rows
from colbench_env.types import NO_ANSWER, BadInput, Message, Task, Trajectory
from launch import evaluate as evaluate_command
from launch import rollout as rollout_command
from launch import show as show_command
from launch import train as train_command
from launch.common.benchmarks import Backend, Frontend
from launch.common.settings import EMBEDDED_DIRECTORIES, EMBEDDED_FRONTEND, Design
from launch.common.simulator import Simulator
from launch.rollouts.config import RolloutConfig
from launch.training.config import TrainConfig, settings_of
from tests.colbench_env.chromium import chromium_or_skip

pytestmark = pytest.mark.slow

RED = '<html><body style="background:#dc2626"><h1>Shop</h1><p>Bread and cakes</p></body></html>'
BLUE = '<html><body style="background:#1e3a8a"><h1>Shop</h1><p>Bread and cakes</p></body></html>'
TASK = Task("A red page", RED)


@pytest.fixture(scope="module", autouse=True)
def chromium():
    return chromium_or_skip()


def row(answer, *shown, task=TASK):
    turns = shown or (answer,)
    history = [Message("user", task.problem_description)]
    for turn in turns:
        history += [Message("assistant", turn, "in", turn), Message("user", "Go on.")]
    return Trajectory(task, tuple(history[:-1]), answer)


@pytest.fixture
def files(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [row(RED, BLUE, RED), row(BLUE), row(NO_ANSWER, "Which red?")])
    write_rows(tmp_path / "before.jsonl", [row(BLUE)])
    return tmp_path


def test_pages_are_graded_compared_paired_and_shown_side_by_side(in_process, files):
    run = functools.partial(in_process, evaluate_command.main)
    flags = [f"--{name}={files / name}" for name in ("output", "json", "html", "pairs")]
    ended = run(
        "--benchmark=frontend", f"--trajectories={files / 'rows.jsonl'}", f"--baseline={files / 'before.jsonl'}", *flags
    )
    assert (ended.status, ended.errors) == (0, [])
    graded = read_rows(files / "output", Trajectory)
    red, blue, none = (one.reward for one in graded)
    assert red == 1.0 and 0.1 < blue < 0.9 and none == 0.0
    assert [one.extra["verdicts"]["page"] for one in graded] == ["pass", "pass", "no-answer"]
    found = json.loads((files / "json").read_text())
    assert found["benchmark"] == "frontend" and found["grader"] == "structural (not the paper's metric)"
    assert found["difference"]["wins"]["mean"] == 0.5  # a win, a tie, a loss
    assert {"policy": "8B SWEET-RL", "cosine": 77.7, "win_rate": 48.2} in found["paper"]["rows"]
    assert "Similarity x 100" in ended.stdout and "win rate" in ended.stdout
    html = (files / "html").read_text()
    assert html.count("data:image/webp;base64,") >= 3 and "Pages side by side" in html
    assert len((files / "pairs").read_text().splitlines()) == 3


def test_backend_rows_under_frontend_are_refused_with_a_sentence(in_process, tmp_path):
    write_rows(tmp_path / "rows.jsonl", [row("x", task=Task("Round", "def f(x): return x", {"test1": "f(1)"}))])
    ended = in_process(evaluate_command.main, "--benchmark=frontend", f"--trajectories={tmp_path / 'rows.jsonl'}")
    assert "no dialogue has a reward, and none could be graded" in ended.refuses()


def test_rewards_of_different_similarities_are_not_compared(in_process, files):
    graded = [replace(row(RED), reward=0.4, extra={"grader": name}) for name in ("CLIP cosine (x)", "structural")]
    write_rows(files / "clip.jsonl", graded[:1])
    write_rows(files / "mixed.jsonl", graded)
    run = functools.partial(in_process, evaluate_command.main, "--benchmark=frontend")
    output = f"--output={files / 'graded.jsonl'}"
    refused = run(f"--trajectories={files / 'mixed.jsonl'}", output).refuses()
    assert "the rewards are of different graders, CLIP cosine (x) (" in refused and "--regrade" in refused
    refused = run(f"--trajectories={files / 'clip.jsonl'}", f"--baseline={files / 'before.jsonl'}").refuses()
    assert "and structural (not the paper's metric) (" in refused
    assert run(f"--trajectories={files / 'mixed.jsonl'}", "--regrade", output).status == 0
    # Nothing is rendered but for the pictures, and a report without them is better than none.
    flags = (f"--html={files / 'report.html'}", f"--design.chromium={files / 'nowhere'}")
    ended = run(f"--trajectories={files / 'clip.jsonl'}", *flags)
    assert ended.status == 0 and "the report has no pictures: " in ended.stderr and (files / "report.html").exists()


def test_a_reference_that_does_not_show_leaves_out_its_own_dialogues(in_process, files):
    broken = Task("A large page", "<html>" + "<i></i>" * 20_001 + "</html>")
    write_rows(files / "broken.jsonl", [row(RED), row(RED, task=broken)])
    ended = in_process(
        evaluate_command.main, "--benchmark=frontend", f"--trajectories={files / 'broken.jsonl'}",
        f"--output={files / 'graded'}",
    )  # fmt: skip
    assert ended.status == 0 and "the reference cannot be shown: the page has 20004 elements" in ended.stderr
    assert [one.reward for one in read_rows(files / "graded", Trajectory)] == [1.0, None]


def test_an_answer_that_is_not_there_has_no_picture():
    rows = [replace(row(RED), reward=1.0), replace(row(NO_ANSWER, "Which red?", task=Task("Another", RED)), reward=0.0)]
    with contextlib.closing(Frontend(Design())) as frontend:
        none, red = frontend.page_images({"agent": rows})
    assert none.images[0].answer is None and none.images[0].reference == red.images[0].answer


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--evaluation.num-tasks=300",), "300 mini pages were asked for, the split 'test' has 239"),
        (("--design.failed=black",), "--design.clip=DIR is missing"),
        (
            (
                "--preset=paper-frontend",
                f"--model={EMBEDDED_DIRECTORIES[EMBEDDED_FRONTEND]}",
                f"--tasks={__file__}",
            ),
            "--design.clip=DIR is missing",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(in_process, tmp_path, flags, words):
    ended = in_process(train_command.main, "--benchmark=frontend", f"--run-dir={tmp_path / 'run'}", *flags)
    assert words in ended.refuses()


def test_a_preset_of_the_other_benchmark_is_refused_by_its_name():
    with pytest.raises(BadInput, match="--preset=paper-backend is for backend tasks"):
        TrainConfig(benchmark="frontend", preset="paper-backend")


def test_a_run_goes_on_past_a_reference_that_does_not_show(in_process, tmp_path):
    large = Task("I need a page for a gym.", "<html>" + "<i></i>" * 20_001 + "</html>")
    write_rows(tmp_path / "tasks.jsonl", [*make_page_tasks("train", 2, 0), large])
    run_dir = tmp_path / "run"
    flags = ("--benchmark=frontend", "--stage=rollouts", "--rollouts.samples=1", "--rollouts.rows=16")
    for stage in ("tasks", "rollouts"):
        ended = in_process(
            train_command.main, *flags, f"--stage={stage}", f"--tasks={tmp_path / 'tasks.jsonl'}",
            f"--eval-tasks={tmp_path / 'tasks.jsonl'}", "--rollouts.max-turns=2", f"--run-dir={run_dir}",
        )  # fmt: skip
        assert ended.status == 0, ended.stderr
    assert "1 of 3 episodes failed" in ended.stderr
    assert len(read_rows(run_dir / "rollouts" / "trajectories.jsonl", Trajectory)) == 2
    failures = (run_dir / "rollouts" / "trajectories.failures.jsonl").read_text()
    assert "the reference cannot be shown: the page has 20004 elements" in failures


@pytest.mark.parametrize(("benchmark", "model"), [("frontend", "embedded"), ("backend", "embedded-frontend")])
def test_the_start_policy_of_the_other_benchmark_is_refused(benchmark, model):
    with pytest.raises(BadInput, match=f"--model={model}: it plays the other benchmark"):
        TrainConfig(benchmark=benchmark, model=model)


def test_the_browser_may_be_another_when_a_run_goes_on():
    first, second = (TrainConfig(design=Design(pages=pages, assets=Path(str(pages)))) for pages in (1, 2))
    assert settings_of(first) == settings_of(second)


def test_the_embedded_policy_designs_pages_with_the_human_who_looks(in_process, tmp_path):
    output = tmp_path / "rows.jsonl"
    flags = ("--benchmark=frontend", "--num-tasks=2", "--max-turns=2", "--max-new-tokens=24", "--max-length=256")
    ended = in_process(rollout_command.main, *flags, "--rows=2", "--human-plain", f"--output={output}")
    assert (ended.status, ended.errors) == (0, [])
    rows = read_rows(output, Trajectory)
    assert len(rows) == 2 and all(one.answer.startswith("<html>") for one in rows)
    assert all("should" in one.dialogue_history[2].content for one in rows)
    sizes = {}
    for name, pictures in (("plain", ()), ("pictures", ("--pictures",))):
        page = tmp_path / f"{name}.html"
        ended = in_process(show_command.main, f"--trajectories={output}", *pictures, f"--output={page}")
        assert ended.status == 0
        sizes[name] = page.stat().st_size
    assert sizes["pictures"] > sizes["plain"] + 4000  # two answers, two references and four turns, compressed


def test_show_grades_pages_that_have_no_grade(in_process, files):
    flags = (f"--trajectories={files / 'rows.jsonl'}", "--terminal", "--grade")
    done = in_process(show_command.main, *flags)
    assert done.status == 0
    assert "solved, reward 1.00" in done.stdout and "grader structural" in done.stdout


def test_pictures_of_a_dialogue_are_those_of_its_pages():
    with contextlib.closing(Frontend(Design())) as frontend:
        (found,) = with_pictures([row(RED, BLUE, "Which red?", RED)], frontend.renderer)
        broken = with_pictures([row(NO_ANSWER, "Which red?")], frontend.renderer)[0].extra["images"]
    images = found.extra["images"]
    assert images["answer"] == images["reference"] and images["answer"].startswith("data:image/webp;base64,")
    first, second, third = images["turns"]
    assert first.startswith("data:image/webp;base64,") and first != third and second is None
    assert (broken["answer"], broken["turns"], broken["similarity"]) == (None, (None,), None)


def test_a_human_who_cannot_see_is_refused_before_anything_begins():
    for config in (TrainConfig, RolloutConfig):
        with pytest.raises(BadInput, match="--human=model: a Llama does not see pages"):
            config(benchmark="frontend", simulator=Simulator(human="model"))


def test_an_agent_that_nobody_has_told_otherwise_gets_the_prompt_of_its_benchmark():
    assert "web pages" in Settings(rules=Frontend.rules).system_prompt
    assert "web pages" not in Settings().system_prompt


def test_what_the_two_benchmarks_prefer_and_imitate():
    frontend, backend = Frontend(Design()), Backend()
    assert frontend.demonstrations([0.5, 0.9, 0.8]) == [1]
    assert frontend.demonstrations([0.85, 0.9]) == []
    assert backend.demonstrations([1.0, 0.9, 1.0]) == [0, 2]
    assert frontend.grading_error(make_page_tasks("test", 1, 0)[0]) == ""
    assert backend.grading_error(TASK).startswith("the task has no 'test_cases'")
    assert (
        frontend.grading_error(Task("x", "def f(): pass")) == "the reference is no HTML page, expected a frontend task"
    )
