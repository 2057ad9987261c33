"""The sandboxed side of the grader: a process that forks one locked-up child for each test.

Run as a script by `sandbox.py` with an empty environment; nothing of the project can be imported from here. This
process never sees what it is to run: the grader hands it two descriptors a test, the child reads the request from one
and writes one message to the other.

Over the control socket (whole messages): the settings and, in answer, a JSON report of the layers; then for each test
`RUN` with the two descriptors, answered by `ENDED` (wait status, CPU seconds) when the child and all it started are
gone. A request is `REQUEST` (scope, seconds to an alarm or 0, bytes of source), the source and the calls.
A message on the result pipe is four bytes of length and a body: `V` and an encoded value, or another letter of
`KINDS` and a text. A forged one can only claim a value. A request of several calls, made for references only, is
answered by one message with all bodies.
"""

import functools
import gc
import importlib
import itertools
import json
import os
import select
import signal
import socket
import struct
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence

if typing.TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

if __name__ == "__main__":  # the files next to this one, as a package without the project around it
    _package = types.ModuleType("grader_worker")
    _package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules["grader_worker"] = _package
    __package__ = "grader_worker"

from . import encoding, isolation

ENDED = struct.Struct("<id")
LENGTH = struct.Struct("<I")
RUN = b"R"
REQUEST = struct.Struct("<cdI")
SCOPES = {"module": b"M", "function": b"F"}
KINDS = {"value": b"V", "error": b"E", "syntax-error": b"S", "memory": b"M", "unsupported": b"U", "timeout": b"T"}
TOGETHER, APART = b"L", b"A"  # all outcomes of a reference, `LENGTH` and a body for each; or that they do not agree
BETWEEN_CALLS = b"\0"  # no source has it
MAX_DETAIL = 500
RELEASED_NAMES = {"signal": ("signal", ""), "multiprocessing": ("multiprocessing", ""), "Empty": ("queue", "Empty")}
NO_FORK = -(1 << 31)  # in place of a wait status: there was no child
NOT_CONFINED = 97  # exit status of a child that could not lock itself up, and so has run nothing

# Imported once here instead of in every child. Not `random` and `threading`, which would make every fork dearer.
PRELOADED = (
    "abc bisect calendar collections collections.abc copy datetime decimal enum fractions functools heapq itertools"
    " json math numbers operator re string time types typing zoneinfo"
).split()


def main() -> None:
    """Enters the sandbox, reports what holds, and serves tests until the grader is gone."""
    control = socket.socket(fileno=os.dup(int(sys.argv[1])))  # a low number, whatever it was in the grader
    os.close(int(sys.argv[1]))
    for name in PRELOADED:
        importlib.import_module(name)
    sandbox = _enter(control, json.loads(control.recv(1 << 18)))
    if sandbox is not None:
        serve(control, *sandbox)


def _enter(control: socket.socket, config: dict) -> tuple[isolation.Confinement, int] | None:
    """Build the walls around this process: those of each test, and the bytes of its disk. None if that failed."""
    wanted = set(isolation.LAYERS) - set(config["without"])
    packages, library = config["packages"], isolation.library_paths()
    hidden = [path for path in set(config["grader_path"]) - set(library.values()) if _lies_in(path, library.values())]
    uid = isolation.own_uid()
    active = isolation.enter_namespaces(wanted)
    if "pid" in active:
        _become_first_process(control)
    try:
        if "mount" in active:
            isolation.build_root(library, hidden, list(packages.values()), config["limits"]["disk_bytes"])
            packages = {name: isolation.in_root(path) for name, path in packages.items()}
    except OSError as error:
        control.send(json.dumps({"failed": "mount", "why": str(error)}).encode())
        return None
    sys.meta_path.append(PackageFinder(packages))
    rules = isolation.landlock_rules(active, library, hidden, list(packages.values()))
    confine = functools.partial(isolation.Confinement, uid=uid, rules=rules, limits=config["limits"])
    for layer in isolation.LAYERS:
        if layer in wanted - active - set(isolation.NAMESPACES) and _holds(confine, active | {layer}):
            active.add(layer)
    control.send(json.dumps({"active": sorted(active)}).encode())
    return confine(active), config["limits"]["disk_bytes"]


def _lies_in(path: str, folders: Iterable[str]) -> bool:
    return any(path.startswith(folder + "/") for folder in folders)


class PackageFinder:
    """Imports the allowed packages from where they are installed, and nothing that lies next to them."""

    def __init__(self, places: dict[str, str]):
        self.places = places

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> "ModuleSpec | None":
        """Find the import specification of an allowed package, or None."""
        from importlib.util import spec_from_file_location

        place = self.places.get(name)
        if place is None:
            return None
        if place.endswith(".py"):
            return spec_from_file_location(name, place)
        return spec_from_file_location(name, os.path.join(place, "__init__.py"), submodule_search_locations=[place])


def serve(control: socket.socket, confinement: isolation.Confinement, disk_bytes: int) -> None:
    """Run one test after another until the grader closes the control socket."""
    active = confinement.active
    scratch = isolation.scratch_state() if "mount" in active else None
    compile("", "<nothing>", "exec")  # makes the compiler's types, 150 pages that else each child makes for itself
    gc.collect()
    gc.freeze()  # a collection in a child need not touch, and so copy, what is already here
    if "pid" in active:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process of a namespace only gets what it handles
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        if message != RUN or len(descriptors) != 2:
            return
        try:
            child = os.fork()
        except OSError:
            control.send(ENDED.pack(NO_FORK, 0.0))
            continue
        if child == 0:
            _run_and_exit(confinement, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        status, cpu_seconds = _wait(child, control)
        if "pid" in active:
            _end_all_others()
        if "mount" in active and isolation.scratch_state() != scratch:
            isolation.fresh_scratch(disk_bytes)
            scratch = isolation.scratch_state()
            confinement.make_rule_set()
        control.send(ENDED.pack(status, cpu_seconds))


def _become_first_process(control: socket.socket) -> None:
    """Goes on as the first process of the new process-id space; this one only waits for it."""
    child = os.fork()
    if child:
        control.close()
        os.waitpid(child, 0)
        os._exit(0)
    isolation.die_with_parent()


def _holds(confine: Callable[[set[str]], isolation.Confinement], layers: set[str]) -> bool:
    """Whether a child can lock itself up with these layers and still read its library."""
    child = os.fork()
    if child == 0:
        try:
            confine(layers).apply()
            with open(os.__file__) as library:
                library.read(1)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _wait(child: int, control: socket.socket) -> tuple[int, float]:
    """Wait for the child and return its wait status and CPU seconds. Ends this process if the grader is gone first."""
    handle = os.pidfd_open(child)
    watched: list[int | socket.socket] = [handle, control]
    ready, _, _ = select.select(watched, [], [])
    os.close(handle)
    if control in ready:  # nothing is sent while a test runs: this is the end of the socket
        os.kill(child, signal.SIGKILL)
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    return status, usage.ru_utime + usage.ru_stime


def _end_all_others() -> None:
    """Kills and reaps whatever the child left in this process-id space."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _run_and_exit(confinement: isolation.Confinement, request: int, result: int) -> None:
    """Live the whole life of a child: lock up, read the request, run it, send one message. Never returns."""
    leave, write = os._exit, os.write
    status = NOT_CONFINED
    try:
        confinement.apply()
        status = 0
        for first, last in itertools.pairwise((2, *sorted((request, result)), isolation.MAX_DESCRIPTORS)):
            os.closerange(first + 1, last)
        source, calls, scope, alarm = _read_request(request)
        body = _outcomes(source, calls, scope) if len(calls) > 1 else _outcome(source, calls[0], scope, alarm)
        message = LENGTH.pack(len(body)) + body
        while message:
            message = message[write(result, message) :]
    finally:
        leave(status)


def _read_request(descriptor: int) -> tuple[str, list[str], bytes, float]:
    """Source, calls, scope and seconds to an alarm of a request. Closes the descriptor."""
    content = b""
    while piece := os.read(descriptor, os.fstat(descriptor).st_size):
        content += piece
    os.close(descriptor)
    scope, alarm, length = REQUEST.unpack_from(content)
    source, calls = content[REQUEST.size : REQUEST.size + length], content[REQUEST.size + length :]
    texts = [call.decode("utf-8", "surrogatepass") for call in calls.split(BETWEEN_CALLS)]
    return source.decode("utf-8", "surrogatepass"), texts, scope, alarm


def _outcomes(source: str, calls: list[str], scope: bytes) -> bytes:
    """Make all calls of a reference, each with a module of its own, and return the body of the one message about them.

    All are made in order and once more in reverse. If one fails or differs, the grader has to run each alone.
    """
    bodies = [_outcome(source, call, scope, 0.0) for call in calls]
    again = [_outcome(source, call, scope, 0.0) for call in reversed(calls)]
    if bodies != again[::-1] or any(body[:1] != KINDS["value"] for body in bodies):
        return APART
    return TOGETHER + b"".join(LENGTH.pack(len(body)) + body for body in bodies)


def _outcome(source: str, call: str, scope: bytes, alarm: float) -> bytes:
    """Make the call after the source has run, and return the body of the one message about it."""
    text, encode = _text, encoding.encode  # an answer can replace what is looked up later
    try:
        code = _compile(source)
    except (SyntaxError, ValueError) as error:
        return KINDS["syntax-error"] + text(error)
    except MemoryError:
        return KINDS["memory"]
    except BaseException as error:
        return KINDS["error"] + text(error)
    try:
        expression = compile(call, "<call>", "eval", dont_inherit=True)
    except BaseException as error:
        return KINDS["error"] + b"the test is not an expression: " + text(error)
    try:
        names = _module(source + call, scope)
        local = names if scope == SCOPES["module"] else {"function_definition": source, "test_case": call}
        if alarm:
            _set_alarm(alarm)
        exec(code, names, local)
        value = eval(expression, names, local)
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return KINDS["value"] + encode(value)
    except encoding.Unsupported as error:
        return KINDS["unsupported"] + text(error)
    except MemoryError:
        return KINDS["memory"]
    except Alarm as error:
        return KINDS["timeout"] + text(error)
    except BaseException as error:
        return KINDS["error"] + text(error)


@functools.cache
def _compile(source: str) -> types.CodeType:
    return compile(source, "<answer>", "exec", dont_inherit=True)


class Alarm(TimeoutError):
    """What the released grader throws into an answer after a second. The answer can catch it, and go on."""


def _set_alarm(seconds: float) -> None:
    def ring(*_: object) -> None:
        raise Alarm(f"more than {seconds:g} s, the released grader's limit")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _module(text: str, scope: bytes) -> dict[str, object]:
    """Make the names of a fresh module: all of `typing`, or in "function" what the released grader's own module
    imports.

    Only those that occur in `text` are put there: every object touched in a child is a page to copy.
    """
    module = types.ModuleType("answer")
    sys.modules["answer"] = module  # dataclasses and pickle look their module up
    names = module.__dict__
    if scope == SCOPES["module"]:
        names.update({name: getattr(typing, name) for name in typing.__all__ if name in text})
    else:
        for name, (place, attribute) in RELEASED_NAMES.items():
            if name in text:
                module = importlib.import_module(place)
                names[name] = getattr(module, attribute) if attribute else module
    return names


def _text(error: BaseException) -> bytes:
    """Format the kind and message of an error, short; for display only."""
    try:
        return f"{type(error).__name__}: {error!s:.{MAX_DETAIL}}".encode("utf-8", "backslashreplace")[:MAX_DETAIL]
    except BaseException:
        return b"an error without a readable text"


if __name__ == "__main__":
    main()
