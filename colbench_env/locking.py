"""One process at a time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from colbench_env.types import BadInput


@contextlib.contextmanager
def locked(lock: Path, what: str, taken: str) -> Iterator[None]:
    """Inside, no other process holds the file `lock`, which is made if need be and left as it is.

    BadInput saying `taken` where one does, and that `what` cannot be written where the file cannot be made.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    except OSError as problem:
        raise BadInput(f"{what} cannot be written: {problem.strerror}") from problem
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise BadInput(taken) from problem
        yield
