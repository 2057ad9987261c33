"""Several processes that train together: work that process 0 does alone, and values that they exchange.

Every process runs the same program with the same state on the host, and their devices compute together. Everything else
(reading and writing the run's files, grading, the console) is done by process 0, which sends its result to the others
with `broadcast_from_process_0`. With one process all of these are plain calls.

Processes exchange values through the key-value store of `jax.distributed` and not through the devices, which would
block in a collective for as long as process 0 grades. No call here waits for a dead process:
`launch.common.distributed` watches all of them and ends the rest.
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
POLL_MS = 2000  # length of one blocking wait, so that Ctrl-C can end a longer one
VISIBLE_SECONDS = 90.0  # a network file system may show another host's file this late

_numbers = itertools.count()  # of the calls of `broadcast_from_process_0` and `gather`; the same in every process
_alone = False  # True inside the work of `broadcast_from_process_0`, in which the others do not take part


def count() -> int:
    """Return the number of processes."""
    return distributed.global_state.num_processes if jax.distributed.is_initialized() else 1


def index() -> int:
    """Return the number of this process, from 0."""
    return distributed.global_state.process_id if jax.distributed.is_initialized() else 0


def is_process_0() -> bool:
    """Say whether this is process 0, which writes the files and prints."""
    return index() == 0


def client() -> Any:
    """Return the client of jax.distributed's key-value store."""
    return distributed.global_state.client


def name(process: int | None = None) -> str:
    """Name a process in an error, by default this one: "process 1 (host-b)"."""
    if process is None or process == index():
        return f"process {index()} ({socket.gethostname()})"
    return f"process {process} ({try_get(f'host/{process}') or 'its host is unknown'})"


def broadcast_from_process_0(work: Callable[[], T]) -> T:
    """Call `work` in process 0 and return its result, a JSON value, in every process; every process has to call this.

    Calls of this module inside `work` are plain calls of one process. An error in `work` ends all processes.
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
    """Collect a JSON value from every process, in their order; every process has to call this."""
    if count() == 1 or _alone:
        return [value]
    number = next(_numbers)
    put(f"gather/{number}/{index()}", json.dumps(value))
    return broadcast_from_process_0(
        lambda: [json.loads(get(f"gather/{number}/{process}")) for process in range(count())]
    )


def all_agree(statement: str, seconds: float) -> bool:
    """Wait until every process has called this with the same statement; False if some has not after `seconds`.

    A process calls it at most once for each statement.
    """
    if count() == 1:
        return True
    put(f"agree/{statement}/{index()}", "")
    stop = time.monotonic() + seconds
    try:
        for process in range(count()):
            get(f"agree/{statement}/{process}", stop - time.monotonic())
    except TimeoutError:
        return False
    return True


def publish(path: Path, write: Callable[[], None]) -> None:
    """Call `write` in process 0, which makes the file; the others wait until they see the same bytes at `path`.

    BadInput where a process does not see them: then the hosts do not share that directory.
    """
    if count() == 1 or _alone:
        write()
        return

    def write_and_hash() -> str:
        write()
        return _digest(path)

    expected, stop = broadcast_from_process_0(write_and_hash), time.monotonic() + VISIBLE_SECONDS
    while _digest(path) != expected:
        if time.monotonic() > stop:
            raise BadInput(
                f"{path}: {name()} does not see what {name(0)} has written there, after {VISIBLE_SECONDS:.0f} s: the "
                "run directory must lie on a file system that all hosts share"
            )
        time.sleep(0.1)


def wait_for(path: Path) -> None:
    """Wait until this process sees a file or directory that process 0 sees; BadInput after VISIBLE_SECONDS."""
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
    """Store the value; False where the key has one already, which stays."""
    try:
        client().key_value_set(PREFIX + key, value)
    except jax.errors.JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise
        return False
    return True


def get(key: str, seconds: float = float("inf")) -> str:
    """Wait for the value of the key, which some process stores; TimeoutError after that many seconds."""
    stop = time.monotonic() + seconds
    while True:
        try:
            return client().blocking_key_value_get(PREFIX + key, POLL_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if time.monotonic() > stop:
            raise TimeoutError(f"no process has stored {key} within {seconds:.0f} s")


def try_get(key: str) -> str | None:
    """Return the value of the key, None while there is none."""
    try:
        return client().key_value_try_get(PREFIX + key)
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None
