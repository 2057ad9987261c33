"""Checksums of the files of a checkpoint, written when it is complete and verified before it is read.

The storage library keeps arrays without a checksum: a flipped bit on the disk would be read as another number, and
files that are cut, garbled or missing raise errors of many types. The checksums answer one question beforehand: are
these the bytes that were written?
"""

import errno
import json
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from colbench_env.replace_file import replace_file
from sweet_jax import processes

CHECKSUMS = "checksums.json"
PIECE_BYTES = 16 * 2**20  # read at one time
THREADS = 4
DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
"""Error numbers of a file that is missing or on a broken disk; any other error says nothing about the file."""

Checksum = list[int]  # bytes and CRC-32


def write_checksums(folder: Path) -> None:
    """Write CHECKSUMS into a complete folder: path -> size in bytes and CRC-32 of every file in it.

    Every process has to call this; each reads the files that it has written itself. Raises OSError.
    """
    processes.wait_for(folder)
    all_files: dict[str, Checksum | None] = {}
    for of_process in processes.gather(_checksums(folder, _own_files(folder))):
        all_files |= of_process
    processes.publish(folder / CHECKSUMS, lambda: _write(folder / CHECKSUMS, all_files))


def has_checksums(folder: Path) -> bool:
    """Say whether the folder has checksums; one without is of an older version, or its process was killed early."""
    return processes.broadcast_from_process_0((folder / CHECKSUMS).exists)


def find_damage(folder: Path) -> str | None:
    """Describe a file of the folder that differs from its checksum; None where none does or there are no checksums.

    Every process has to call this and gets the same answer. Each reads a part of the files, and process 0 checks again
    what another has found.
    """
    if not has_checksums(folder):
        return None
    expected = processes.broadcast_from_process_0(lambda: _expected(folder))
    if expected is None:
        return f"{CHECKSUMS} is damaged"
    local = sorted(expected)[processes.index() :: processes.count()]
    suspects = [name for names in processes.gather(_differing(folder, local, expected)) for name in names]
    damaged = processes.broadcast_from_process_0(lambda: _differing(folder, suspects, expected))
    return f"{damaged[0]} is not as it was written ({len(damaged)} of {len(expected)} files)" if damaged else None


def _own_files(folder: Path) -> list[str]:
    """List the files that this process has written: those in its folder of the array store; process 0 all others."""
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    writers = {f"ocdbt.process_{process}": process for process in range(1, processes.count())}
    return [
        file.as_posix()
        for file in files
        if max((writers.get(part, 0) for part in file.parts), default=0) == processes.index()
    ]


def _differing(folder: Path, names: Iterable[str], expected: dict[str, Checksum]) -> list[str]:
    return [name for name, found in _checksums(folder, names).items() if found != expected[name]]


def _checksums(folder: Path, names: Iterable[str]) -> dict[str, Checksum | None]:
    """Read the files: path -> size in bytes and CRC-32, None for a file that cannot be read."""
    names = list(names)
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(names, pool.map(lambda name: _checksum(folder / name), names), strict=True))


def _checksum(path: Path) -> Checksum | None:
    size, crc = 0, 0
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                size, crc = size + len(piece), zlib.crc32(piece, crc)
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        return None
    return [size, crc]


def _expected(folder: Path) -> dict[str, Checksum] | None:
    try:
        found = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    except ValueError:
        return None
    except OSError as error:
        if error.errno not in DAMAGE:
            raise
        return None
    return found if isinstance(found, dict) and found else None


def _write(path: Path, checksums: dict[str, Checksum | None]) -> None:
    with replace_file(path, sync=True) as file:
        file.write(json.dumps(checksums).encode())
