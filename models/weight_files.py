"""Safetensors files of a model directory: found through their index and checked before anything is read; written
tensor by tensor.

Nothing here knows what the tensors mean. `safetensors` itself writes a file only from a whole dictionary in memory; its
format (a length, a JSON header, the bytes) is simple enough to be written as the tensors come.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from models.json_settings import ModelError, format_value, read_object

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
FILE_DTYPES: Mapping[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
"""Names that safetensors gives to the types of weights that are read and written."""
MAX_FILE_BYTES = 5 * 10**9
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Stored:
    """A tensor as a file holds it: its name and its shape."""

    name: str
    shape: tuple[int, ...]


def open_weights(stack: ExitStack, directory: Path) -> dict[str, Any]:
    """Name -> lazily read slice of every tensor in the model's files, which stay open as long as `stack`.

    Raises ModelError for files that are missing, cut short or damaged, for a tensor in two files, and for an index that
    names a tensor that its file does not hold. Only headers are read.
    """
    index = _read_index(directory)
    names = sorted(set(index.values())) if index is not None else [SINGLE_FILE]
    found: dict[str, Any] = {}
    for file in names:
        handle = open_file(stack, directory / file)
        keys = list(handle.keys())
        if twice := sorted(found.keys() & set(keys)):
            raise ModelError(f"{directory / file}: {len(twice)} tensors are in another file, too: {list_some(twice)}")
        promised = {name for name, where in (index or {}).items() if where == file}
        if absent := sorted(promised - set(keys)):
            raise ModelError(
                f"{directory / INDEX_FILE}: names {len(absent)} tensors that {file} does not hold: {list_some(absent)}"
            )
        found |= {name: handle.get_slice(name) for name in keys}
    return found


def _read_index(directory: Path) -> dict[str, str] | None:
    """Tensor -> file of a model in several files, all of which are there; None for a model in a single one."""
    path, single = directory / INDEX_FILE, (directory / SINGLE_FILE).is_file()
    if not path.is_file():
        if not single:
            other = sorted(file.name for pattern in ("*.bin", "*.pth", "*.gguf") for file in directory.glob(pattern))
            hint = f"; {list_some(other)} cannot be read, only safetensors" if other else ""
            raise ModelError(f"{directory}: holds neither {SINGLE_FILE} nor {INDEX_FILE}{hint}")
        return None
    index = read_object(path).get("weight_map")
    if not isinstance(index, dict) or not index:
        raise ModelError(
            f"{path}: weight_map is {format_value(index)}, expected an object with the file of every tensor"
        )
    for tensor, name in index.items():
        if not isinstance(name, str) or name != Path(name).name:
            raise ModelError(
                f"{path}: {tensor} is in {format_value(name)}, expected the name of a file beside the index"
            )
    names = sorted(set(index.values()))
    if single and names != [SINGLE_FILE]:
        raise ModelError(
            f"{directory}: holds {SINGLE_FILE} and {INDEX_FILE}, which names other files ({list_some(names)}); delete "
            "those that are out of date"
        )
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise ModelError(f"{path}: names {len(names)} files, of which {len(missing)} are missing: {list_some(missing)}")
    return index


def open_file(stack: ExitStack, path: Path) -> Any:
    """Open a safetensors file for as long as `stack`. Raises ModelError where its header does not describe its
    bytes."""
    try:
        return stack.enter_context(safe_open(path, framework="numpy"))
    except (SafetensorError, OSError) as error:
        if not path.is_file():
            raise ModelError(f"{path}: no such file") from error
        with path.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
        reason = "it is a Git LFS pointer, the file itself was not fetched" if pointer else str(error)
        size = path.stat().st_size
        raise ModelError(f"{path}: not a whole safetensors file ({size:,} bytes): {reason}") from error


def check_stored(place: str, slices: Mapping[str, Any], wanted: Iterable[Stored], derived: Iterable[str] = ()) -> None:
    """Raise ModelError unless the files hold exactly the `wanted` tensors, apart from those `derived` from others.

    place: the directory or file, for the sentence. Every tensor must have its shape and a type of FILE_DTYPES.
    """
    wanted = list(wanted)
    needed = {tensor.name for tensor in wanted}
    missing, unknown = sorted(needed - slices.keys()), sorted(slices.keys() - needed - set(derived))
    if missing or unknown:
        raise ModelError(
            f"{place}: {len(missing)} tensors that the network needs are missing ({list_some(missing)}) and "
            f"{len(unknown)} tensors belong to no parameter ({list_some(unknown)})"
        )
    for tensor in wanted:
        found = slices[tensor.name]
        if found.get_shape() != list(tensor.shape):
            raise ModelError(
                f"{place}: tensor {tensor.name} has shape {found.get_shape()}, the network needs {list(tensor.shape)}"
            )
        if found.get_dtype() not in FILE_DTYPES:
            raise ModelError(
                f"{place}: tensor {tensor.name} is {found.get_dtype()}, only {', '.join(FILE_DTYPES)} can be read"
            )


def write_weights(
    directory: Path,
    tensors: Sequence[Stored],
    values: Iterator[np.ndarray],
    dtype: np.dtype,
    max_file_bytes: int = MAX_FILE_BYTES,
    writes: bool = True,
) -> None:
    """Write `values`, one for each of `tensors` and in their order, holding one of them at a time.

    One file, or several and their index where they would be larger than `max_file_bytes`. With `writes` False the
    values are only drawn: making them is the work of all processes, the files are the work of one.
    Raises ModelError for a value of another shape or type.
    """
    parts = _split_files(tensors, dtype, max_file_bytes)
    several = len(parts) > 1
    names = [
        f"model-{n:05}-of-{len(parts):05}.safetensors" if several else SINGLE_FILE for n in range(1, 1 + len(parts))
    ]
    for name, part in zip(names, parts, strict=True):
        with ExitStack() as stack:
            file = stack.enter_context((directory / name).open("wb")) if writes else None
            _write_file(file, part, values, dtype)
    if several and writes:
        weight_map = {tensor.name: name for name, part in zip(names, parts, strict=True) for tensor in part}
        total = sum(math.prod(tensor.shape) for tensor in tensors) * dtype.itemsize
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (directory / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _split_files(tensors: Sequence[Stored], dtype: np.dtype, max_file_bytes: int) -> list[list[Stored]]:
    """Divide the tensors among files, in order: as many as fit in each, and at least one."""
    parts: list[list[Stored]] = [[]]
    room = max_file_bytes
    for tensor in tensors:
        size = math.prod(tensor.shape) * dtype.itemsize
        if size > room and parts[-1]:
            parts.append([])
            room = max_file_bytes
        parts[-1].append(tensor)
        room -= size
    return parts


def _write_file(file: BinaryIO | None, part: Sequence[Stored], values: Iterator[np.ndarray], dtype: np.dtype) -> None:
    kind = next(name for name, known in FILE_DTYPES.items() if known == dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in part:
        end = at + math.prod(tensor.shape) * dtype.itemsize
        header[tensor.name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the bytes of the tensors begin aligned
    if file is not None:
        file.write(len(text).to_bytes(8, "little") + text)
    for tensor in part:
        value = next(values)
        if value.shape != tensor.shape or value.dtype != dtype:
            raise ModelError(
                f"tensor {tensor.name} is {value.dtype} of shape {value.shape}, not {dtype} of shape {tensor.shape}"
            )
        if file is not None:
            file.write(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")


def list_some(names: Sequence[str], limit: int = 6) -> str:
    """List the first few names for a sentence; "none" for none."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "") if names else "none"
