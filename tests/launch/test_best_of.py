"""`launch.rollout --best-of=N --critic=RUN`: the critic chooses each turn, and what cannot work is refused at once."""

import dataclasses
import json
from pathlib import Path

import pytest

from colbench_env.mini import make_tasks
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Task, Trajectory
from launch import rollout
from launch.common.simulator import Simulator
from launch.ranking.credit import load_credit
from launch.rollouts.config import RolloutConfig
from launch.training.config import Critic, Ranking, TrainConfig, settings_of
from sweet_jax.train.settings import Training

pytestmark = pytest.mark.slow

SMALL = (
    "--num-tasks=2", "--max-new-tokens=8", "--max-turns=2", "--max-length=512", "--rows=8", "--agent-prompt=none",
)  # fmt: skip


@pytest.fixture
def run_dir(tiny_model, tmp_path):
    """A run directory whose critic needs no training."""
    critic = Critic(parameterisation="pmi", aggregation="sum", training=Training(max_length=512))
    config = TrainConfig(model=str(tiny_model), critic=critic, ranking=Ranking(reference_context="public"))
    (tmp_path / "run" / "critic").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text(json.dumps(settings_of(config)))
    return tmp_path / "run"


@pytest.fixture
def play(in_process, tiny_model, tmp_path):
    def rows(name, *flags, model=tiny_model):
        ended = in_process(rollout.main, *SMALL, f"--model={model}", f"--output={tmp_path / name}", *flags)
        return ended, tmp_path / name

    return rows


def test_every_turn_is_the_one_that_the_critic_scores_highest(play, run_dir):
    played = []
    for in_flight in (1, 5):
        ended, path = play(f"{in_flight}.jsonl", "--best-of=3", f"--critic={run_dir}", f"--in-flight={in_flight}")
        assert ended.status == 0, ended.stderr
        played.append(path.read_bytes())
    assert played[0] == played[1]  # whatever is played beside it
    for row in read_rows(path, Trajectory):
        assert row.extra["sampling"]["best_of"] == 3 and row.extra["sampling"]["critic"] == str(run_dir)
        assert all(len(set(turn.extra["scores"])) == 3 for turn in row.agent_turns)
    ended, _ = play("1.jsonl", "--best-of=2", f"--critic={run_dir}")
    assert "was played with" in ended.refuses()


@pytest.mark.parametrize(("best_of", "in_flight", "expected"), [(8, 64, 4), (3, 5, 5), (1, 64, 64)])
def test_no_more_dialogues_are_begun_than_fill_the_rows(best_of, in_flight, expected):
    critic = Path("run") if best_of > 1 else None
    config = RolloutConfig(rows=32, best_of=best_of, critic=critic, simulator=Simulator(in_flight=in_flight))
    assert config.at_once == expected


def test_a_critic_says_what_each_turn_of_a_dialogue_is_worth(play, run_dir, tmp_path):
    _, path = play("rows.jsonl", "--best-of=3", f"--critic={run_dir}")
    credit = load_credit(run_dir)
    for row in read_rows(path, Trajectory):
        assert credit(row) == pytest.approx([max(turn.extra["scores"]) for turn in row.agent_turns], abs=1e-3)
    with pytest.raises(BadInput, match=r"has no reference, which the critic of .* is to see"):
        credit(dataclasses.replace(row, task=Task("Add one.")))
    with pytest.raises(BadInput, match="neither a run directory whose stage critic has finished"):
        load_credit(tmp_path)


def test_of_one_turn_the_critic_chooses_what_was_drawn_first_or_what_it_scores_higher(play, run_dir):
    _, alone = play("alone.jsonl")
    _, best = play("best.jsonl", "--best-of=2", f"--critic={run_dir}")
    for one, two in zip(read_rows(alone, Trajectory), read_rows(best, Trajectory), strict=True):
        first, second = two.agent_turns[0].extra["scores"]
        same = one.agent_turns[0].output == two.agent_turns[0].output
        assert same == (first >= second)


def test_what_cannot_be_ranked_is_refused_before_any_dialogue(play, run_dir, tiny_model, tmp_path):
    def refusal(*flags, model=tiny_model):
        ended, path = play("rows.jsonl", *flags, model=model)
        assert not path.exists()
        return ended.refuses()

    critic, both = f"--critic={run_dir}", "--best-of=N, above 1, and --critic=RUN are given together"
    assert both in refusal("--best-of=2") and both in refusal(critic)
    assert "no such directory" in refusal("--best-of=2", f"--critic={tmp_path / 'none'}")
    assert "a run directory is needed" in refusal("--best-of=2", f"--critic={tiny_model}")
    (bare,) = (task.to_json() | {"ground_truth": ""} for task in make_tasks("test", 1, 0))
    (tmp_path / "tasks.jsonl").write_text(json.dumps(bare) + "\n")
    assert "tasks.jsonl:1: 'ground_truth'" in refusal("--best-of=2", critic, f"--tasks={tmp_path / 'tasks.jsonl'}")
    assert "is not the policy's, so it cannot read its turns" in refusal("--best-of=2", critic, model="embedded")
