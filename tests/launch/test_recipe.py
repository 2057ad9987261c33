"""A dry run of docs/recipe-8b.md: `--preset=paper-backend` itself, stage by stage, on rows of the released layout."""

import json
import math
import shutil
from pathlib import Path

import pytest

from colbench_env.mini import make_tasks
from colbench_env.tasks import write_rows
from sweet_jax.data.chat import Chat
from tests.launch.released import trajectory

TASKS, SAMPLES, TURNS = 20, 3, 2
REWARDS = ((1.0, 0.4, 0.0), (0.3, 0.2, 0.1), (0.9, 1.0, 1.0), (1.0, 1.0, 1.0))
"""Of the samples of every fourth task: two worse than the first solved one, none solved, one worse, none worse."""
PAIRS = TASKS // 4 * (2 + 0 + 1 + 0)
POSITIONS = TASKS * SAMPLES // 10 * TURNS
STAGES = ("tasks", "rollouts", "grading", "pairs", "critic", "candidates", "ranking", "turn-pairs", "policy")


@pytest.fixture(scope="module")
def run(start, tiny_model, tmp_path_factory) -> Path:
    """The run directory after every stage but the evaluation, which needs the user simulator."""
    folder = tmp_path_factory.mktemp("recipe")
    model = folder / "model"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    chat, tasks = Chat.load(model), make_tasks("train", TASKS, 5)
    rows = [
        trajectory(chat, task, TURNS, REWARDS[place % 4][sample], sample)
        for sample in range(SAMPLES)
        for place, task in enumerate(tasks)
    ]
    write_rows(folder / "offline.jsonl", rows)
    write_rows(folder / "test.jsonl", make_tasks("test", 4, 5))
    command = (
        "--preset=paper-backend", "--mesh=1x1", f"--run-dir={folder / 'run'}", f"--model={model}",
        f"--trajectories={folder / 'offline.jsonl'}", f"--eval-tasks={folder / 'test.jsonl'}",
        "--human-url=http://127.0.0.1:9/v1",
        f"--num-tasks={TASKS}", "--evaluation.num-tasks=4", "--rollouts.max-new-tokens=8",  # the sizes alone differ
    )  # fmt: skip
    for stage in STAGES:
        ended = start(*command, f"--stage={stage}")
        assert ended.status == 0, ended.stderr
    return folder / "run"


def note(run: Path, stage: str) -> dict:
    return json.loads((run / stage / "done.json").read_text())


def metrics(run: Path, stage: str) -> list[dict]:
    return [json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_dialogues_and_pairs_are_as_many_as_the_recipe_says(run):
    assert note(run, "grading")["success"] == 0.5
    assert note(run, "grading")["turns"] == TURNS
    assert note(run, "pairs")["pairs"] == PAIRS
    assert note(run, "candidates")["positions"] == POSITIONS
    assert note(run, "ranking")["scored"] == 16 * POSITIONS
    assert note(run, "turn-pairs")["pairs"] == 4 * POSITIONS


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "epochs", "pairs"), [("critic", 4, PAIRS), ("policy", 1, 4 * POSITIONS)])
def test_training_begins_at_log_2_and_takes_the_steps_that_the_recipe_says(run, stage, epochs, pairs):
    steps = epochs * math.ceil(pairs / 8)
    found = metrics(run, stage)
    assert note(run, stage)["steps"] == len(found) == steps
    assert [row["total"] for row in found] == [steps] * steps
    first = found[0]
    assert first["loss"] == pytest.approx(math.log(2) + 0.01 * first["nll"], abs=1e-4)
    assert abs(first["rewards/margins"]) < 1e-4 and first["log_ratios/abs"] < 1e-3
    assert max(row["lr"] for row in found) == pytest.approx(2e-7, rel=1e-3)
    assert found[-1]["lr"] == pytest.approx(2e-8, rel=0.5)


@pytest.mark.slow
def test_the_policy_is_paired_by_the_critics_halves(run):
    ranked = [json.loads(line) for line in (run / "ranking" / "ranked.jsonl").read_text().splitlines()]
    for line in (run / "turn-pairs" / "pairs.jsonl").read_text().splitlines():
        pair = json.loads(line)
        scores = ranked[pair["position"]]["judge_result"]
        chosen, rejected = (scores[number] for number in pair["picked"])
        middle = sorted(scores)[8]
        assert chosen >= middle >= rejected and chosen > rejected
