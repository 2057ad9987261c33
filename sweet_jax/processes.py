"""Several processes that train together: what the first one does alone, and what it tells the others.

Every process runs the same program with the same state on the host, and their devices compute together. What is not a
computation - reading and writing the run's files, grading, the console - belongs to the first process; what follows
from it for all of them goes through `broadcast_from_process_0`. With one process all of this is a plain call.

The processes talk through the key-value store of `jax.distributed`, never through the devices: those would have to wait
in a collective for as long as the first process grades. Nobody waits here for a process that has died, for
`launch.common.distributed` watches over all of them and ends the rest.
"""

import hashlib
import itertools
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
from jax._src import distributed  # jax.distributed gives its key-value store no public name

from colbench_env.types import BadInput

T = TypeVar("T")

PREFIX = "sweet_jax/"
POLL_MS = 2000  # a wait is cut into such pieces, so that Ctrl-C ends it
VISIBLE_SECONDS = 90.0  # a network file system may show another host's file this late

_numbers = itertools.count()  # of the calls of `broadcast_from_process_0` and `gather`; the same on every process
_alone = False  # inside the work of `broadcast_from_process_0`: the others do not take part


def count() -> int:
    """The number of processes."""
    return distributed.global_state.num_processes if jax.distributed.is_initialized() else 1


def index() -> int:
    """The number of this process, from 0."""
    return distributed.global_state.process_id if jax.distributed.is_initialized() else 0


def is_process_0() -> bool:
    """Whether this process writes the files and prints."""
    return index() == 0


def client() -> Any:
    """The client of jax.distributed's key-value store."""
    return distributed.global_state.client


def name(process: int | None = None) -> str:
    """The process as an error names it: "process 1 (host-b)"; this one by default."""
    if process is None or process == index():
        return f"process {index()} ({socket.gethostname()})"
    return f"process {process} ({try_get(f'host/{process}') or 'its host is unknown'})"


def broadcast_from_process_0(work: Callable[[], T]) -> T:
    """What `work` returns, a JSON value; only the first process does it, and every process has to call this.

    Inside `work` there is nothing to wait for: calls in it are plain calls. An error in it ends all processes.
    """
    global _alone
    if count() == 1 or _alone:
        return work()
    key = f"first/{next(_numbers)}"
    if is_process_0():
        _alone = True
        try:
            value = json.dumps(work())
        finally:
            _alone = False
        put(key, value)
    else:
        value = get(key)
    return json.loads(value)


def gather(value: T) -> list[T]:
    """The JSON values of all processes, in their order; every process has to call this."""
    if count() == 1 or _alone:
        return [value]
    number = next(_numbers)
    put(f"gather/{number}/{index()}", json.dumps(value))
    return broadcast_from_process_0(
        lambda: [json.loads(get(f"gather/{number}/{process}")) for process in range(count())]
    )


def all_agree(what: str, seconds: float) -> bool:
    """Whether every process says this within that time; each says it at most once."""
    if count() == 1:
        return True
    put(f"said/{what}/{index()}", "")
    stop = time.monotonic() + seconds
    try:
        for process in range(count()):
            get(f"said/{what}/{process}", stop - time.monotonic())
    except TimeoutError:
        return False
    return True


def publish(path: Path, write: Callable[[], None]) -> None:
    """Calls `write` on the first process, which makes the file, and waits on the others until they see the same bytes.

    BadInput where a process does not: then the hosts do not share that directory.
    """
    if count() == 1 or _alone:
        write()
        return

    def written() -> str:
        write()
        return _digest(path)

    expected, stop = broadcast_from_process_0(written), time.monotonic() + VISIBLE_SECONDS
    while _digest(path) != expected:
        if time.monotonic() > stop:
            raise BadInput(
                f"{path}: {name()} does not see what {name(0)} has written there, after {VISIBLE_SECONDS:.0f} s: the "
                "run directory must lie on a file system that all hosts share"
            )
        time.sleep(0.1)


def wait_for(path: Path) -> None:
    """Returns when this process sees the file or directory, which the first process does; BadInput where it never
    does."""
    stop = time.monotonic() + VISIBLE_SECONDS
    while not path.exists():
        if time.monotonic() > stop:
            raise BadInput(f"{path}: {name(0)} sees it and {name()} does not, after {VISIBLE_SECONDS:.0f} s")
        time.sleep(0.1)


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


# --- the store -------------------------------------------------------------------------------------------------------


def put(key: str, value: str) -> bool:
    """Stores the value; False where the key has one already, which stays."""
    try:
        client().key_value_set(PREFIX + key, value)
    except jax.errors.JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise
        return False
    return True


def get(key: str, seconds: float = float("inf")) -> str:
    """The value of the key, once some process has stored one; TimeoutError after that many seconds."""
    stop = time.monotonic() + seconds
    while True:
        try:
            return client().blocking_key_value_get(PREFIX + key, POLL_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if time.monotonic() > stop:
            raise TimeoutError(f"no process has said {key} within {seconds:.0f} s")


def try_get(key: str) -> str | None:
    """The value of the key, None while there is none."""
    try:
        return client().key_value_try_get(PREFIX + key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None
