"""Write files whole or not at all; check before long work that files can be read and written."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from colbench_env.replace_file import replace_file
from colbench_env.tasks import open_rows
from colbench_env.types import BadInput


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; escape lone surrogates, which UTF-8 cannot express.

    Raises BadInput where the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def write_json(path: Path, data: Any) -> None:
    """Write the data as JSON, whole or not at all. Raises BadInput where the disk refuses."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} where there is no file. Raises BadInput for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path}: expected an object, found {type(found).__name__}")
    return found


def check_writable(path: Path) -> None:
    """Raise BadInput unless the file can be written: a new one in a writable folder, or an existing one."""
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"{path}: cannot be written: there is something else of that name")
        if path.exists():
            with path.open("ab"):
                pass
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def check_readable(*paths: Path | None) -> None:
    """Raise BadInput for the first path that is not a readable file; skip None and pipes."""
    for path in paths:
        if path is not None and not path.is_fifo():
            open_rows(path).close()


def is_model_directory(path: Path) -> bool:
    """Say whether this is a Hugging Face directory: its config.json has a model_type."""
    return "model_type" in read_object(path / "config.json")


def check_model_directory(model: str | Path) -> None:
    """Raise BadInput unless the model directory exists."""
    if Path(model).is_file():
        raise BadInput(f"{model}: a file, expected a model directory, which holds config.json and model.safetensors")
    if not Path(model).is_dir():
        raise BadInput(f"{model}: no such model directory")
