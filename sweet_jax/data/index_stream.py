"""The rows of each training step: a shuffled, endless or finite stream of row numbers that resumes exactly."""

from collections.abc import Hashable, Mapping, Sequence

import grain
import numpy as np

from colbench_env.types import BadInput

ENDLESS = 2**40  # row numbers of an endless stream; grain's own endless repeat overflows at batches of one row


def num_batches(num_rows: int, batch_size: int, epochs: int) -> int:
    """Count the batches in which every row is seen `epochs` times."""
    return -(-num_rows * epochs // batch_size)


class IndexStream:
    """An iterator over batches of row numbers, int64 [batch_size / process_count]; made by `pair_stream`.

    `get_state()` is a JSON object with the number of batches already returned and the identity of the stream;
    `set_state` continues from there, also with another number of processes.
    """

    def __init__(self, batches: grain.MapDataset, identity: Mapping[str, int | None]):
        self.identity = dict(identity)
        # No threads and no prefetch: row numbers cost nothing, and the state then is what the caller has seen.
        read_options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._batches = iter(batches.to_iter_dataset(read_options))

    def __iter__(self) -> "IndexStream":
        return self

    def __next__(self) -> np.ndarray:
        return next(self._batches)

    def get_state(self) -> dict[str, int | None]:
        """Return the position in the stream and the identity of the stream; numbers only."""
        return self.identity | {"next_index": int(self._batches.get_state()["next_index"])}

    def set_state(self, state: Mapping[str, int | None]) -> None:
        """Continue from `get_state()` of a stream of the same rows, batch size, seed and epochs; else BadInput."""
        identity = {name: value for name, value in state.items() if name != "next_index"}
        if identity != self.identity or "next_index" not in state:
            raise BadInput(f"the saved place {dict(state)} belongs to another data stream than {self.identity}")
        self._batches.set_state({"next_index": state["next_index"]})


def pair_stream(
    num_rows: int,
    batch_size: int,
    seed: int,
    epochs: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> IndexStream:
    """Stream batches of the numbers 0..num_rows-1 (of rows or pairs), in a new order each epoch, fixed by the seed.

    An epoch's last batch is filled up from the next epoch, so no row is lost and all batches have the same size. With
    `epochs` the stream ends after `num_batches`; without, never. The whole batch does not depend on the number of
    processes: each process gets its own consecutive part of it.
    BadInput: no rows, a batch size below 1, or one that the processes do not divide.
    """
    local = _local_slice(num_rows, batch_size, process_index, process_count)
    rows = grain.MapDataset.range(num_rows).seed(seed).shuffle().repeat(ENDLESS // num_rows + 1)
    batches = rows.batch(batch_size)
    if epochs is not None:
        batches = batches[: num_batches(num_rows, batch_size, epochs)]
    identity = {"num_rows": num_rows, "batch_size": batch_size, "seed": seed, "epochs": epochs}
    return IndexStream(batches.map(lambda batch: np.asarray(batch)[local]), identity)


def once_stream(
    num_rows: int, batch_size: int, seed: int | None = None, process_index: int = 0, process_count: int = 1
) -> IndexStream:
    """Stream batches of the numbers 0..num_rows-1, each exactly once: shuffled by the seed, in order without one.

    The last batch may be short, and a process's part of it shorter than those of the processes before it, or empty.
    BadInput as from `pair_stream`.
    """
    local = _local_slice(num_rows, batch_size, process_index, process_count)
    rows = grain.MapDataset.range(num_rows)
    if seed is not None:
        rows = rows.seed(seed).shuffle()
    batches = rows.batch(batch_size, drop_remainder=False).map(lambda batch: np.asarray(batch)[local])
    return IndexStream(batches, {"num_rows": num_rows, "batch_size": batch_size, "seed": seed, "passes": 1})


def _local_slice(num_rows: int, batch_size: int, process_index: int, process_count: int) -> slice:
    """Cut out a process's part of each batch. BadInput where there are no batches or they cannot be divided."""
    if num_rows < 1 or batch_size < 1:
        raise BadInput(f"{num_rows} rows in batches of {batch_size}: expected at least one row and one row a batch")
    if not 0 <= process_index < process_count:
        raise BadInput(f"process {process_index} of {process_count}: expected a number from 0 to {process_count - 1}")
    if batch_size % process_count:
        raise BadInput(f"a batch of {batch_size} rows cannot be divided evenly among {process_count} processes")
    size = batch_size // process_count
    return slice(process_index * size, (process_index + 1) * size)


def length_batches(
    lengths: Sequence[int], batch_size: int, seed: int, window: int, groups: Sequence[Hashable] | None = None
) -> list[np.ndarray]:
    """Group row numbers into batches of rows of like length, so that little is padded; every row is in at least one.

    lengths: tokens of each row. window: rows are shuffled once and sorted by length within windows of that many
    batches; 1 leaves them shuffled. groups: rows of an equal group stay together (with window 1). The last batch is
    filled up with rows from the beginning.
    """
    order = np.random.default_rng(seed).permutation(len(lengths))
    if groups is not None:  # each group stands where the first of its rows does
        first: dict[Hashable, int] = {}
        places = [first.setdefault(groups[number], place) for place, number in enumerate(order)]
        order = order[np.argsort(places, kind="stable")]
    order = np.concatenate([order, np.resize(order, -len(order) % batch_size)])
    span = window * batch_size
    sizes = np.asarray(lengths)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), span):
        part = order[start : start + span]
        part = part[np.argsort(sizes[part], kind="stable")] if window > 1 else part
        batches += list(part.reshape(-1, batch_size))
    return batches
