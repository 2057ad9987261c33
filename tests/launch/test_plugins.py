"""Plugins: every example is what a run plays, learns from and trains; what cannot be used is refused in a sentence."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from colbench_env.grading import Grader
from colbench_env.tasks import read_rows
from colbench_env.types import NO_ANSWER, Ranked, Task, Trajectory
from launch import evaluate, rollout
from launch.common.plugins import RewardGrader
from launch.ranking.credit import load_credit
from models.families import FAMILIES
from sweet_jax.plugins import Plugin, load_plugins

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"
STAGES = ("tasks", "rollouts", "grading", "candidates", "ranking")
SMALL = (
    "--num-tasks=3", "--evaluation.num-tasks=2", "--rollouts.samples=1", "--rollouts.max-turns=4",
    "--rollouts.max-new-tokens=8", "--rollouts.rows=4", "--ranking.candidates=4", "--ranking.data-fraction=1.0",
    "--critic.training.max-length=512",
)  # fmt: skip


@pytest.fixture(autouse=True)
def families():
    """What a plugin adds to this process is gone afterwards."""
    yield
    load_plugins.cache_clear()
    FAMILIES.pop("seed_oss", None)


@pytest.fixture
def write(tmp_path):
    """Writes a plugin, gives the flag that names it."""

    def plugin(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(f"from sweet_jax.plugins import Plugin\n{text}")
        return f"--plugin={tmp_path / name}"

    return plugin


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_complete_in_under_sixty_lines_and_brings_what_its_name_says(path):
    assert len(path.read_text().splitlines()) < 60
    brings = {"my_family": "families", "my_user": "user_simulator", "my_tasks": "make_tasks"}
    assert load_plugins(str(path)).brings == (brings.get(path.stem, path.stem.removeprefix("my_")),)


@pytest.mark.slow
def test_a_run_plays_the_plugins_tasks_with_its_user_and_ranks_by_its_critic_and_reward(start, tiny_model, tmp_path):
    run, names = tmp_path / "run", ("my_tasks", "my_user", "my_reward", "my_critic")
    plugin = f"--plugin={','.join(str(EXAMPLES / f'{name}.py') for name in names)}"
    for stage in STAGES:
        ended = start(f"--run-dir={run}", f"--model={tiny_model}", plugin, *SMALL, f"--stage={stage}")
        assert ended.status == 0, ended.stderr
    told = json.loads((run / "config.json").read_text())
    assert told["simulator"]["human"] == told["grader"] == told["critic"]["parameterisation"] == "plugin"
    tasks = read_rows(run / "tasks" / "train.jsonl", Task)
    assert len(tasks) == 3 and all("customer of the shop" in task.problem_description for task in tasks)
    graded = read_rows(run / "grading" / "trajectories.jsonl", Trajectory)
    assert [row.task.task_id for row in graded] == [task.task_id for task in tasks]
    assert all(row.extra["human"]["name"] == "hurried" for row in graded)
    replies = [m.content for row in graded for m in row.dialogue_history[5:] if m.role == "user"]
    assert replies and set(replies) == {"I have told you enough, please write the function now."}
    assert all(row.extra["grader"] == "my_reward" for row in graded)
    critic = load_plugins(str(EXAMPLES / "my_critic.py")).critic
    for row in read_rows(run / "ranking" / "ranked.jsonl", Ranked):
        candidates = row.candidates
        assert list(row.judge_result) == critic(candidates, candidates.additional_outputs)
    assert (told["ranking"]["min_gap"], told["ranking"]["clip_scores"]) == (0.0, 0.0)
    (run / "critic").mkdir()
    row = graded[0]
    values = load_credit(run)(row)  # the run's plugin comes with its critic
    positions = [row.dialogue_history[: 2 * turn - 1] for turn in range(1, len(row.agent_turns) + 1)]
    for value, messages, turn in zip(values, positions, row.agent_turns, strict=True):
        assert (
            value
            == critic(replace(candidates, messages=messages, ground_truth=row.task.ground_truth), [turn.content])[0]
        )
    ended = start(f"--run-dir={run}", f"--model={tiny_model}", *SMALL, "--stage=candidates")
    assert "is the run directory of another configuration" in ended.refuses()


def test_tasks_of_the_example_have_right_references_and_are_the_same_again():
    make = load_plugins(str(EXAMPLES / "my_tasks.py")).tasks
    tasks = make("train", 20, 1)
    assert tasks == make("train", 20, 1) != make("train", 20, 2)
    assert not {task.task_id for task in tasks} & {task.task_id for task in make("test", 20, 1)}
    with Grader(workers=1) as grader:
        assert all(grader.grade(task, task.ground_truth).success for task in tasks[:3])
    assert tasks[0].ground_truth in {
        f"def total(price, count):\n    amount = price * count\n    if amount > {least}:\n"
        f"        amount = amount * (100 - {percent}) / 100\n    return round(amount, {digits})\n"
        for least in range(20, 200, 10) for percent in (5, 8, 10, 15) for digits in (0, 1, 2)
    }  # fmt: skip


def test_the_reward_of_the_example_is_less_for_many_lines():
    plugin = load_plugins(str(EXAMPLES / "my_reward.py"))
    task = Task("Add one.", "def f(x):\n    return x + 1", {"test1": "f(1)", "test2": "f(5)"})
    assert plugin.grade(task, task.ground_truth) == 1.0
    assert plugin.grade(task, task.ground_truth + "\n# and on" * 20) == pytest.approx(0.8)
    assert plugin.grade(task, "def f(x):\n    return 2") == 0.5
    assert plugin.grade(task, "") == 0.0
    plugin = Plugin(reward=lambda task, answer: float(bool(answer)), name="any")
    grades = RewardGrader(plugin).grade_many([(task, "x"), (task, NO_ANSWER)])
    assert [(grade.reward, grade.success) for grade in grades] == [(1.0, True), (0.0, False)]


@pytest.mark.slow
def test_rollout_and_evaluate_take_plugins_too(in_process, tiny_model, tmp_path):
    played, graded = tmp_path / "played.jsonl", tmp_path / "graded.jsonl"
    ended = in_process(
        rollout.main, f"--model={tiny_model}", f"--plugin={EXAMPLES / 'my_tasks.py'},{EXAMPLES / 'my_user.py'}",
        "--num-tasks=2", "--max-turns=3", "--max-new-tokens=8", "--rows=4", "--max-length=512", "--agent-prompt=none",
        f"--output={played}",
    )  # fmt: skip
    assert ended.status == 0, ended.stderr
    rows = read_rows(played, Trajectory)
    assert len(rows) == 2 and all("market stall" in row.task.problem_description for row in rows)
    assert all(row.extra["human"]["name"] == "hurried" for row in rows)
    plugin = f"--plugin={EXAMPLES / 'my_reward.py'}"
    ended = in_process(evaluate.main, f"--trajectories={played}", plugin, f"--output={graded}")
    assert ended.status == 0, ended.stderr
    assert [row.reward for row in read_rows(graded, Trajectory)] == [0.0, 0.0]
    assert "Reward x 100 0.0 [0.0, 0.0], 0.0 % [0.0, 0.0] of reward 1" in ended.stdout
    assert "tests passed" not in ended.stdout.split("Beside the paper")[0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "mine.py: has no `plugin`, expected plugin = sweet_jax.plugins.Plugin(...)"),
        ("plugin = Plugin()", "mine.py: its Plugin() brings nothing"),
        ("plugin = Plugin(rewards=len)", "got an unexpected keyword argument 'rewards'"),
        ("import not_there", "cannot be imported: ModuleNotFoundError: No module named 'not_there'"),
        ("plugin = Plugin(make_tasks=lambda *_: [])", "make_tasks('train', 3, 42) gives nothing, expected Task"),
        ("plugin = Plugin(make_tasks=lambda *_: None)", "make_tasks ends in TypeError: 'NoneType' object is not it"),
        ("plugin = Plugin(make_tasks=lambda *_: ['a'])", "make_tasks('train', 3, 42) gives str 'a', expected Task"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_before_any_work(start, write, tiny_model, tmp_path, text, sentence):
    ended = start(f"--run-dir={tmp_path / 'run'}", f"--model={tiny_model}", write(text), *SMALL)
    assert sentence in ended.refuses()
    assert not list((tmp_path / "run").rglob("*.jsonl"))


def test_flags_that_a_plugin_contradicts_are_refused(start, write, tmp_path):
    run = f"--run-dir={tmp_path / 'run'}"
    assert (
        "--human=plugin needs a plugin with a user simulator: --plugin=MODULE is"
        in start(run, "--human=plugin").refuses()
    )
    rewards = write("plugin = Plugin(reward=lambda task, answer: 1)")
    assert "brings none" in start(run, rewards, "--critic.parameterisation=plugin").refuses()
    assert (
        f"--grader=official and {rewards}, which brings a reward: leave one"
        in start(run, rewards, "--grader=official").refuses()
    )
    other = write("plugin = Plugin(reward=lambda task, answer: 0)", "other.py").removeprefix("--plugin=")
    assert "both bring reward, expected one" in start(run, f"{rewards},{other}").refuses()
    user = f"--plugin={EXAMPLES / 'my_user.py'}"
    endpoint = ("--human=openai", "--human-model=x")
    assert "--human=openai and " in start(run, user, *endpoint).refuses()
    assert "--tasks=FILE is needed" in start(run, user, "--preset=paper-backend", "--model=x").refuses()
    tasks = f"--plugin={EXAMPLES / 'my_tasks.py'}"
    paper = (user + "," + str(EXAMPLES / "my_tasks.py"), "--preset=paper-backend")
    assert "--human-url=http://x" in start(run, *paper, "--model=x", "--human-url=http://x").refuses()
    assert "x: no such model directory" in start(run, *paper, "--model=x").refuses()
    assert "which brings tasks: leave one of them out" in start(run, tasks, "--tasks=mine.jsonl").refuses()
    assert "there is no such module, expected FILE.py, a module or" in start(run, "--plugin=not.there").refuses()
    assert "no such file, expected a Python file" in start(run, "--plugin=not_there.py").refuses()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [(2, "the reward of task .* is 2, expected 0 to 1"), ("'a'", "is 'a', expected 0 to 1"), ("1 / 0", "division by")],
)
def test_a_reward_that_is_none_names_the_plugin_and_the_task(write, given, sentence):
    plugin = load_plugins(write(f"plugin = Plugin(reward=lambda task, answer: {given})").removeprefix("--plugin="))
    with pytest.raises(ValueError, match=f"^plugin mine: .*{sentence}"):
        plugin.grade(Task("Add one."), "def f(x): return x")
