"""Batches of rows out of files and datasets: the same for the same seed, each row where it belongs, resumed exactly."""

import json
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colbench_env.row_file import RowFile
from colbench_env.tasks import write_rows
from colbench_env.tfds import TfdsRows, prepare
from colbench_env.types import BadInput, Pair, Task, Trajectory
from sweet_jax.data.index_stream import once_stream
from sweet_jax.data.row_stream import row_pass, row_stream

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
ROWS = [Task(f"Task {number}.", "x = 1", {"t": "x"}) for number in range(11)]


class Numbered:
    """A source of the rows 0, 10, 20, ..."""

    def __init__(self, count, fingerprint="f"):
        self.count, self.fingerprint = count, fingerprint

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return 10 * number


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same rows as a file and as a dataset."""
    tfds.disable_progress_bar()
    folder = tmp_path_factory.mktemp("rows")
    write_rows(folder / "rows.jsonl", ROWS)
    return (
        RowFile(folder / "rows.jsonl", Task),
        TfdsRows(prepare("backend", {"train": folder / "rows.jsonl"}, folder), "train"),
    )


def test_a_file_and_a_dataset_give_the_same_batches_for_the_same_seed(sources):
    file, dataset = sources
    for stream in (lambda rows, seed: row_stream(rows, 4, seed, epochs=2), lambda rows, seed: row_pass(rows, 4, seed)):
        batches = list(stream(file, 3))
        assert batches == list(stream(dataset, 3))
        assert batches != list(stream(file, 4))
        assert {row.problem_description for batch in batches for row in batch} == {f"Task {n}." for n in range(11)}


def test_a_place_saved_with_a_file_is_gone_on_from_with_the_dataset(sources):
    file, dataset = sources
    stream = row_pass(file, 2, seed=1)
    seen = [next(stream) for _ in range(3)]
    state = json.loads(json.dumps(stream.get_state()))
    resumed = row_pass(dataset, 2, seed=1)
    resumed.set_state(state)
    rest = list(resumed)
    assert rest == list(stream)
    assert sorted(row.problem_description for batch in seen + rest for row in batch) == sorted(
        row.problem_description for row in ROWS
    )


def test_without_a_seed_a_pass_is_in_the_order_of_the_rows():
    assert list(row_pass(Numbered(5), 2)) == [[0, 10], [20, 30], [40]]


@pytest.mark.slow
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    count=st.integers(1, 20),
    share=st.integers(1, 3),
    processes=st.integers(1, 3),
    seed=st.none() | st.integers(0, 99),
    before=st.integers(0, 5),
)
def test_a_pass_gives_every_row_once_over_all_processes_also_when_resumed(count, share, processes, seed, before):
    def passes():
        return [row_pass(Numbered(count), share * processes, seed, index, processes) for index in range(processes)]

    seen, states = [], []
    for stream in passes():
        seen += [row for _, batch in zip(range(before), stream, strict=False) for row in batch]
        states.append(json.loads(json.dumps(stream.get_state())))
    for stream, state in zip(passes(), states, strict=True):
        stream.set_state(state)
        seen += [row for batch in stream for row in batch]
    assert sorted(seen) == [10 * number for number in range(count)]


def test_all_processes_give_as_many_batches():
    shares = [[batch.tolist() for batch in once_stream(5, 4, None, index, 2)] for index in range(2)]
    assert shares == [[[0, 1], [4]], [[2, 3], []]]


def test_training_batches_are_full_and_a_process_has_its_share_of_each():
    whole = list(row_stream(Numbered(5), 2, seed=3, epochs=1))
    shares = [list(row_stream(Numbered(5), 2, seed=3, epochs=1, process_index=i, process_count=2)) for i in range(2)]
    assert [len(batch) for batch in whole] == [2, 2, 2]
    assert {row for batch in whole for row in batch} == {0, 10, 20, 30, 40}
    assert [one + other for one, other in zip(*shares, strict=True)] == whole


def test_a_place_in_other_rows_or_another_stream_is_bad_input():
    state = row_pass(Numbered(5), 2, seed=0).get_state()
    assert state == {"rows": "f", "place": {"num_rows": 5, "batch_size": 2, "seed": 0, "passes": 1, "next_index": 0}}
    with pytest.raises(BadInput, match="the saved place belongs to other rows: f, not g"):
        row_pass(Numbered(5, "g"), 2, seed=0).set_state(state)
    for other in (row_pass(Numbered(5), 2, seed=1), row_pass(Numbered(5), 2), row_stream(Numbered(5), 2, seed=0)):
        with pytest.raises(BadInput, match="belongs to another data stream"):
            other.set_state(state)


def test_streams_that_cannot_be_made_are_bad_input():
    with pytest.raises(BadInput, match="5 rows in batches of 0"):
        row_pass(Numbered(5), 0)
    with pytest.raises(BadInput, match="a batch of 4 rows cannot be divided evenly among 3 processes"):
        row_pass(Numbered(5), 4, process_count=3)
    for index, count in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(BadInput, match=f"process {index} of {count}: expected a number from 0 to {count - 1}"):
            row_stream(Numbered(5), 4, 0, process_index=index, process_count=count)


def test_a_defective_row_is_named_when_its_batch_comes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"chosen": "a", "rejected": "b"}\n{"chosen": "a"}\n')
    stream = row_pass(RowFile(path, Pair), 1)
    assert next(stream) == [Pair("a", "b")]
    with pytest.raises(BadInput, match=r"rows\.jsonl:2: 'rejected' is missing"):
        next(stream)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("colbench/backend_test_800.jsonl", Task),
        ("colbench/frontend_test_800.jsonl", Task),
        ("trajectories/qwen3_4b_40.jsonl", Trajectory),
    ],
)
def test_the_real_rows_pass_once_in_two_processes(name, kind):
    if not (SHARED / name).exists():
        pytest.skip(f"../shared/data/{name} is not beside this checkout")
    rows = RowFile(SHARED / name, kind)
    seen = [row for index in range(2) for batch in row_pass(rows, 6, 0, index, 2) for row in batch]
    assert sorted(map(repr, seen)) == sorted(map(repr, rows))
