"""Checkpoints: the same bits, on any mesh, whole after a kill, passed over when damaged."""

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from colbench_env.types import BadInput
from sweet_jax.losses import MeanMetric
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.train.checkpoint import Checkpoints
from sweet_jax.train.optim import make_optimizer
from sweet_jax.train.settings import Training
from sweet_jax.train.step import Objective, abstract_state, init_state, make_train_step, state_shardings

ONE = MeshShape(1, 1)
# A read or write that fails leaves coroutines of orbax unfinished; Python tells when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")

OPTIMIZER = make_optimizer(Training(learning_rate=0.1), total_steps=6)


@pytest.fixture(autouse=True)
def collect_unfinished_coroutines():
    yield
    gc.collect()


class Line:
    """A least-squares fit with a sharded weight: the smallest training that has an optimiser state."""

    def __init__(self, shape=ONE):
        self.mesh = make_mesh(shape)
        self.params = {"w": jax.random.normal(jax.random.key(0), (4, 2)), "b": jnp.zeros(2)}
        specs = {"w": PartitionSpec("data", "tensor"), "b": PartitionSpec()}
        shardings = {name: NamedSharding(self.mesh, spec) for name, spec in specs.items()}
        self.shardings = state_shardings(OPTIMIZER, self.params, shardings)
        objective = Objective(lambda batch: jnp.float32(batch["x"].shape[0]), self.loss)
        self.step = make_train_step(objective, OPTIMIZER, self.shardings, self.mesh)

    @staticmethod
    def loss(params, batch, count):
        error = jnp.square(batch["x"] @ params["w"] + params["b"] - 1.0).sum()
        return error / count, {"error": MeanMetric(error, count)}

    def first(self):
        return init_state(OPTIMIZER, self.params, self.shardings)

    def abstract(self):
        return abstract_state(OPTIMIZER, self.params, self.shardings)

    def train(self, state, steps):
        for index in steps:
            state, _ = self.step(state, {"x": np.random.default_rng(index).normal(size=(8, 4)).astype(np.float32)})
        return state


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))


@pytest.mark.slow
def test_a_restored_state_has_the_same_bits_and_its_notes(tmp_path):
    line = Line()
    state = line.train(line.first(), range(3))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        assert checkpoints.restore(line.abstract()) is None
        checkpoints.save(3, state, {"next_index": 24}, {"best": 0.5})
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(line.abstract())
        assert checkpoints.latest_step() == 3
    assert (found.step, found.iterator, found.extra) == (3, {"next_index": 24}, {"best": 0.5})
    assert_same_bits(found.state, state)


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_bits_of_an_uninterrupted_one(tmp_path):
    line = Line(MeshShape(4, 2))
    straight = line.train(line.first(), range(6))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, line.train(line.first(), range(2)), {})
    again = Line(MeshShape(4, 2))
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(again.abstract())
    assert_same_bits(again.train(found.state, range(found.step, 6)), straight)


@pytest.mark.slow
@pytest.mark.parametrize(("saved", "restored"), [((4, 2), (1, 1)), ((1, 1), (2, 2))])
def test_a_checkpoint_is_restored_onto_another_mesh(tmp_path, saved, restored):
    line, other = Line(MeshShape(*saved)), Line(MeshShape(*restored))
    state = line.train(line.first(), range(1))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        found = checkpoints.restore(other.abstract()).state
    assert_same_bits(found, state)
    assert found.params["w"].sharding == other.shardings.params["w"]


@pytest.mark.slow
def test_only_the_newest_are_kept_and_a_step_is_saved_once(tmp_path):
    line = Line()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3, 3):
            checkpoints.save(step, line.first(), {})
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]


def saved_steps(tmp_path, steps):
    line = Line()
    with Checkpoints(tmp_path) as checkpoints:
        for step in steps:
            checkpoints.save(step, line.train(line.first(), range(step)), {"next_index": step})
    return line


def damage(directory):
    """Cuts every file of a checkpoint in half."""
    for path in directory.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it_and_can_be_saved_again(tmp_path, caplog):
    line = saved_steps(tmp_path, (1, 2))
    damage(tmp_path / "2")
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore(line.abstract())
        assert (found.step, found.iterator) == (1, {"next_index": 1})
        assert "step 2 cannot be read" in caplog.text
        assert checkpoints.latest_step() == 1
        checkpoints.save(2, line.first(), {})
        assert checkpoints.restore(line.abstract()).step == 2


@pytest.mark.slow
def test_checkpoints_of_which_none_can_be_read_are_an_error_and_stay(tmp_path):
    line = saved_steps(tmp_path, (1,))
    damage(tmp_path / "1")
    refusal = r"no checkpoint can be read \(steps \[1\]\)"
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(BadInput, match=refusal):
        checkpoints.restore(line.abstract())
    assert (tmp_path / "1").is_dir()


@pytest.mark.slow
def test_a_checkpoint_of_other_shapes_is_an_error_and_stays(tmp_path):
    line = saved_steps(tmp_path, (1, 2))
    line.params = {"w": jnp.zeros((8, 2)), "b": jnp.zeros(2)}
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(BadInput, match="no checkpoint can be read") as error:
        checkpoints.restore(line.abstract())
    assert "Delete" not in str(error.value)
    assert sorted(child.name for child in tmp_path.iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_a_folder_that_a_killed_save_left_behind_is_no_checkpoint(tmp_path):
    line = saved_steps(tmp_path, (1,))
    half = tmp_path / "2.orbax-checkpoint-tmp-7" / "state"
    half.mkdir(parents=True)
    (half / "part").write_text("half")
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        assert checkpoints.restore(line.abstract()).step == 1


@pytest.mark.slow
def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="file/checkpoints"):
        Checkpoints(tmp_path / "file" / "checkpoints")


@pytest.mark.slow
def test_a_disk_that_refuses_is_named_and_the_older_checkpoint_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a file cut short there would fail every later import
    line = saved_steps(tmp_path, (1,))
    large = {"x": jax.random.normal(jax.random.key(0), (1024, 1024))}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(tmp_path) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, unlimited[1]))
        try:
            with pytest.raises(BadInput, match="the checkpoint of step 2 cannot be written"):
                checkpoints.save(2, large, {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(line.abstract()).step == 1


SAVE_FOR_EVER = """
import sys, jax.numpy as jnp
from sweet_jax.train.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for step in range(1, 10_000):
    checkpoints.save(step, {"x": jnp.full((64, 1024), step)}, {"step": step})
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.013])
def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path, delay):
    process = subprocess.Popen(
        [sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    reported = [int(process.stdout.readline()) for _ in range(4)]
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    whole = jax.ShapeDtypeStruct((64, 1024), jnp.int32, sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    with Checkpoints(tmp_path) as checkpoints:
        found = checkpoints.restore({"x": whole})
    assert found.step >= reported[-1]
    assert found.iterator == {"step": found.step}
    np.testing.assert_array_equal(found.state["x"], np.full((64, 1024), found.step))


@pytest.mark.slow
def test_notes_are_plain_json(tmp_path):
    saved_steps(tmp_path, (1,))
    notes = next((tmp_path / "1" / "notes").iterdir())
    assert json.loads(notes.read_text()) == {"iterator": {"next_index": 1}, "extra": {}}
