"""Start as one of several processes, and end together with all of them.

`join_processes` joins them through `jax.distributed` and starts threads that watch the others. Whatever ends one of
them ends all: process 0 prints the reason in one sentence, and no process waits for one that has gone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from colbench_env.types import BadInput
from launch.common import cli, stopping
from launch.common.settings import Hosts

AGAIN = "run the same command on all hosts again to continue"
GRACE = 60  # seconds added to the user's, after which jax itself would end the process with a stack trace
LEAVE_SECONDS = 10.0  # time for the others to learn of an error before process 0 ends, and the coordinator with it


@contextlib.contextmanager
def join_processes(settings: Hosts) -> Iterator[None]:
    """Join the other processes, if there are any, and leave them at the end; call it before jax has devices.

    An error inside ends all processes. BadInput where the others cannot be reached.
    """
    how = _how(settings, os.environ)
    if how is None:
        yield
        return
    watch = _join(settings, how)
    try:
        yield
    except BaseException as error:  # SystemExit and KeyboardInterrupt, too: the others must learn of it
        watch.fail(error)
    watch.leave()


def _how(settings: Hosts, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """Choose the arguments of jax.distributed.initialize that name the processes; None for a single process."""
    if settings.coordinator:
        return {
            "coordinator_address": settings.coordinator,
            "num_processes": settings.processes,
            "process_id": settings.process,
            "cluster_detection_method": "deactivate",
        }
    if settings.mode == "single":
        return None
    if _number(environment, "SLURM_STEP_NUM_TASKS") > 1:
        return {"cluster_detection_method": "slurm"}
    if importlib.util.find_spec("libtpu") is None:
        return None
    from jax._src.clusters import GceTpuCluster, GkeTpuCluster

    for cluster in (GkeTpuCluster, GceTpuCluster):
        if cluster.is_env_present() and cluster.get_process_count() > 1:
            return {"cluster_detection_method": cluster.name}
    return None


def _number(environment: Mapping[str, str], name: str) -> int:
    return int(environment[name]) if environment.get(name, "").isdigit() else 0


def _join(settings: Hosts, how: Mapping[str, Any]) -> _Watch:
    import jax
    from jax._src import distributed

    from sweet_jax import processes

    seconds = settings.connect_seconds
    # Our own thread watches; jax would abort every process with a stack trace as soon as one does not answer.
    jax.config.update("jax_enable_recoverability", True)
    jax.config.update("jax_enable_preemption_service", False)  # it keeps SIGTERM from ending the process
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    late = threading.Timer(seconds, _too_late, [distributed.global_state, how, seconds])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            **how,
            initialization_timeout=seconds + GRACE,
            heartbeat_timeout_seconds=settings.heartbeat_seconds,
        )
    except (RuntimeError, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"--hosts: the processes cannot be joined ({how}): {reason}") from error
    finally:
        late.cancel()
    processes.put(f"host/{processes.index()}", socket.gethostname())
    return _Watch(str(distributed.global_state.coordinator_address), settings.heartbeat_seconds)


def _too_late(state: Any, how: Mapping[str, Any], seconds: int) -> None:
    """End this process, which still waits for the others."""
    address = state.coordinator_address or how.get("coordinator_address", "unknown")
    who = f"process {state.process_id}"
    if _answers(address):
        _end(2, f"{who} waited {seconds} s at {address}, the coordinator, and not all of the processes have come there")
    _end(2, f"{who} could not reach the coordinator, process 0 at {address}, within {seconds} s")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def _end(status: int, sentence: str = "") -> NoReturn:
    """End this process at once, from any thread."""
    if sentence:
        print(f"error: {sentence}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@dataclass(frozen=True)
class _Failure:
    """An error in one process.

    process: its number.
    status: the exit status of all processes.
    sentence: the reason, which process 0 prints.
    """

    process: int
    status: int
    sentence: str


class _Watch:
    """Two threads that end this process: one learns of a failed process, the other checks that all are alive.

    There are two because a check returns only when every process checks, and one that has failed no longer does.
    """

    def __init__(self, coordinator: str, heartbeat_seconds: int):
        from sweet_jax import processes

        self._processes, self._coordinator, self._heartbeat = processes, coordinator, heartbeat_seconds
        self._over, self._failing = threading.Event(), threading.Event()
        self._last_words = _LastWords(
            f"process {processes.index()} of {processes.count()} was ended from outside"
            + (
                ""
                if processes.is_process_0()
                else f", or by jax because process 0, the coordinator at {coordinator}, has gone"
            )
            + f"; {AGAIN}"
        )
        stopping.on_silence = self._terminated
        for thread in (self._listen, self._look):
            threading.Thread(target=thread, daemon=True).start()

    def fail(self, error: BaseException) -> NoReturn:
        """Report the error of this process to the others; all processes end."""
        import jax

        if isinstance(error, jax.errors.JaxRuntimeError):
            # Most likely another process has gone in a computation; the thread learns it in a heartbeat or two.
            time.sleep(2 * self._heartbeat)
        status, sentence = cli.verdict(error)
        if not sentence:
            traceback.print_exception(error)
            sentence = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        self._report(status, sentence)
        while True:  # a thread ends the process
            time.sleep(1.0)

    def _report(self, status: int, sentence: str) -> None:
        """End all processes with this error, each when its thread learns of it; only process 0 prints it."""
        if self._processes.is_process_0() and not self._failing.is_set():
            self._failing.set()
            print(f"error: {sentence}", file=sys.stderr)
        failure = _Failure(self._processes.index(), status, sentence)
        self._processes.put("failed", json.dumps(vars(failure)))

    def _terminated(self, terminated: stopping.Terminated) -> None:
        """End all processes: SIGTERM has come, and the main thread of this process does not answer."""
        with contextlib.suppress(Exception):  # the coordinator may be gone
            self._report(stopping.STATUS, str(terminated))
            time.sleep(LEAVE_SECONDS)
        self._last_words.forget()
        if self._failing.is_set():  # it is printed
            os._exit(stopping.STATUS)
        stopping.end_at_once(terminated)

    def leave(self) -> None:
        """Wait until all processes are done, and leave the coordinator, whose process ends last."""
        import jax

        self._processes.gather("end")
        self._over.set()
        stopping.on_silence = stopping.end_at_once  # no other process listens any longer
        if self._processes.is_process_0():
            self._processes.client().get_live_nodes(range(self._processes.count()))  # returns when no other is left
        jax.distributed.shutdown()
        self._last_words.forget()

    def _listen(self) -> None:
        while not self._over.wait(1.0):
            try:
                failed = self._processes.try_get("failed")
            except Exception:  # the coordinator has gone, which the other thread reports
                return
            if failed is not None:
                self._end_with(_Failure(**json.loads(failed)))

    def _look(self) -> None:
        everyone = range(self._processes.count())
        while not self._over.wait(1.0):
            try:
                # Every process has to call this; it waits for the live ones and leaves out the dead.
                alive = self._processes.client().get_live_nodes(everyone)
            except Exception as error:
                if not self._over.is_set():
                    self._end_without_first(error)
                return
            missing = [process for process in everyone if process not in alive]
            if missing and not self._over.is_set() and self._processes.try_get("failed") is None:
                self._end_without(missing)

    def _end_with(self, failure: _Failure) -> NoReturn:
        if not self._processes.is_process_0():
            self._processes.put(f"left/{self._processes.index()}", "")
            self._last_words.forget()
            _end(failure.status)
        if failure.process != 0 and not self._failing.wait(2.0):  # the same error often occurs in all of them
            print(f"error: {self._processes.name(failure.process)}: {failure.sentence}", file=sys.stderr)
        stop = time.monotonic() + LEAVE_SECONDS
        for process in range(1, self._processes.count()):
            with contextlib.suppress(TimeoutError):
                self._processes.get(f"left/{process}", max(0.0, stop - time.monotonic()))
        time.sleep(0.5)  # until they have really gone
        self._last_words.forget()
        _end(failure.status)

    def _end_without(self, missing: list[int]) -> NoReturn:
        names = ", ".join(self._processes.name(process) for process in missing)
        self._last_words.forget()
        sentence = f"{names} has not answered for {self._heartbeat} s: it was killed or has lost the network; {AGAIN}"
        if self._processes.is_process_0():
            time.sleep(3.0)  # the others learn of it from the coordinator, which ends with this process
        _end(1, sentence)

    def _end_without_first(self, error: Exception) -> NoReturn:
        self._last_words.forget()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _end(1, f"process 0, the coordinator at {self._coordinator}, has gone ({reason}); {AGAIN}")


class _LastWords:
    """A sentence that is printed if this process ends without having called `forget`.

    When the coordinator goes, jax's own thread aborts this process with a C++ trace before Python can print anything
    (measured: in 3 of 3 kills). So a shell waits at a pipe and prints the sentence when the other end is closed.
    """

    def __init__(self, sentence: str):
        script = 'IFS= read -r line; IFS= read -r bye || printf "error: %s\\n" "$line" >&2'
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", script], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self._write(sentence)

    def forget(self) -> None:
        """Print nothing when this process ends."""
        self._write("bye")

    def _write(self, line: str) -> None:
        assert self._shell.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._shell.stdin.write(line + "\n")
            self._shell.stdin.flush()
