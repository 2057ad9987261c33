"""More attacks: on the kernel, on other processes, on the worker's own code, on the clock and on what a test leaves."""

import pytest

from colbench_env.grading import Grader, Limits
from colbench_env.types import BadInput, Task
from tests.colbench_env.conftest import aimed

pytestmark = pytest.mark.slow

ATTACKS = {
    "talks to an abstract socket over a pair of sockets": """
import socket
def f(x):
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a.sendto(b'let me out', '\\0CANARY')
    return x*7+3""",
    "lowers the limits of the grader": """
import ctypes, resource
def f(x):
    for p in (GRADER, 1, 2):
        resource.prlimit(p, resource.RLIMIT_CPU, (0, 0))
    return x*7+3""",
    "has the kernel send signals to others": """
import fcntl, os
def f(x):
    r, w = os.pipe()
    fcntl.fcntl(r, fcntl.F_SETOWN, GRADER)
    fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)
    os.write(w, b'x')
    return x*7+3""",
    "starts processes by every system call": """
import ctypes, os
libc = ctypes.CDLL(None)
def f(x):
    for call in ((57,), (58,), (56, 17, 0), (435, b'\\0' * 88, 88), (59, b'/bin/sh', 0, 0)):
        if libc.syscall(*call) >= 0: return x*7+3
    return 0""",
    "opens every door of the kernel": """
import ctypes, os
libc = ctypes.CDLL(None)
def f(x):
    doors = ((425, 4, bytes(120)), (319, b'm', 0), (323, 0), (321, 0, bytes(72), 72), (298, bytes(120), 0, -1, -1, 0),
             (206, 64, bytes(8)), (310, 1, 0, 0, 0, 0, 0), (101, 16, 1, 0, 0), (434, 1, 0), (304, -100, bytes(128), 0),
             (41, 1, 1, 0), (272, 0x10000000), (165, b'none', b'/tmp', b'tmpfs', 0, 0), (154, 1, bytes(16), 16))
    opened = [door[0] for door in doors if libc.syscall(*door) >= 0]
    return opened or 0""",
    "gives the encoder another code": """
import gc, types
def f(x):
    def claim(value): return b'T'
    for o in gc.get_objects():
        if isinstance(o, types.FunctionType) and o.__name__ in ('encode', '_text', '_outcome', 'judge', 'equal'):
            o.__code__ = (lambda *a: b'T').__code__
    return 0""",
    "patches what the harness calls later": """
import builtins, json, os, struct, sys
def f(x):
    for module in list(sys.modules.values()):
        for name in ('encode', 'write', 'pack', 'dumps', '_exit', 'setitimer'):
            try: setattr(module, name, lambda *a, **k: b'VT')
            except Exception: pass
    for name in ('type', 'len', 'isinstance', 'BaseException', 'MemoryError'):
        setattr(builtins, name, lambda *a: int)
    return [0]""",
    "traces the frames of the harness": """
import sys, threading
def spy(frame, event, argument):
    for name, value in list(frame.f_locals.items()):
        if name in ('value', 'got', 'wanted', 'verdict', 'body', 'kind'): frame.f_locals[name] = b'VT'
    return spy
def f(x):
    sys.settrace(spy); sys.setprofile(spy); threading.settrace(spy)
    frame = sys._getframe()
    while frame: frame.f_trace = spy; frame = frame.f_back
    return 0""",
    "sends its value and goes on for ever": """
import os, struct
def f(x):
    for d in range(3, 64):
        try: os.write(d, struct.pack('<I', 6) + b'Vi' + struct.pack('<I', 1)[:3] + bytes([0]))
        except OSError: pass
    while True: pass""",
    "sends byte after byte": """
import os, time
def f(x):
    while True:
        for d in range(3, 64):
            try: os.write(d, b'\\0')
            except OSError: pass
        time.sleep(0.01)""",
    "uses up all inodes and hides files": """
import os
def f(x):
    n = 0
    try:
        while True:
            os.mkdir('/tmp/seen%d' % n); n += 1
    except OSError: pass
    return os.listdir('/tmp') and 0""",
    "marks the scratch folder itself": """
import os
def f(x):
    seen = oct(os.stat('/tmp').st_mode)[-4:] != '1777' or bool(os.listxattr('/tmp')) or os.stat('/tmp').st_mtime < 10**6
    for mark in (lambda: os.utime('/tmp', (1, 1)), lambda: os.setxattr('/tmp', 'user.seen', b'1')):
        try: mark()
        except OSError: pass
    return x*7+3 if seen else 0""",
    "makes threads that outlive the result": """
import threading, time
def f(x):
    for _ in range(8):
        threading.Thread(target=lambda: time.sleep(10**6) or f(x)).start()
    return 0""",
    "leaves work for the end": """
import atexit, gc, faulthandler, sys, time, weakref
class D:
    def __del__(s): time.sleep(10**6)
d = D(); d.me = d
atexit.register(time.sleep, 10**6)
faulthandler.dump_traceback_later(0.1, repeat=True, file=open('/dev/null', 'w'))
def f(x): return 0""",
    "subclasses, generators, coroutines and keys with opinions": """
class K(str):
    def __eq__(s, o): return True
    def __hash__(s): return 0
class M(type):
    __class__ = property(lambda s: type)
    def __eq__(s, o): return True
    def __hash__(s): return hash(int)
async def later(): return 10
def f(x):
    late = later(); late.close()
    return [K('a'), {K('b'): 1}, (n for n in [x*7+3]), M('int', (int,), {})(x*7+3), late][x % 5]""",
    "an error with a class of its own making": """
class M(type):
    @property
    def __name__(c): raise SystemExit(0)
class E(BaseException, metaclass=M):
    def __str__(s): raise E
def f(x): raise E""",
    "a huge mapping into shared memory": """
import mmap
def f(x):
    m = mmap.mmap(-1, 1 << 33)
    return x*7+3""",
    "changes the rights of the canary": """
import os, shutil
def f(x):
    path = 'CANARY_FILE'
    tries = (os.chmod, 0), (os.truncate, 0), (os.utime,), (os.chown, 1, 1), (os.rename, path + '.gone'), (os.unlink,)
    for change, *arguments in tries:
        try: change(path, *arguments); return x*7+3
        except OSError: pass
    return 0""",
    "runs a program of the library": """
import glob, os
def f(x):
    for p in (*glob.glob('/lib*/ld-linux*'), *glob.glob('/lib/*/ld-linux*'), '/usr/bin/python3', '/proc/self/exe'):
        try: os.posix_spawn(p, [p, '--help'], {}); return x*7+3
        except OSError: pass
    return 0""",
    "throws its own verdict out of the harness": """
import sys
def f(x):
    frame = sys._getframe()
    while frame:
        for name in ('Unsupported', 'Alarm'):
            kind = frame.f_globals.get(name)
            if kind: raise kind('pass')
        frame = frame.f_back
    return 0""",
    "reads what is left of the request": """
import os
def f(x):
    for d in range(0, 64):
        for how in (lambda: os.lseek(d, 0, 0), lambda: os.pread(d, 10**6, 0)):
            try:
                if b'f(' in (how() or b''): return x*7+3
            except (OSError, TypeError): pass
    for p in ('/proc/self/environ', '/proc/self/cmdline', '/proc/1/cmdline', '/proc/self/mem', '/etc/passwd'):
        try: return open(p).read(1) and x*7+3
        except OSError: pass
    return 0""",
    "stops and ignores all signals": """
import os, signal, time
def f(x):
    for s in range(1, 65):
        try: signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError): pass
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    time.sleep(10**6)""",
    "raises its priority over the grader's": """
import os
def f(x):
    os.setpriority(os.PRIO_PROCESS, 1, 19); os.sched_setaffinity(1, {0})
    return x*7+3""",
    "surrogates in every text": """
def f(x): raise ValueError('\\ud800' * 100, {'\\udfff': '\\0'})""",
    "a value that takes long to show": """
def f(x): return [10**4000] * 200""",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_on_kernel_harness_and_clock_score_nothing_and_leave_nothing(withstand, name):
    grade = withstand(ATTACKS[name])
    assert grade.reward == 0, grade.verdicts[0]


def test_a_container_without_namespaces_where_all_share_one_user_holds_too(canary):
    try:
        grader = Grader(without=("pid", "mount", "network", "ipc", "uid"), workers=1, limits=Limits(1.0, 1.2))
    except BadInput as error:
        pytest.skip(f"Landlock and seccomp are not to be had here: {error}")
    some = Task("A task.", "def f(x): return x*7+3", {"test1": "f(1)"})
    with grader:
        assert "not active: pid, mount, network, ipc, uid" in grader.layers_text()
        for name in (
            "changes the rights of the canary",
            "lowers the limits of the grader",
            "has the kernel send signals to others",
            "starts processes by every system call",
            "raises its priority over the grader's",
            "talks to an abstract socket over a pair of sockets",
            "reads what is left of the request",
        ):
            attack = aimed(ATTACKS[name], canary)
            assert grader.grade(some, attack).reward == 0, name
        assert grader.grade(some, "def f(x): return x*7+3").reward == 1
