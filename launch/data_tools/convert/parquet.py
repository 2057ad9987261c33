"""JSON objects as Parquet and Arrow, and back.

A column of which every value has one plain type gets that type, lists of plain messages too; any other column holds
JSON, as Arrow's type `arrow.json` (`datasets.Json`). A key that an object has not is null. So what is read is what was
written, to the last null; of files that others wrote, nulls in columns and structs are keys that are missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from colbench_env.tasks import decode_line
from colbench_env.types import BadInput

BATCH = 256  # rows in memory, and in a row group
MESSAGE_KEYS = (("role", "content"), ("from", "value"))


class Columns:
    """The type of each column of JSON objects that are seen one after another."""

    def __init__(self) -> None:
        self._found: dict[str, set[str]] = {}

    def see(self, row: Mapping[str, Any]) -> None:
        """Take note of an object."""
        for name, value in row.items():
            self._found.setdefault(name, set()).add(_type_name(value))

    @property
    def schema(self) -> pa.Schema:
        """The schema of what was seen."""
        return pa.schema([(name, _PLAIN[_common(found)]) for name, found in self._found.items()])


def write_parquet(lines: Iterable[bytes], schema: pa.Schema, file: BinaryIO) -> None:
    """Write JSON objects, one a line, of which `Columns` has seen every one."""
    decoded = map(json.loads, lines)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := list(islice(decoded, BATCH)):
            arrays = [pa.array([_stored(row, column) for row in rows], _storage(column.type)) for column in schema]
            cast = [
                pa.ExtensionArray.from_storage(column.type, array) if isinstance(column.type, pa.JsonType) else array
                for column, array in zip(schema, arrays, strict=True)
            ]
            writer.write_batch(pa.record_batch(cast, schema=schema))


def read_table(path: Path) -> Iterator[tuple[int, int, dict[str, Any] | BadInput]]:
    """Read a Parquet file, or one of Arrow's streams: (number of the row from 1, rows of the file or 0, row).

    A row that JSON cannot hold is the BadInput that says so. Raises BadInput for a file that cannot be read.
    """
    number = 0
    try:
        total, batches = _batches(path)
        for batch in batches:
            fields = list(batch.schema)
            columns = [column.to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                number += 1
                yield number, total, _row(fields, values, f"{path}:{number}")
    except OSError as problem:
        raise BadInput(f"{path}: cannot read the file: {problem.strerror or problem}") from None
    except (pa.ArrowException, ValueError, OverflowError) as problem:  # Python has no value for one of Arrow's
        if isinstance(problem, BadInput):
            raise
        reason = str(problem).splitlines()[0]
        raise BadInput(f"{path}: cannot be read ({reason}), expected a Parquet file or Arrow's stream") from None


def _batches(path: Path) -> tuple[int, Iterator[pa.RecordBatch]]:
    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        return file.metadata.num_rows, file.iter_batches(batch_size=BATCH)
    return 0, iter(pa.ipc.open_stream(pa.memory_map(str(path))))


def _row(fields: list[pa.Field], values: tuple[Any, ...], location: str) -> dict[str, Any] | BadInput:
    try:
        return {
            column.name: _json_value(value, column.type, f"{location}: column {column.name!r}")
            for column, value in zip(fields, values, strict=True)
            if value is not None
        }
    except BadInput as problem:
        return problem


def _json_value(value: Any, kind: pa.DataType, place: str) -> Any:
    if value is None:
        return None
    if isinstance(kind, pa.JsonType):
        return decode_line(value.encode() + b"\n", place)
    if isinstance(kind, pa.BaseExtensionType):
        return _json_value(value, kind.storage_type, place)
    if pa.types.is_dictionary(kind):
        return _json_value(value, kind.value_type, place)
    if pa.types.is_struct(kind):
        return {
            child.name: _json_value(value[child.name], child.type, place)
            for child in kind
            if value[child.name] is not None
        }
    if pa.types.is_map(kind):
        return {str(key): _json_value(entry, kind.item_type, place) for key, entry in value}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [_json_value(entry, kind.value_type, place) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{place} holds {value}, which is no JSON number")
    if not isinstance(value, str | bool | int | float):
        raise BadInput(f"{place} is of type {kind}, expected text, numbers, truth values, lists or objects")
    return value


_JSON = pa.json_()
_PLAIN: dict[str, pa.DataType] = {
    "text": pa.string(),
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "json": _JSON,
} | {
    " and ".join(keys): pa.list_(pa.struct([(key, pa.string()) for key in keys])) for keys in MESSAGE_KEYS
}  # fmt: skip


def _type_name(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case str():
            return "text"
        case int():
            return "int" if abs(value) <= 2**53 else "json"
        case float():
            return "float"
        case [_, *_]:
            for keys in MESSAGE_KEYS:
                if all(_is_message(entry, keys) for entry in value):
                    return " and ".join(keys)
    return "json"


def _is_message(value: Any, keys: tuple[str, str]) -> bool:
    return (
        isinstance(value, dict) and value.keys() == set(keys) and all(isinstance(text, str) for text in value.values())
    )


def _common(found: set[str]) -> str:
    if found == {"int", "float"}:
        return "float"
    return next(iter(found)) if len(found) == 1 else "json"


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _stored(row: Mapping[str, Any], column: pa.Field) -> Any:
    if column.name not in row:
        return None
    value = row[column.name]
    return json.dumps(value) if isinstance(column.type, pa.JsonType) else value
