"""The grader's side of one worker process: start it, have it run tests, and end it when the clock says so."""

import importlib.util
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import encoding
from .verdicts import Limits, Outcome, Verdict
from .worker import (
    BETWEEN_CALLS,
    ENDED,
    KINDS,
    LENGTH,
    MAX_DETAIL,
    NO_FORK,
    NOT_CONFINED,
    REQUEST,
    RUN,
    SCOPES,
    TOGETHER,
)

# Packages an answer may import where they are installed. Whatever else is installed, ours included, it cannot.
PACKAGES = (
    *("numpy", "numpy.libs", "pandas", "pandas.libs", "dateutil", "pytz", "tzdata", "six", "scipy", "scipy.libs"),
    *("bs4", "soupsieve", "typing_extensions"),
)
# A fixed hash seed: the order of a set of strings must be the same for reference and answer, today and tomorrow.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "TZ": "UTC",
    "LANG": "C.UTF-8",
    "HOME": "/tmp",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
# What -I does (no user site, no script folder on the path) except that it would also ignore the hash seed.
PYTHON_FLAGS = ("-P", "-s", "-S", "-B")
START_SECONDS = 30.0
EXTRA_BYTES = 4096  # what a result pipe may hold beyond the largest message, before it counts as a flood


class SandboxError(Exception):
    """The worker, not the answer, failed."""


@dataclass(frozen=True)
class _Ended:
    data: bytes
    status: int
    cpu_seconds: float


class Sandbox:
    """One worker process, started when first needed and again after a test had to be killed."""

    def __init__(self, limits: Limits, without: frozenset[str] = frozenset()):
        self.limits = limits
        self.without = without
        self.layers: frozenset[str] = frozenset()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def run(self, source: str, call: str, scope: str, seconds: float, alarm: float = 0.0) -> Outcome:
        """Run `source` and then `call` in a process of its own, and return what the call gives. Raises SandboxError.

        `seconds` is when the process is killed; `alarm`, if not 0, when a TimeoutError is thrown into the answer.
        """
        ended = self._serve(source, [call], scope, seconds, alarm)
        if ended is None:
            return Outcome(Verdict.TIMEOUT, detail=f"killed after {seconds:.1f} s")
        return self._outcome(ended)

    def run_together(self, source: str, calls: list[str], scope: str, seconds: float) -> tuple[Outcome, ...] | None:
        """Run all calls in one process: for a reference, which is trusted. Raises SandboxError.

        None if that is not what they would give alone: some call fails, or brings the process down, or depends on the
        others or on chance, or they do not all end within `seconds`.
        """
        if len(calls) < 2 or any("\0" in call for call in calls):
            return None
        ended = self._serve(source, calls, scope, seconds, 0.0)
        if ended is None or not _is_one_message(ended.data) or ended.data[LENGTH.size : LENGTH.size + 1] != TOGETHER:
            return None
        outcomes, rest = [], ended.data[LENGTH.size + 1 :]
        while rest:
            (length,) = LENGTH.unpack_from(rest)
            outcomes.append(_read_claim(rest[LENGTH.size : LENGTH.size + length]))
            rest = rest[LENGTH.size + length :]
        return tuple(outcomes)

    def _serve(self, source: str, calls: list[str], scope: str, seconds: float, alarm: float) -> _Ended | None:
        """How a process ended that ran the calls, None if it was killed after `seconds`. Raises SandboxError."""
        control = self._control or self.start()
        content = source.encode("utf-8", "surrogatepass")
        header = REQUEST.pack(SCOPES[scope], alarm, len(content))
        names = BETWEEN_CALLS.join(call.encode("utf-8", "surrogatepass") for call in calls)
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            with os.fdopen(os.memfd_create("request"), "wb") as file:
                file.write(header + content + names)
                file.seek(0)
                socket.send_fds(control, [RUN], [file.fileno(), theirs])
            os.close(theirs)
            theirs = -1
            return self._watch(control, ours, time.monotonic() + seconds)
        except OSError as error:
            self.close()
            raise SandboxError(f"the worker is gone: {error}") from None
        except BaseException:
            self.close()
            raise
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)

    def start(self) -> socket.socket:
        """Start the worker, learn which layers hold, and return its control socket. Raises SandboxError."""
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, *PYTHON_FLAGS, str(Path(__file__).with_name("worker.py"))]
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._control = ours
        ours.settimeout(START_SECONDS)
        try:
            ours.send(json.dumps(self._config()).encode())
            report = json.loads(ours.recv(1 << 16) or b"{}")
        except (OSError, ValueError) as error:
            report = {"why": str(error)}
        if "failed" in report and report["failed"] not in self.without:
            self.without |= {report["failed"]}
            return self.start()
        if "active" not in report:
            self.close()
            raise SandboxError(f"the worker did not start ({report.get('why', 'it ended at once')})")
        self.layers = frozenset(report["active"])
        return ours

    def close(self) -> None:
        """Kills the worker and everything in it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            self._process = None

    def _watch(self, control: socket.socket, result: int, deadline: float) -> _Ended | None:
        """How the child ended and all it wrote, or None if it had to be killed. Never waits for an end-of-file."""
        data, most = bytearray(), encoding.MAX_BYTES + EXTRA_BYTES
        os.set_blocking(result, False)
        poll = select.poll()
        poll.register(result, select.POLLIN)
        poll.register(control, select.POLLIN)
        while len(data) <= most:
            left = deadline - time.monotonic()
            ready = poll.poll(math.ceil(1000 * left)) if left > 0 else []
            if not ready:
                break
            names = {descriptor for descriptor, _ in ready}
            if control.fileno() in names:
                status, cpu_seconds = ENDED.unpack(control.recv(ENDED.size) or self._gone())
                while piece := _read(result, most + 1 - len(data)):
                    data += piece
                return _Ended(bytes(data), status, cpu_seconds)
            piece = _read(result, 1 << 16)
            data += piece
            if not piece:  # closed early: only the worker's word is left to wait for
                poll.unregister(result)
        self.close()
        return None if len(data) <= most else _Ended(bytes(data), 0, 0.0)

    def _gone(self) -> bytes:
        raise OSError("it closed its socket")

    def _outcome(self, ended: _Ended) -> Outcome:
        data, status = ended.data, ended.status
        if status == NO_FORK or (not data and os.WIFEXITED(status) and os.WEXITSTATUS(status) == NOT_CONFINED):
            raise SandboxError("no process could be made for the test")
        if not data:
            return self._explain_silence(status, ended.cpu_seconds)
        if not _is_one_message(data):
            return Outcome(Verdict.CRASH, detail="there is not exactly one message from the test")
        return _read_claim(data[LENGTH.size :])

    def _explain_silence(self, status: int, cpu_seconds: float) -> Outcome:
        """Explain a child that ended without a message."""
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            if number in (signal.SIGXCPU, signal.SIGKILL) and cpu_seconds >= 0.9 * self.limits.cpu_seconds:
                return Outcome(Verdict.TIMEOUT, detail=f"used {cpu_seconds:.1f} s of processor time")
            return Outcome(Verdict.CRASH, detail=f"ended by {signal.Signals(number).name}")
        return Outcome(Verdict.CRASH, detail=f"left with status {os.WEXITSTATUS(status)} before the result")

    def _config(self) -> dict[str, object]:
        limits = self.limits
        return {
            "without": sorted(self.without),
            "packages": installed_packages(),
            "grader_path": [os.path.realpath(path) for path in sys.path],
            "limits": {
                "cpu_seconds": limits.cpu_seconds,
                "memory_bytes": limits.memory_bytes,
                "disk_bytes": limits.disk_bytes,
                "threads": limits.threads,
            },
        }


def _is_one_message(data: bytes) -> bool:
    return len(data) > LENGTH.size and LENGTH.unpack_from(data)[0] == len(data) - LENGTH.size


def _read_claim(body: bytes) -> Outcome:
    """Read what the body of a message claims."""
    kind, content = body[:1], body[1:]
    if kind == KINDS["value"]:
        return Outcome(Verdict.PASS, encoded=content)
    for name, letter in KINDS.items():
        if kind == letter:
            return Outcome(Verdict(name), detail=content[:MAX_DETAIL].decode("utf-8", "replace"))
    return Outcome(Verdict.CRASH, detail="the message from the test is of no known kind")


def installed_packages() -> dict[str, str]:
    """Where each allowed package that is installed here lies: its folder, or its file."""
    places: dict[str, str] = {}
    for name in PACKAGES:
        if name.endswith(".libs"):  # shared libraries next to a wheel's package
            folder = places.get(name.removesuffix(".libs"), "") + ".libs"
            if os.path.isdir(folder):
                places[name] = folder
        elif (spec := importlib.util.find_spec(name)) and spec.origin:
            origin = Path(spec.origin)
            places[name] = str(origin.parent if origin.name == "__init__.py" else origin)
    return places


def _read(descriptor: int, most: int) -> bytes:
    try:
        return os.read(descriptor, most)
    except BlockingIOError:
        return b""
