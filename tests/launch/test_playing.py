"""What a stage that plays episodes does with each that is over."""

from types import SimpleNamespace

import numpy as np
import pytest

from colbench_env.episodes import Episode, EpisodeFailed
from colbench_env.rollouts import RolloutPlan
from launch.training.stages import playing
from tests.launch.evaluate_rows import dialogue, right, task


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_answers_are_begun_to_be_graded_while_an_accelerator_plays_others(tmp_path, platform):
    begun, told = [], []
    run = SimpleNamespace(
        console=SimpleNamespace(warn=told.append, progress=lambda *what: told.append(what)),
        mesh=SimpleNamespace(devices=np.array([SimpleNamespace(platform=platform)])),
        benchmark=SimpleNamespace(begin_grading=lambda *what: begun.append(what)),
    )
    plan = RolloutPlan(tmp_path / "rows.jsonl", [task(1), task(2)], 1, {})
    on_done = playing._Progress(run, "rollouts", plan, missing=2)
    rows = [dialogue(task(1), right(1)), EpisodeFailed("human", Episode(task(2)), 0, "it is away")]
    for row in rows:
        on_done(row)
    assert begun == ([] if platform == "cpu" else [(rows[0].task, rows[0].answer)])
    assert told == [("rollouts", 1, 2), f"stage rollouts: {rows[1]}", ("rollouts", 2, 2)]
