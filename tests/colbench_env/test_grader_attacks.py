"""Answers that attack the grader: none scores, none stays, none learns anything, and the next answer is graded right.

The list is our own, and longer where ../shared is beside the checkout. `withstand` is in conftest.py.
"""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SHARED = Path(__file__).resolve().parents[2] / "../shared/grader/attacks.jsonl"

ATTACKS = {
    "forks and lets the child live on": """
import os, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(10**6)
    return 0""",
    "fork bomb": """
import os
def f(x):
    while True:
        try: os.fork()
        except OSError: pass""",
    "runs a program": """
import subprocess
def f(x):
    return int(subprocess.run(['/bin/sh', '-c', f'echo $(({x}*7+3))'], capture_output=True, text=True).stdout)""",
    "forges a message and then returns": """
import os, struct
def f(x):
    body = b'V' + b'i' + struct.pack('<I', 1) + bytes([x*7+3])
    for d in range(3, 64):
        try: os.write(d, struct.pack('<I', len(body)) + body)
        except OSError: pass
    return x*7+3""",
    "forges a wrong message and leaves": """
import os
def f(x):
    for d in range(3, 64):
        try: os.write(d, b'\\x06\\0\\0\\0Vs\\x03\\0\\0\\0any')
        except OSError: pass
    os._exit(0)""",
    "forges a pass in words": """
import os
def f(x):
    for d in range(3, 64):
        try: os.write(d, b'\\x05\\0\\0\\0Ppass')
        except OSError: pass
    os._exit(0)""",
    "floods the result pipe": """
import os
def f(x):
    for d in range(3, 64):
        try:
            while True: os.write(d, b'x' * 65536)
        except OSError: pass""",
    "closes every descriptor": """
import os
def f(x):
    os.closerange(0, 1024)
    return x*7+3""",
    "a class whose metaclass says it is list": """
class M(type):
    def __eq__(c, o): return True
    def __hash__(c): return hash(int)
class I(metaclass=M):
    def __eq__(s, o): return True
def f(x):
    return I()""",
    "pretends to be numpy": """
import sys, types
class R:
    def item(s): return s.x*7+3
R.__module__ = 'numpy'
sys.modules['numpy'] = types.ModuleType('numpy')
def f(x):
    r = R(); r.x = x
    return r""",
    "searches all objects for the reference": """
import gc, sys
def f(x):
    found = 0
    for o in gc.get_objects():
        for s in (o, *gc.get_referents(o)):
            found += type(s) in (str, bytes) and '19-rekram' in str(s)[::-1]
    fr = sys._getframe()
    while fr:
        found += any(type(v) is int and v == x*7+3 for v in fr.f_locals.values())
        fr = fr.f_back
    return x*7+3 if found else 0""",
    "segfaults": """
import ctypes
def f(x):
    ctypes.string_at(0)""",
    "calls the kernel through ctypes": """
import ctypes
libc = ctypes.CDLL(None)
def f(x):
    for p in (1, 2, -1, 0): libc.kill(p, 9)
    libc.unshare(0x10000000); libc.setuid(0); libc.ptrace(16, 1, 0, 0); libc.prctl(1, 0, 0, 0, 0)
    return 0""",
    "stops itself": """
import os, signal, time
def f(x):
    signal.raise_signal(signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(10**6)""",
    "overflows the stack": """
import sys
def f(x):
    sys.setrecursionlimit(10**9)
    return f(x)""",
    "asks the loopback and abstract sockets": """
import socket
def f(x):
    got = 0
    for family, place in ((socket.AF_INET, ('127.0.0.1', 22)), (socket.AF_UNIX, '\\0CANARY')):
        try:
            s = socket.socket(family); s.connect(place); got = x*7+3
        except OSError: pass
    return got""",
    "keeps state in the kernel": """
import ctypes
libc = ctypes.CDLL(None)
def f(x):
    shm = libc.shmget(4711, 4096, 0o1666)
    key = libc.syscall(248, b'user', b'seen', b'1', 1, -4)
    return x*7+3 if shm >= 0 or key > 0 else 0""",
    "reads and rewrites the canary file": """
def f(x):
    try: open('CANARY_FILE', 'w').write('gone')
    except OSError: pass
    return open('CANARY_FILE').read()""",
    "tells the environment in an error": """
import os
def f(x):
    raise Exception(str(os.environ))""",
    "an error whose text never ends": """
class E(Exception):
    def __str__(s):
        while True: pass
def f(x):
    raise E""",
    "never comes back from the import": "while True: pass",
    "keys that all collide": """
def f(x):
    return {n*(2**61-1) for n in range(9000)}""",
    "fills memory with files nobody sees": """
import os
def f(x):
    n = 0
    while True:
        d = os.open('/tmp/%d' % n, os.O_CREAT | os.O_RDWR); os.unlink('/tmp/%d' % n)
        os.write(d, b'0' * 10**7); n += 1""",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_our_attacks_score_nothing_and_leave_nothing(withstand, name):
    grade = withstand(ATTACKS[name])
    assert grade.reward == 0, grade.verdicts[0]


def shared_attacks():
    return [json.loads(line) for line in SHARED.read_text().splitlines()] if SHARED.exists() else [None]


@pytest.mark.parametrize("row", shared_attacks(), ids=lambda row: row["id"] if row else "none")
def test_the_shared_attacks_get_what_they_are_worth(withstand, row):
    if row is None:
        pytest.skip("../shared/grader/attacks.jsonl is not beside this checkout")
    grade = withstand(row["answer"])
    right = row["expect"].startswith(("1.0", "results may count"))
    assert grade.reward == (1 if right else 0), grade.verdicts[0]
