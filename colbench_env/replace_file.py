"""Replace a file as a whole: a reader sees the old content or the new one, whenever the writing process is killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replace_file(path: Path, *, sync: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file in the folder of `path`, for bytes; it takes the place of `path` when the block ends.

    After an error in the block it is removed, and `path` stays as it was. sync: have the bytes on the disk before that.
    OSError where the disk refuses.
    """
    tmp_path = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with tmp_path.open("wb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(tmp_path, path)
    finally:
        with contextlib.suppress(OSError):
            tmp_path.unlink()
