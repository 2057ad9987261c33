import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colbench_env.types import BadInput
from sweet_jax.data.index_stream import length_batches, num_batches, pair_stream

sizes = {"num_rows": st.integers(1, 12), "batch_size": st.integers(1, 7), "seed": st.integers(0, 1000)}


def take(stream, count: int) -> list[list[int]]:
    return [next(stream).tolist() for _ in range(count)]


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(**sizes, epochs=st.integers(1, 3))
def test_every_row_is_seen_once_an_epoch_and_all_batches_are_full(num_rows, batch_size, seed, epochs):
    batches = [batch.tolist() for batch in pair_stream(num_rows, batch_size, seed, epochs)]
    seen = sum(batches, [])
    assert len(batches) == num_batches(num_rows, batch_size, epochs)
    assert {len(batch) for batch in batches} == {batch_size}
    for epoch in range(epochs):
        assert sorted(seen[epoch * num_rows : (epoch + 1) * num_rows]) == list(range(num_rows))
    assert len(seen) - epochs * num_rows < batch_size


def test_the_last_batch_of_an_epoch_is_filled_from_the_next_one():
    batches = take(pair_stream(5, 2, seed=3), 5)
    assert sorted([*batches[0], *batches[1], batches[2][0]]) == [0, 1, 2, 3, 4]
    assert sorted([batches[2][1], *batches[3], *batches[4]]) == [0, 1, 2, 3, 4]
    assert [num_batches(5, 2, epochs) for epochs in (1, 2, 3)] == [3, 5, 8]


def test_epochs_differ_and_the_seed_alone_decides_the_order():
    first, second = np.split(np.array(take(pair_stream(50, 10, seed=1), 10)), 2)
    assert first.tolist() != second.tolist()
    assert take(pair_stream(50, 10, seed=1), 10) == np.concatenate([first, second]).tolist()
    assert take(pair_stream(50, 10, seed=2), 5) != first.tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(**sizes, before=st.integers(0, 9), after=st.integers(1, 9))
def test_a_stream_resumed_from_its_saved_state_goes_on_bit_for_bit(num_rows, batch_size, seed, before, after):
    stream = pair_stream(num_rows, batch_size, seed)
    take(stream, before)
    state = json.loads(json.dumps(stream.get_state()))
    expected = take(stream, after)
    resumed = pair_stream(num_rows, batch_size, seed)
    resumed.set_state(state)
    assert take(resumed, after) == expected
    stream.set_state(state)
    assert take(stream, after) == expected


def test_a_finite_stream_resumed_near_its_end_still_ends():
    stream = pair_stream(5, 2, seed=0, epochs=2)
    take(stream, 4)
    resumed = pair_stream(5, 2, seed=0, epochs=2)
    resumed.set_state(stream.get_state())
    assert [batch.tolist() for batch in resumed] == [batch.tolist() for batch in stream]
    assert stream.get_state()["next_index"] == 5


@pytest.mark.slow
def test_processes_share_each_batch_whatever_their_number():
    whole = take(pair_stream(10, 4, seed=5), 6)
    for count in (2, 4):
        shards = [take(pair_stream(10, 4, seed=5, process_index=i, process_count=count), 6) for i in range(count)]
        assert np.concatenate(shards, axis=1).tolist() == whole
    two = pair_stream(10, 4, seed=5, process_index=1, process_count=2)
    one = pair_stream(10, 4, seed=5)
    take(one, 3)
    two.set_state(one.get_state())
    assert take(two, 3) == [batch[2:] for batch in whole[3:]]


def test_a_place_in_another_stream_is_bad_input():
    state = pair_stream(5, 2, seed=0).get_state()
    assert state == {"num_rows": 5, "batch_size": 2, "seed": 0, "epochs": None, "next_index": 0}
    for other in (pair_stream(6, 2, seed=0), pair_stream(5, 1, seed=0), pair_stream(5, 2, seed=1)):
        with pytest.raises(BadInput, match="belongs to another data stream"):
            other.set_state(state)
    with pytest.raises(BadInput, match="belongs to another data stream"):
        pair_stream(5, 2, seed=0).set_state({"num_rows": 5, "batch_size": 2, "seed": 0, "epochs": None})


def test_streams_that_cannot_be_made_are_bad_input():
    with pytest.raises(BadInput, match="0 rows in batches of 2"):
        pair_stream(0, 2, seed=0)
    with pytest.raises(BadInput, match="3 rows in batches of 0"):
        pair_stream(3, 0, seed=0)
    with pytest.raises(BadInput, match="a batch of 4 rows cannot be divided evenly among 3 processes"):
        pair_stream(5, 4, seed=0, process_count=3)


# --- batches of like length ------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    batch_size=st.integers(1, 9),
    seed=st.integers(0, 1000),
    window=st.integers(1, 4),
)
def test_length_batches_are_full_and_hold_every_row(lengths, batch_size, seed, window):
    batches = [batch.tolist() for batch in length_batches(lengths, batch_size, seed, window)]
    seen = sum(batches, [])
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(batches) == num_batches(len(lengths), batch_size, epochs=1)
    assert set(seen) == set(range(len(lengths)))
    if len(lengths) >= batch_size:
        assert max(seen.count(row) for row in seen) <= 2


def test_rows_of_one_window_are_sorted_by_length_into_batches():
    lengths = [50, 10, 40, 20, 60, 30]
    assert [batch.tolist() for batch in length_batches(lengths, 2, seed=0, window=8)] == [[1, 3], [5, 2], [0, 4]]
    # The shuffled order is 3, 2, 5, 4, 0, 1: windows of two batches sort the first four and the last two apart.
    assert [batch.tolist() for batch in length_batches(lengths, 2, seed=0, window=2)] == [[3, 5], [2, 4], [1, 0]]
    assert [batch.tolist() for batch in length_batches(lengths, 2, seed=0, window=1)] == [[3, 2], [5, 4], [0, 1]]


def test_length_batches_leave_far_less_padding_than_shuffled_ones():
    lengths = np.random.default_rng(0).integers(1, 1000, 512)

    def padding(batches):
        return sum(int((lengths[batch].max() - lengths[batch]).sum()) for batch in batches)

    shuffled = np.random.default_rng(1).permutation(512).reshape(-1, 8)
    assert padding(length_batches(lengths.tolist(), 8, seed=0, window=8)) < 0.2 * padding(shuffled)


def test_the_seed_alone_decides_the_length_batches():
    lengths = np.random.default_rng(0).integers(1, 1000, 100).tolist()
    first, again, other = (np.stack(length_batches(lengths, 4, seed, window=3)).tolist() for seed in (1, 1, 2))
    assert first == again != other
