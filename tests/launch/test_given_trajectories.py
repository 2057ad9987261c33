"""`--trajectories` of `launch.train`: what is taken as the stage's rows, and what is refused."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Trajectory
from launch.common.benchmarks import Backend
from launch.training.stages.rollouts import rollouts
from tests.launch.evaluate_rows import dialogue, right, task


def given(tmp_path: Path, rewards):
    """A run that is given dialogues with these rewards, a blank line before each, and where its stage writes."""
    path, folder = tmp_path / "given.jsonl", tmp_path / "rollouts"
    rows = [dialogue(task(n), right(n)).to_json() | {"reward": reward} for n, reward in enumerate(rewards, 1)]
    path.write_text("".join(f"\n{json.dumps(row)}\n" for row in rows))
    folder.mkdir()
    run = SimpleNamespace(
        config=SimpleNamespace(trajectories=path),
        directory=SimpleNamespace(stage=lambda name: tmp_path / name),
        benchmark=Backend(),
    )
    return run, path, folder / "trajectories.jsonl"


def test_rewards_between_0_and_1_are_taken(tmp_path):
    run, path, written = given(tmp_path, [0, 0.5, None, 1])
    assert rollouts(run) == {"trajectories": 4, "from": str(path)}
    assert [row.reward for row in read_rows(written, Trajectory)] == [0.0, 0.5, None, 1.0]


@pytest.mark.parametrize(
    ("rewards", "line", "says"),
    [
        ([0, 1, 10], 6, "'reward' is 10, expected 0 to 1"),
        ([1, -1, 1, -1], 4, "'reward' is -1, expected 0 to 1"),
        ([0.5, True], 4, "'reward' is a boolean, expected a number"),
        (["1"], 2, "'reward' is a string, expected a number"),
    ],
)
def test_rewards_of_another_scale_are_refused_by_their_line_and_nothing_is_written(tmp_path, rewards, line, says):
    run, path, written = given(tmp_path, rewards)
    with pytest.raises(BadInput) as told:
        rollouts(run)
    assert str(told.value).startswith(f"{path}:{line}: {says}")
    assert not written.exists()
