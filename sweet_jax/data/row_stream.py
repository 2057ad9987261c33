"""Batches of rows from any source that has them by number: a JSON Lines file, or a dataset of array_record files.

    rows = RowFile("tasks.jsonl", Task)                             # colbench_env.row_file
    rows = TfdsRows(prepare("backend", folder, data_dir), "test")   # colbench_env.tfds
    for batch in row_stream(rows, batch_size=8, seed=0): ...

The rows of a batch are chosen by number alone, so both sources give the same batches for the same seed, and a position
saved with one can be resumed with the other.
"""

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from colbench_env.types import BadInput
from sweet_jax.data.index_stream import IndexStream, once_stream, pair_stream

RowT = TypeVar("RowT")
RowT_co = TypeVar("RowT_co", covariant=True)


@runtime_checkable
class RowSource(Protocol[RowT_co]):
    """Rows by number, from 0. fingerprint: equal for equal rows, whatever they are read from."""

    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> RowT_co: ...


class RowStream(Generic[RowT]):
    """An iterator over batches (lists) of rows; made by `row_stream` and `row_pass`.

    `get_state()` is a JSON object; `set_state` continues after the batches returned before that, also with another
    number of processes.
    """

    def __init__(self, rows: RowSource[RowT], numbers: IndexStream):
        self.rows = rows
        self.numbers = numbers

    def __iter__(self) -> "RowStream[RowT]":
        return self

    def __next__(self) -> list[RowT]:
        return [self.rows[int(number)] for number in next(self.numbers)]

    def get_state(self) -> dict[str, Any]:
        """Return the position in the stream, and the identity of the stream."""
        return {"rows": self.rows.fingerprint, "place": self.numbers.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `get_state()` of a stream of the same rows, batch size, seed and epochs; else BadInput."""
        if state.get("rows") != self.rows.fingerprint:
            raise BadInput(f"the saved place belongs to other rows: {state.get('rows')}, not {self.rows.fingerprint}")
        self.numbers.set_state(state["place"])


def row_stream(
    rows: RowSource[RowT],
    batch_size: int,
    seed: int,
    epochs: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> RowStream[RowT]:
    """Stream full batches for training: a new order each epoch, a process's part of each batch; see `pair_stream`."""
    return RowStream(rows, pair_stream(len(rows), batch_size, seed, epochs, process_index, process_count))


def row_pass(
    rows: RowSource[RowT],
    batch_size: int,
    seed: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> RowStream[RowT]:
    """Stream every row exactly once, shuffled or (without a seed) in their order; see `once_stream`."""
    return RowStream(rows, once_stream(len(rows), batch_size, seed, process_index, process_count))
