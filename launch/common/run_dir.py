"""A run directory: one configuration, one subfolder a stage, and a note in each finished stage.

Everything that reads or writes one finds its files here. Of several processes process 0 writes, and what is there is
what process 0 sees.
"""

from __future__ import annotations

import contextlib
import errno
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import cattrs

from colbench_env import tasks
from colbench_env.locking import locked
from colbench_env.tasks import RowT
from colbench_env.types import BadInput, Row
from launch.common.files import read_object, write_json, write_text
from launch.common.old_names import current_settings
from launch.common.settings import start_model
from sweet_jax import processes

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # errors of an open file that do not name it
TURNS_FILE = "turns.jsonl"  # of stage truth: kinds and values of the candidates in each ranked position
ROW_FILES = {
    "rollouts": "trajectories.jsonl",
    "grading": "trajectories.jsonl",
    "pairs": "trajectory_pairs.jsonl",
    "candidates": "candidates.jsonl",
    "ranking": "ranked.jsonl",
    "truth": "continuations.jsonl",
    "turn-pairs": "pairs.jsonl",
}
"""Stage -> the file of the rows that it writes."""

SettingsT = TypeVar("SettingsT")
_SETTINGS = cattrs.Converter(forbid_extra_keys=True)


class RunDir:
    """The directory of a run. `open` it with the settings of the run; a second process on it is refused."""

    def __init__(self, path: Path):
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        """The settings of the run, as JSON."""
        return self.path / "config.json"

    @property
    def log_file(self) -> Path:
        """What the console has shown, of all starts."""
        return self.path / "log.txt"

    def rows_file(self, stage: str) -> Path:
        """Return the file of the rows that a stage writes."""
        return self.path / stage / ROW_FILES[stage]

    def note_file(self, stage: str) -> Path:
        """Return the file that a stage writes when it has finished."""
        return self.path / stage / "done.json"

    def metrics_file(self, stage: str) -> Path:
        """Return the file of the metrics of a stage that trains."""
        return self.path / stage / "metrics.jsonl"

    def evaluation_file(self, policy: str) -> Path:
        """Return the file of a policy's graded held-out dialogues."""
        return self.path / "evaluation" / f"{policy}.jsonl"

    def read_config(self) -> dict[str, Any]:
        """Read the settings, under their names of today; {} where there are none. Raises BadInput."""
        return current_settings(read_object(self.config_file))

    def read_settings(self, part: str, kind: type[SettingsT]) -> SettingsT:
        """Read one block of the settings as a dataclass; what is missing has its default. Raises BadInput."""
        try:
            return _SETTINGS.structure(self.read_config()[part], kind)
        except (KeyError, TypeError, cattrs.BaseValidationError) as error:
            reasons = cattrs.transform_error(error) if isinstance(error, cattrs.BaseValidationError) else [str(error)]
            text = "; ".join(reasons)
            raise BadInput(f"{self.config_file}: the settings of {part!r} cannot be read: {text}") from error

    def start_model(self) -> Path | None:
        """Return the directory of the model that the run started with, None where its settings name none."""
        named = self.read_config().get("model")
        return start_model(named, self.path) if isinstance(named, str) else None

    @contextlib.contextmanager
    def open(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Make the directory, or check that it belongs to these settings, and hold its lock inside the block.

        Raises BadInput that names the settings that differ; where the directory is in use; where it cannot be
        written, also later; and where the processes have other settings or do not share the directory.
        """
        wanted = json.loads(json.dumps(settings))
        check_same(wanted)
        with contextlib.ExitStack() as held:
            lock = locked(
                self.path / ".lock",
                f"{self.path}: the run directory",
                f"{self.path}: another process is working in this run directory",
            )

            def take() -> None:
                held.enter_context(lock)
                self._check(wanted)

            processes.broadcast_from_process_0(take)
            # A text that no earlier start can have written.
            processes.publish(self.path / ".hosts", lambda: self._write_hosts())
            try:
                yield
            except OSError as error:
                if error.filename is not None or error.errno not in DISK_ERRORS:
                    raise
                raise BadInput(f"{self.path}: a file of the run cannot be written: {error.strerror}") from error

    def _write_hosts(self) -> None:
        if processes.count() > 1:
            write_text(
                self.path / ".hosts", f"{processes.count()} processes, {processes.name()}, {secrets.token_hex(16)}\n"
            )

    def _check(self, wanted: Mapping[str, Any]) -> None:
        path = self.config_file
        if not path.exists() or not self.begun():
            write_json(path, wanted)
            return
        try:
            found = current_settings(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, AttributeError) as error:
            raise BadInput(f"{path}: the run's configuration cannot be read: {error}") from error
        differing = [f"{name} is {was!r} there and {now!r} here" for name, was, now in _differences(found, wanted)]
        if differing:
            shown = "; ".join(differing[:4]) + (f"; and {len(differing) - 4} more" if len(differing) > 4 else "")
            raise BadInput(f"{self.path} is the run directory of another configuration: {shown}. Use another --run-dir")

    def begun(self) -> bool:
        """Say whether a stage has left anything: until then a run that ended with a mistyped flag binds nobody."""
        return any(any(folder.iterdir()) for folder in self.path.iterdir() if folder.is_dir())

    def stage(self, name: str) -> Path:
        """Return the folder of a stage; make it if need be."""
        folder = self.path / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise BadInput(f"{folder}: cannot be made: {error.strerror}") from error
        return folder

    def note(self, name: str) -> dict[str, Any] | None:
        """Return the note of a finished stage, None where it has not finished. Every process has to call this."""
        return processes.broadcast_from_process_0(lambda: self._read_note(self.note_file(name)))

    def _read_note(self, path: Path) -> dict[str, Any] | None:
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        except ValueError as error:
            raise BadInput(f"{path}: the note of a finished stage cannot be read: {error}") from error

    def finish(self, name: str, note: Mapping[str, Any]) -> None:
        """Mark a stage as finished, for all processes to see; nothing is written in it after that."""
        path = self.note_file(name)
        processes.publish(path, lambda: write_json(path, dict(note)))


def stage_folder(source: Path, name: str) -> Path:
    """Return the folder of a stage: `source` itself where it has checkpoints, else the stage `name` of that run."""
    return source if (source / "checkpoints").is_dir() else source / name


def enclosing_run(path: Path) -> RunDir | None:
    """Find the run whose folder the file is in, itself or in a folder of a stage; None if in none."""
    for folder in path.absolute().parents[:2]:
        run = RunDir(folder)
        with contextlib.suppress(BadInput):
            if run.read_config().keys() >= {"model", "algorithm", "preset"}:
                return run
    return None


def check_same(settings: Mapping[str, Any]) -> None:
    """Raise BadInput unless all processes have the same settings. Every process has to call this."""
    first = processes.broadcast_from_process_0(lambda: settings)
    differing = [f"{name} is {was!r} there and {now!r} here" for name, was, now in _differences(first, settings)]
    if differing:
        raise BadInput(
            f"{processes.name(0)} and {processes.name()} were started with different flags: {'; '.join(differing[:4])}"
        )


def _differences(found: Any, wanted: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            yield from _differences(found.get(name), wanted.get(name), f"{prefix}{name}.")
    elif found != wanted:
        yield prefix.removesuffix("."), found, wanted


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Call `tasks.write_rows` in process 0; the others have the same rows and write nothing."""
    if processes.is_process_0():
        tasks.write_rows(path, rows)


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Call `tasks.append_rows` in process 0; the others have the same rows and write nothing."""
    if processes.is_process_0():
        tasks.append_rows(path, rows)


def resume_rows(path: Path, kind: type[RowT]) -> int:
    """Count the rows that an interrupted stage has left; a line that was cut off is removed."""
    return processes.broadcast_from_process_0(lambda: len(tasks.read_complete(path, kind)))
