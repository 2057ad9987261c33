"""What the tests of the grader share: graders, a canary, and a look at what an attack has left."""

import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from colbench_env.grading import Grader, Limits
from colbench_env.types import Task
from tests.colbench_env.chromium import with_sheet

TASK = Task("A task.", "def f(x): return x*7+3  # marker-91", {f"test{x}": f"f({x})" for x in range(1, 11)})
LIMITS = Limits(test_seconds=1.0, answer_seconds=1.2, memory_bytes=512 << 20)
CLOCK = 15.0  # seconds for any attack, on a busy machine
CANARY = f"canary-5e1f0c-{os.getpid()}"  # tests that run side by side have sockets of their own


def traces():
    """Files named like those that the attacks write: pairs of a folder and a name."""
    return {
        (folder, name)
        for folder in ("/tmp", "/dev/shm", ".")
        for name in os.listdir(folder)
        if name.startswith(("fill", "seen", "d.e"))
    }


STRANGERS = traces()  # the user's own, there before any attack


@pytest.fixture(scope="module")
def strict():
    with Grader(workers=1) as grader:
        yield grader


@pytest.fixture(scope="module")
def official():
    with Grader(mode="official", workers=1) as grader:
        yield grader


@pytest.fixture(scope="module")
def attacked():
    """A grader, in a process whose environment has a secret, and that listens on an abstract socket."""
    os.environ["CANARY"] = CANARY
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(f"\0{CANARY}")
        ear.setblocking(False)
        with Grader(workers=1, limits=LIMITS) as grader:
            yield grader
        with pytest.raises(BlockingIOError):
            ear.recv(100)
    del os.environ["CANARY"]
    assert descendants() == set()


@pytest.fixture
def canary():
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: here every user may read, write and delete
        file = Path(folder, "canary")
        file.write_text(CANARY)
        for path in (folder, file):
            os.chmod(path, 0o777)
        yield file
        assert file.read_text() == CANARY
        assert file.stat().st_mode & 0o777 == 0o777


def aimed(attack, canary):
    """Write into an attack what it is after: the canary's file and the name of its socket, the grader's process."""
    return attack.replace("CANARY_FILE", str(canary)).replace("CANARY", CANARY).replace("GRADER", str(os.getpid()))


@pytest.fixture
def withstand(attacked, canary):
    """Grades an attack: its grade, after all checks that hold whatever it scores."""

    def grade(answer):
        answer = aimed(answer, canary)
        start = time.monotonic()
        grade = attacked.grade(TASK, answer)
        assert time.monotonic() - start < CLOCK
        assert grade.total == 10
        assert CANARY not in str(grade)
        str(grade).encode()
        assert_that_nothing_is_left(attacked)
        return grade

    return grade


def descendants():
    """The processes that this one has started, and theirs."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {os.getpid()}
    while new := {process for process, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {os.getpid()}


def assert_that_nothing_is_left(grader):
    """Two workers, each with the process that waits for it, and no file of an attack."""
    deadline = time.monotonic() + 5
    while len(left := descendants()) > 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(left) <= 4
    assert traces() <= STRANGERS
    assert grader.grade(TASK, f"def f(x): return x*7+3 # {time.monotonic()}").reward == 1
    assert grader.grade(TASK, f"def f(x): return x*7+4 # {time.monotonic()}").reward == 0


@pytest.fixture(scope="module")
def assets(tmp_path_factory) -> Path:
    """A folder with the stylesheet of the renderer's tests."""
    return with_sheet(tmp_path_factory.mktemp("assets"))
