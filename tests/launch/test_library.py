"""SWEET-RL as ten calls: README's very block on a tiny random model, and what each call refuses."""

import re
from pathlib import Path

import numpy as np
import pytest

import sweet_jax
import sweet_jax.sweet
from colbench_env.mini import make_tasks
from colbench_env.types import BadInput
from sweet_jax.train.settings import Training

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.search(r"<!-- python -->\n```python\n(.*?)```\n<!-- end -->", README.read_text(encoding="utf-8"), re.DOTALL)


def reward_first_samples(trajectories, workers=2):
    """Stands for the grader, whom no random model pleases: sample 0 of a task passes all tests, the others half."""
    return [
        sweet_jax.sweet.replace(row, reward=1.0 if row.extra["sample"] == 0 else 0.5, extra=row.extra)
        for row in trajectories
    ]


@pytest.mark.slow
def test_the_block_of_the_readme_trains_a_tiny_random_model(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sweet_jax.sweet.EMBEDDED, "start_policy", tiny_model)
    monkeypatch.setattr(sweet_jax.sweet, "grade", reward_first_samples)
    found = {}
    code = BLOCK[1].replace('"train", 40', '"train", 2').replace("max_turns=8", "max_turns=2").replace("=40", "=2")
    exec(compile(code, "README.md", "exec"), found)  # the very block, with fewer tasks, turns and updates
    flat = [sweet_jax.sweet.flatten(found[name].params) for name in ("policy", "critic", "trained")]
    for trained in flat[1:]:
        assert any(not np.array_equal(flat[0][path], trained[path]) for path in trained)
    again = sweet_jax.load_policy("out/model")
    assert np.array_equal(sweet_jax.sweet.flatten(again.params)["embedding"], flat[2]["embedding"])


def test_the_package_names_its_calls_and_no_others():
    assert {"load_policy", "play", "rank", "train_critic"} <= set(sweet_jax.__all__) == set(dir(sweet_jax))
    for name in sweet_jax.__all__:
        assert getattr(sweet_jax, name).__doc__
    with pytest.raises(AttributeError, match="'sweet_jax' has no attribute 'lod_policy'"):
        sweet_jax.lod_policy  # noqa: B018


def test_what_cannot_be_done_is_said_in_one_sentence(tiny_model, tmp_path):
    policy = sweet_jax.load_policy(tiny_model)
    with pytest.raises(BadInput, match="there are no pairs to train the critic on: play more samples of each task"):
        sweet_jax.train_critic(policy, [], Training(), tmp_path)
    (task,) = make_tasks("train", 1, 0)
    long = sweet_jax.sweet.replace(task, problem_description="x y z " * 4000)
    with pytest.raises(BadInput, match=f"task {long.task_id} .* tokens, more than the 448 that leave room for a turn"):
        sweet_jax.play(policy, [long])
    with pytest.raises(BadInput, match="nowhere"):
        sweet_jax.load_policy(tmp_path / "nowhere")
