"""Files of rows: JSON Lines, UTF-8, one object a line.

A line that cannot be read raises BadInput with `FILE:LINE: what is wrong and what was expected`. Files written here are
never half a file: `write_rows` replaces the whole file at once, `append_rows` adds whole lines or nothing.
"""

import json
import math
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, NoReturn, Protocol, TypeVar

from colbench_env.replace_file import replace_file
from colbench_env.types import (
    BadInput,
    Candidates,
    Pair,
    Ranked,
    Task,
    Trajectory,
    replace_lone_surrogates,
)

RowT = TypeVar("RowT", Task, Trajectory, Pair, Candidates, Ranked)
FoundT = TypeVar("FoundT", covariant=True)

SYNC_SECONDS = 1.0
BOM = b"\xef\xbb\xbf"
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonRow(Protocol):
    """What can be a line of a file: the rows of `colbench_env.types`, or the record of a failed episode."""

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Line:
    """A line of a file. location: FILE:LINE; number: from 1; content: its bytes, a byte order mark left out, with its
    line end; offset: of its first byte in the file."""

    location: str
    number: int
    content: bytes
    offset: int


@dataclass(frozen=True)
class Located(Generic[FoundT]):
    """A row and its place. location: FILE:LINE, as errors name it; line: from 1, blank lines counted as editors do."""

    location: str
    line: int
    row: FoundT


def read_rows(path: str | Path, kind: type[RowT]) -> list[RowT]:
    """All rows of a file, as `kind` (a class of colbench_env.types); never an empty list. Raises BadInput.

    Examples:
        >>> write_rows("tasks.jsonl", [Task("Add one.", "def f(x): return x + 1", {"test1": "f(1)"})])
        >>> [task.ground_truth for task in read_rows("tasks.jsonl", Task)]
        ['def f(x): return x + 1']
    """
    return [found.row for found in read_located_rows(path, kind)]


def read_located_rows(path: str | Path, kind: type[RowT]) -> list[Located[RowT]]:
    """As `read_rows`, each row with its place: what is said of a row later can name the line it came from."""
    rows: list[Located[RowT]] = []
    for found in scan_located_rows(path, kind):
        row = found.row
        if isinstance(row, BadInput):
            raise row
        rows.append(Located(found.location, found.line, row))
    return rows


def scan_rows(path: str | Path, kind: type[RowT]) -> Iterator[RowT | BadInput]:
    """Every row of a file in order, or in its place the BadInput that says what is wrong with it.

    Blank lines, a byte order mark and Windows line ends are allowed. Raises BadInput where there is no row at all.

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("some.jsonl").write_text('{"problem_description": "Add one."}\\n')
        >>> list(scan_rows("some.jsonl", Task))
        [BadInput("some.jsonl:1: 'ground_truth' is missing, expected the reference solution as a string")]
    """
    return (found.row for found in scan_located_rows(path, kind))


def scan_located_rows(path: str | Path, kind: type[RowT]) -> Iterator[Located[RowT | BadInput]]:
    """As `scan_rows`, each row or BadInput with its place."""
    empty = True
    for line in scan_lines(path):
        empty = False
        try:
            found: RowT | BadInput = kind.from_json(decode_line(line.content, line.location), line.location)
        except BadInput as problem:
            found = problem
        yield Located(line.location, line.number, found)
    if empty:
        raise BadInput(f"{path}: the file has no rows, expected one JSON object a line")


def read_complete(path: str | Path, kind: type[RowT]) -> list[RowT]:
    """Read the rows that an interrupted run has left, and leave a file to which more can be appended.

    A last line that was cut off in the middle is removed from the file; without a file the list is empty. Any other
    defect raises BadInput: an interruption does not explain it.
    """
    if not os.path.lexists(path):
        return []
    rows = []
    for line in scan_lines(path):
        try:
            value = decode_line(line.content, line.location)
        except BadInput:
            if line.content.endswith(b"\n") or not line.content.startswith(b"{"):
                raise
            _truncate(path, line.offset)
            break
        rows.append(kind.from_json(value, line.location))
    return rows


def write_rows(path: str | Path, rows: Iterable[JsonRow]) -> None:
    """Replace the file by these rows, all at once: a reader sees the old file or the new one. Raises BadInput."""
    target = Path(path).resolve()  # a link stays a link: what it points to is replaced
    try:
        if target.exists() and not target.is_file():
            raise BadInput(f"{path}: cannot write the file: there is something else of that name")
        with replace_file(target, sync=True) as file:
            for number, row in enumerate(rows, start=1):
                file.write(encode_row(row, f"{path}:{number}"))
    except OSError as problem:
        _fail(path, "write", problem)


def append_rows(path: str | Path, rows: Iterable[JsonRow], sync: bool = True) -> None:
    """Append these rows, on the disk when it returns. Raises BadInput, and then has added none of them.

    sync: False leaves it to the system when they get to the disk: they outlive this process, however it ends, but the
    last ones not a machine that loses its power.

    Examples:
        >>> for name in ("Add one.", "Add two."):
        ...     append_rows("more.jsonl", [Task(name, "def f(x): ...")])
        >>> len(read_complete("more.jsonl", Task))
        2
    """
    block = b"".join(encode_row(row, f"{path}: new row {number}") for number, row in enumerate(rows, start=1))
    if not block:
        return
    try:
        # Unbuffered: after a failed write no buffer is left that closing the file would try to write again.
        with open(path, "ab+", buffering=0) as file:
            _append(file, block, sync)
    except OSError as problem:
        _fail(path, "write", problem)


def _append(file: BinaryIO, block: bytes, sync: bool) -> None:
    end = file.seek(0, os.SEEK_END)
    if end and _last_byte(file, end) != b"\n":
        block = b"\n" + block
    try:
        rest = memoryview(block)
        while rest:
            rest = rest[file.write(rest) :]
        if sync:
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


class SyncTimer:
    """Says when rows that come one by one are brought to the disk: once a second, as each alone costs milliseconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether SYNC_SECONDS have passed since it last was due."""
        if time.monotonic() - self._last < SYNC_SECONDS:
            return False
        self._last = time.monotonic()
        return True


def _last_byte(file: BinaryIO, end: int) -> bytes:
    file.seek(end - 1)
    return file.read(1)


def open_rows(path: str | Path) -> BinaryIO:
    """Open the file to be read; it may be a pipe. Raises BadInput where it cannot be read or is a device, whose
    first line may have no end."""
    try:
        if stat.S_ISCHR(os.stat(path).st_mode):
            raise BadInput(f"{path}: is a device, expected a file")
        return open(path, "rb")
    except OSError as problem:
        _fail(path, "read", problem)


def scan_lines(path: str | Path) -> Iterator[Line]:
    """Every line of a file that is not blank. Raises BadInput where the file cannot be read."""
    offset = 0
    try:
        with open_rows(path) as file:
            for number, content in enumerate(file, start=1):
                if content.removeprefix(BOM).strip():
                    without_mark = content.removeprefix(BOM) if number == 1 else content
                    yield Line(f"{path}:{number}", number, without_mark, offset)
                offset += len(content)
    except OSError as problem:
        _fail(path, "read", problem)


def decode_line(line: bytes, location: str) -> object:
    """Decode the JSON value of a line; lone surrogates in its strings become U+FFFD. Raises BadInput."""
    try:
        value = json.loads(line.rstrip(b" \t\r\n").decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
        return _whole_characters(value) if _SURROGATE_ESCAPE.search(line) else value
    except UnicodeDecodeError as problem:
        raise BadInput(f"{location}: byte {problem.start + 1} is not UTF-8, expected a JSON object in UTF-8") from None
    except json.JSONDecodeError as problem:
        reason = f"{problem.msg.removesuffix(' at')} at column {problem.colno}"
    except (ValueError, RecursionError) as problem:
        reason = str(problem)
    cut = "" if line.endswith(b"\n") else "the last line is cut off or "
    raise BadInput(f"{location}: {cut}invalid JSON ({reason}), expected one JSON object a line")


def holds_half_characters(line: bytes) -> bool:
    """Whether `decode_line`, which can read the line, replaces lone surrogates in it."""
    return bool(_SURROGATE_ESCAPE.search(line)) and json.loads(line) != decode_line(line, "")


def encode_row(row: JsonRow, location: str) -> bytes:
    """Encode the row as a line of a file, line end included. Raises BadInput for values that JSON does not have."""
    # ASCII escapes keep line separators and lone surrogates out of the file.
    try:
        return json.dumps(row.to_json(), allow_nan=False).encode("ascii") + b"\n"
    except (TypeError, ValueError, RecursionError) as problem:
        raise BadInput(f"{location}: the row cannot be written as JSON ({problem})") from None


def _whole_characters(value: object) -> object:
    if isinstance(value, str):
        return replace_lone_surrogates(value)
    if isinstance(value, list):
        return [_whole_characters(entry) for entry in value]
    if isinstance(value, dict):
        whole = {replace_lone_surrogates(key): _whole_characters(entry) for key, entry in value.items()}
        if len(whole) < len(value):
            raise ValueError("two keys of an object differ in half a character only")
        return whole
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _truncate(path: str | Path, size: int) -> None:
    try:
        os.truncate(path, size)
    except OSError as problem:
        _fail(path, "write", problem)


def _fail(path: str | Path, action: str, problem: OSError) -> NoReturn:
    raise BadInput(f"{path}: cannot {action} the file: {problem.strerror or problem}") from problem
