"""The path of `launch.data convert` through a file: each record is read, converted, checked and written, or none is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colbench_env.json_fields import read_object
from colbench_env.replace_file import replace_file
from colbench_env.tasks import encode_row
from colbench_env.types import BadInput
from launch.common.console import Console
from launch.common.files import check_model_directory, check_writable
from launch.data_tools.config import ConvertConfig, Kind
from launch.data_tools.convert.formats import FORMATS
from launch.data_tools.convert.place import Place
from launch.data_tools.convert.sources import Record, read_records
from launch.data_tools.convert.splits import DEFAULT_SPLIT, parquet_files
from launch.data_tools.row_kinds import CLASSES, kind_of, read_row

Write = Callable[[dict[str, Any], str], None]


class WrongKind(BadInput):
    """The file holds rows of a kind that the format does not: no record of it can be converted."""


def convert_file(config: ConvertConfig, console: Console) -> str:
    """Convert a file and return a line that says what was written.

    Each defective record is named on the console. Raises BadInput for a file that cannot be read, has no records or
    holds what the other format does not, and for defective records unless they are to be left out. Then nothing is
    written.
    """
    converter = Converter(config)
    target = _target(config)
    written = defective = 0
    with _writer(target, folder=config.output if target != config.output else None) as write:
        for record in read_records(config.file, config.split):
            try:
                write(converter.convert(record), record.location)
                written += 1
            except WrongKind:
                raise
            except BadInput as problem:
                defective += 1
                console.end_progress()
                console.say(str(problem))
            if record.total:
                console.progress("converting", record.done, record.total)
        console.end_progress()
        _check_result(config, written, defective)
    rows = f"{written} {'row' if written == 1 else 'rows'} ({converter.kind})"
    left_out = f"; {defective} defective, named above and left out" if defective else ""
    return f"{target}: {rows}, {config.source} to {config.to}{left_out}"


class Converter:
    """Converts records of a file, one after another. kind: of its rows, once it is known."""

    def __init__(self, config: ConvertConfig):
        self.kind: Kind | None = None
        self._config = config
        self._chat = None
        if config.model is not None:
            from sweet_jax.data.chat import Chat

            check_model_directory(config.model)
            self._chat = Chat.load(config.model)
        if config.kind is not None:
            self._take(config.kind)

    def convert(self, record: Record) -> dict[str, Any]:
        """Convert a record. Raises BadInput, and WrongKind where no other record is worth a try."""
        config, location, place = self._config, record.location, Place(record.location, self._chat)
        if isinstance(record.value, BadInput):
            raise record.value
        value = read_object(record.value, location)
        row = value if config.source == "rows" else FORMATS[config.source].read(value, place)
        if self.kind is None and (kind := kind_of(row)) is not None:
            self._take(kind)
        if self.kind is None:
            read_row(row, None, location)
            raise AssertionError("a row of no kind is refused")
        CLASSES[self.kind].from_json(row, location)
        return row if config.to == "rows" else FORMATS[config.to].write(row, place)

    def _take(self, kind: Kind) -> None:
        config = self._config
        for name in (config.source, config.to):
            if name != "rows" and kind not in FORMATS[name].kinds:
                holds = " and ".join(FORMATS[name].kinds)
                raise WrongKind(f"{config.file}: {name} holds {holds}, and these rows are of the kind {kind}")
        self.kind = kind


@dataclass(frozen=True)
class JsonObject:
    """A JSON object as a line of a file."""

    value: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the object."""
        return self.value


def _target(config: ConvertConfig) -> Path:
    """Return the file that is written: --output, or that of a split in the directory which it names."""
    output = config.output
    try:
        if output.suffix:
            check_writable(output)
            return output
        if output.exists() and not output.is_dir():
            raise BadInput(f"--output={output}: is no directory, which a name without an ending means")
        split = config.split or DEFAULT_SPLIT
        if split in parquet_files(output):
            raise BadInput(f"--output={output}: has a split {split!r} already; nothing is overwritten")
        return output / "data" / f"{split}-00000-of-00001.parquet"  # where `datasets` takes any name for a split
    except OSError as problem:
        raise BadInput(f"--output={output}: cannot be written: {problem.strerror or problem}") from None


@contextlib.contextmanager
def _writer(target: Path, folder: Path | None) -> Iterator[Write]:
    """Give a function that writes an object, of which a sentence names the location; the file is whole or not there."""
    made = [] if folder is None else [one for one in (target.parent, folder) if not one.exists()]
    try:
        for one in reversed(made):
            one.mkdir()
        with _parquet_lines(target) if target.suffix == ".parquet" else _json_lines(target) as write:
            yield write
    except OSError as problem:
        raise BadInput(f"{target}: cannot write the file: {problem.strerror or problem}") from problem
    finally:
        with contextlib.suppress(OSError):  # with the file in it, it stays
            for one in made:
                one.rmdir()


@contextlib.contextmanager
def _json_lines(target: Path) -> Iterator[Write]:
    with replace_file(target.resolve(), sync=True) as file:  # a link stays a link
        yield lambda row, location: _write_line(file, row, location)


@contextlib.contextmanager
def _parquet_lines(target: Path) -> Iterator[Write]:
    """Keep lines on the disk until all are seen: only then the types of the columns are known."""
    from launch.data_tools.convert.parquet import Columns, write_parquet

    columns = Columns()
    with tempfile.TemporaryFile(dir=target.parent) as lines:

        def write(row: dict[str, Any], location: str) -> None:
            _write_line(lines, row, location)
            columns.see(row)

        yield write
        lines.seek(0)
        with replace_file(target.resolve(), sync=True) as file:
            write_parquet(lines, columns.schema, file)


def _write_line(file: Any, row: dict[str, Any], location: str) -> None:
    file.write(encode_row(JsonObject(row), location))


def _check_result(config: ConvertConfig, written: int, defective: int) -> None:
    if not written and not defective:
        raise BadInput(f"{config.file}: the file has no rows, expected some")
    if defective and not (config.skip_defective and written):
        count = f"{defective} of {written + defective} rows are" if written else "all rows are"
        hint = "; --skip-defective leaves them out" if written else ""
        raise BadInput(f"{config.file}: {count} defective, so nothing is written{hint}")
