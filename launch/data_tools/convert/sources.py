"""Records of JSON Lines, of Parquet files and of directories of `datasets`, one after another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from colbench_env.tasks import decode_line, scan_lines
from colbench_env.types import BadInput
from launch.data_tools.convert.splits import files_of_directory


@dataclass(frozen=True)
class Record:
    """A record of a file.

    location: FILE:LINE, of Parquet and Arrow FILE:ROW, from 1. value: what stands there, or the BadInput that says why
    it cannot be read. done, total: how far the file is read; total is 0 where nobody knows.
    """

    location: str
    value: object
    done: int
    total: int


def read_records(path: Path, split: str) -> Iterator[Record]:
    """Read the records of a file, or of a split of a directory. Raises BadInput where it cannot be read."""
    if path.is_dir():
        for file in files_of_directory(path, split):
            yield from _table_records(file)
    elif path.suffix == ".parquet":
        yield from _table_records(path)
    else:
        yield from _line_records(path)


def _line_records(path: Path) -> Iterator[Record]:
    size = os.stat(path).st_size if path.is_file() else 0
    for line in scan_lines(path):
        if not line.offset and line.content.lstrip().startswith(b"["):
            raise BadInput(
                f"{path}: the file is a JSON list, expected JSON Lines: jq -c '.[]' makes a line of each entry"
            )
        value: object
        try:
            value = decode_line(line.content, line.location)
        except BadInput as problem:
            value = problem
        yield Record(line.location, value, line.offset + len(line.content), size)


def _table_records(path: Path) -> Iterator[Record]:
    from launch.data_tools.convert.parquet import read_table

    for number, total, row in read_table(path):
        yield Record(f"{path}:{number}", row, number, total)
