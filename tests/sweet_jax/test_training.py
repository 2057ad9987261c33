"""The training loop: continued runs are the same runs, every row is seen, metrics have each step once."""

import contextlib
import dataclasses
import gc
import itertools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from colbench_env.types import BadInput
from models.config import LlamaConfig
from models.llama import Llama
from models.parameters import init_params, param_shapes
from sweet_jax.data.batch import TokenRow, pad_rows
from sweet_jax.data.index_stream import length_batches
from sweet_jax.losses import MeanMetric
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.train import loop as training
from sweet_jax.train.loop import Interrupted, Reporter, fit, restore_params, rows_in_use, shardings_of
from sweet_jax.train.metrics import Diverged
from sweet_jax.train.objectives import nll_objective
from sweet_jax.train.settings import Training
from sweet_jax.train.step import Objective

ROWS, BATCH = 13, 4
LENGTHS = [1 + n * 5 % 7 for n in range(ROWS)]
# 4 batches an epoch, 8 updates; checkpoints after 3, 6 and 8.
SETTINGS = Training(batch_size=BATCH, epochs=2, save_every=3, length_window=8, learning_rate=0.05)
# An interrupted loop leaves coroutines of orbax unfinished; Python tells when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")


@pytest.fixture(autouse=True)
def collect_unfinished_coroutines():
    yield
    gc.collect()


class Killed(Exception):
    """What stands for a kill in these tests."""


class Line:
    """A least-squares fit with a sharded weight: the smallest stage there is. Remembers the rows it was asked for."""

    def __init__(self, directory, settings=SETTINGS, rows=ROWS, objective=None):
        self.directory, self.settings, self.rows = directory, settings, rows
        self.asked, self.lines, self.warned = [], [], []
        self.mesh = make_mesh(MeshShape(4, 2))
        self.params = {"w": jax.random.normal(jax.random.key(0), (4, 2)), "b": jnp.zeros(2)}
        specs = {"w": PartitionSpec("data", "tensor"), "b": PartitionSpec()}
        self.shapes = {
            name: jax.ShapeDtypeStruct(self.params[name].shape, jnp.float32, sharding=NamedSharding(self.mesh, spec))
            for name, spec in specs.items()
        }
        self.objective = objective or Objective(lambda batch: jnp.float32(batch["x"].shape[0]), self.loss)
        self.data = np.random.default_rng(1).normal(size=(ROWS, 4)).astype(np.float32)

    @staticmethod
    def loss(params, batch, count):
        error = jnp.square(batch["x"] @ params["w"] + params["b"] - batch["y"]).sum()
        return error / count, {"error": MeanMetric(error, count)}

    def make_batch(self, indices, longest):
        self.asked += indices.tolist()
        return self.batch(indices)

    def batch(self, indices):
        x_bd = self.data[indices]
        return {"x": x_bd, "y": np.stack([x_bd[:, 0], x_bd.sum(axis=1)], axis=1)}

    def fit(self, seed=0, kill_at=None, stop_at=None):
        def progress(done, total, line, values):
            self.lines.append((done, total, line))
            if done == kill_at:
                raise Killed

        def finishing():
            update = itertools.count(1)  # asked once an update
            return contextlib.nullcontext(lambda: next(update) == stop_at)

        return fit(
            "line",
            shapes=self.shapes,
            first=lambda: self.params,
            mesh=self.mesh,
            objective=self.objective,
            lengths=LENGTHS[: self.rows],
            make_batch=self.make_batch,
            settings=self.settings,
            seed=seed,
            directory=self.directory,
            reporter=Reporter(progress, self.warned.append, finishing),
        )

    def steps(self):
        return [json.loads(line)["step"] for line in (self.directory / "metrics.jsonl").read_text().splitlines()]


def assert_same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(found), jax.device_get(expected))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that was never interrupted, and its parameters."""
    line = Line(tmp_path_factory.mktemp("straight"))
    return line, line.fit()


# --- continued runs --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kills", [[3], [1, 4, 8], [2, 5, 7]])  # before, at and after checkpoints, at the end
def test_a_loop_killed_and_continued_has_the_same_bits_and_each_step_once(tmp_path, straight, kills):
    expected_line, expected = straight
    line = Line(tmp_path)
    for kill_at in kills:
        with pytest.raises(Killed):
            line.fit(kill_at=kill_at)
    assert_same_bits(line.fit(), expected)
    assert line.steps() == list(range(1, 9))
    rows = [(folder / "metrics.jsonl").read_text() for folder in (tmp_path, expected_line.directory)]
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [1, 3, 7])  # at a checkpoint and between two
def test_a_loop_that_is_asked_to_end_saves_the_update_under_way_and_goes_on_to_the_same_bits(
    tmp_path, straight, stop_at
):
    line = Line(tmp_path, dataclasses.replace(SETTINGS, log_every=3))
    with pytest.raises(Interrupted, match=f"^after step {stop_at} of stage line$"):
        line.fit(stop_at=stop_at)
    assert (tmp_path / "checkpoints" / str(stop_at)).is_dir()
    assert len(line.asked) == stop_at * BATCH
    line.asked.clear()
    assert_same_bits(line.fit(), straight[1])
    assert line.asked == straight[0].asked[stop_at * BATCH :]
    assert line.steps() == [3, 6, 8]  # the metrics are those of a loop that nobody stopped


@pytest.mark.slow
def test_a_loop_that_is_asked_to_end_at_its_last_update_has_ended(tmp_path, straight):
    assert_same_bits(Line(tmp_path).fit(stop_at=8), straight[1])


@pytest.mark.slow
def test_several_processes_agree_at_logged_updates_on_the_step_that_all_of_them_save(tmp_path, monkeypatch):
    gathered = []

    def gather(asked):
        gathered.append(asked)
        return [asked, len(gathered) == 2]  # the other process is asked to end between the updates 3 and 6

    monkeypatch.setattr(training, "processes", SimpleNamespace(count=lambda: 2, gather=gather))
    with pytest.raises(Interrupted, match="^after step 6 of stage line$"):
        Line(tmp_path, dataclasses.replace(SETTINGS, save_every=100, log_every=3)).fit()
    assert gathered == [False, False]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir()] == ["6"]


@pytest.mark.slow
def test_a_continued_loop_says_where_it_goes_on_and_takes_the_rows_that_follow(tmp_path, straight):
    line = Line(tmp_path)
    with pytest.raises(Killed):
        line.fit(kill_at=5)
    assert line.asked == straight[0].asked[: 5 * BATCH]
    line.asked.clear()
    line.lines.clear()
    line.fit()
    assert line.lines[0] == (3, 8, "stage=line continues after step 3/8")
    assert [done for done, _, _ in line.lines[1:]] == [4, 5, 6, 7, 8]
    assert line.asked == straight[0].asked[3 * BATCH :]


@pytest.mark.slow
def test_a_finished_loop_started_again_gives_its_parameters_and_computes_nothing(tmp_path, straight):
    line = Line(tmp_path)
    first = line.fit()
    line.asked.clear()
    assert_same_bits(line.fit(), first)
    assert line.asked == []
    assert line.steps() == list(range(1, 9))


@pytest.mark.slow
def test_a_network_killed_and_continued_has_the_same_bits(tmp_path):
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2, num_kv_heads=2, head_size=8,
        max_position_embeddings=32, tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    mesh = make_mesh(MeshShape(1, 1))
    random = np.random.default_rng(0)
    lengths = [4, 9, 5, 8, 7, 6, 9, 4]
    rows = [TokenRow(random.integers(0, 40, n).astype(np.int32), np.ones(n, np.int32)) for n in lengths]

    def trained(directory, kill_at=None):
        def progress(done, total, line, values):
            if done == kill_at:
                raise Killed

        return fit(
            "start",
            shapes=param_shapes(config, mesh),
            first=lambda: init_params(config, jax.random.key(0), mesh),
            mesh=mesh,
            objective=nll_objective(Llama(config, mesh, remat="none", scan=False)),
            lengths=lengths,
            make_batch=lambda at, longest: pad_rows([rows[index] for index in at], 9, pad_id=0),
            settings=Training(batch_size=4, epochs=2, save_every=2, learning_rate=1e-2),
            seed=0,
            directory=directory,
            reporter=Reporter(progress),
        )

    with pytest.raises(Killed):
        trained(tmp_path / "killed", kill_at=3)
    assert_same_bits(trained(tmp_path / "killed"), trained(tmp_path / "straight"))


# --- one run ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_row_is_trained_on_in_every_epoch_in_batches_of_like_length(straight):
    line, _ = straight
    epochs = np.array(line.asked).reshape(2, 4, BATCH)
    expected = sorted(batch.tolist() for batch in length_batches(LENGTHS, BATCH, seed=0, window=8))
    for epoch in epochs:
        assert sorted(epoch.tolist()) == expected
        assert set(epoch.ravel().tolist()) == set(range(ROWS))
    assert epochs[0].tolist() != epochs[1].tolist()  # in another order
    spread = [int(np.ptp(np.array(LENGTHS)[batch])) for batch in epochs[0]]
    assert max(spread) <= 2 < int(np.ptp(LENGTHS))


@pytest.mark.slow
def test_the_parameters_move_lie_on_their_shardings_and_the_given_ones_stay(straight):
    line, found = straight
    assert_same_bits(line.params, {"w": jax.random.normal(jax.random.key(0), (4, 2)), "b": jnp.zeros(2)})
    assert float(jnp.abs(found["w"] - line.params["w"]).max()) > 0.05
    assert {name: value.sharding for name, value in found.items()} == shardings_of(line.shapes)
    whole = line.batch(np.arange(ROWS))
    assert Line.loss(found, whole, ROWS)[0] < 0.9 * Line.loss(line.params, whole, ROWS)[0]


@pytest.mark.slow
def test_metrics_have_the_loss_the_gradient_and_the_rate_of_every_step(straight):
    line, _ = straight
    rows = [json.loads(row) for row in (line.directory / "metrics.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"stage", "step", "total", "loss", "error", "grad_norm", "lr"}
    assert (rows[0]["stage"], rows[0]["total"], rows[0]["lr"]) == ("line", 8, pytest.approx(0.05))
    assert rows[-1]["lr"] == pytest.approx(0.005)
    assert line.warned == []


@pytest.mark.slow
def test_another_seed_takes_the_rows_in_another_order(tmp_path, straight):
    line = Line(tmp_path, settings=Training(batch_size=BATCH, max_steps=2))
    line.fit(seed=1)
    assert line.asked != straight[0].asked[: 2 * BATCH]


@pytest.mark.slow
def test_only_every_log_step_and_the_last_are_told(tmp_path):
    line = Line(tmp_path, settings=Training(batch_size=BATCH, epochs=2, log_every=3, max_steps=7))
    line.fit()
    assert line.steps() == [done for done, _, _ in line.lines] == [3, 6, 7]
    assert line.lines[-1][2].startswith("stage=line step=7/7 loss=")


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_loop(tmp_path):
    def loss(params, batch, count):
        bad = Line.loss(params, batch, count)[0] * jnp.nan
        return bad, {"error": MeanMetric(bad, count)}

    line = Line(tmp_path, objective=Objective(lambda batch: jnp.float32(BATCH), loss))
    with pytest.raises(Diverged, match="at step 1 of 8"):
        line.fit()
    assert len(line.asked) == BATCH


# --- finished stages -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_parameters_of_a_finished_stage_are_restored_and_those_of_others_refused(tmp_path):
    line = Line(tmp_path)
    with pytest.raises(BadInput, match="expected a checkpoint of step 8, found none"):
        restore_params(tmp_path, line.shapes, SETTINGS, ROWS)
    with pytest.raises(Killed):
        line.fit(kill_at=5)
    with pytest.raises(BadInput, match="expected a checkpoint of step 8, found step 3"):
        restore_params(tmp_path, line.shapes, SETTINGS, ROWS)
    expected = line.fit()
    assert_same_bits(restore_params(tmp_path, line.shapes, SETTINGS, ROWS), expected)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "settings", "steps"),
    [
        (13, {"batch_size": 4}, 4),
        (12, {"batch_size": 4}, 3),
        (13, {"batch_size": 4, "epochs": 3}, 12),
        (13, {"batch_size": 4, "epochs": 3, "max_steps": 5}, 5),
        (13, {"batch_size": 4, "max_steps": 50}, 4),
        (3, {"batch_size": 8}, 1),
    ],
)
def test_updates_are_whole_epochs_of_batches_up_to_the_limit(rows, settings, steps):
    assert Training(**settings).steps(rows) == steps


COUNTS = ("batch_size", "micro_batches", "epochs", "max_length", "log_every", "save_every", "length_window")


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -2])
def test_counts_below_one_are_bad_input(name, value):
    with pytest.raises(BadInput, match=f"{name} is {value}, it must be at least 1"):
        Training(**{name: value})


@pytest.mark.slow
def test_other_settings_that_cannot_be_honoured_are_bad_input():
    with pytest.raises(BadInput, match="max_steps is -1, it must not be negative"):
        Training(max_steps=-1)
    with pytest.raises(Exception, match="'right'"):  # of the type checker in tests, BadInput without it
        Training(truncation="right")


@pytest.mark.slow
def test_no_rows_or_batches_that_do_not_divide_are_bad_input_before_anything_is_computed(tmp_path):
    with pytest.raises(BadInput, match="stage line: there are no rows to train on"):
        Line(tmp_path, rows=0).fit()
    line = Line(tmp_path, settings=Training(batch_size=6, micro_batches=2))
    with pytest.raises(BadInput, match="a batch of 6 cannot be divided into 2 micro-batches over a data axis of 4"):
        line.fit()
    assert line.asked == [] and list(tmp_path.iterdir()) == []


def test_rows_in_use_are_those_whose_batches_are_asked_for():
    lengths, seen = [3] * 50, []
    for steps, epochs in ((0, 1), (3, 1), (3, 9)):
        settings = Training(batch_size=4, epochs=epochs, max_steps=steps)
        used = rows_in_use(lengths, settings, seed=5)
        assert used == sorted(set(used)) and len(used) == (12 if steps else 50)
        seen.append(used)
    assert seen[1] == seen[2]
    assert rows_in_use(lengths, Training(batch_size=4, max_steps=3), seed=6) != seen[1]
