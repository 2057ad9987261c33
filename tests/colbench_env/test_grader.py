"""Grades of honest and mistaken answers, in both modes; limits, layers and failures of the machine."""

import math
import os
import sys
import time

import pytest

from colbench_env.grading import Grader, Limits, TestVerdict, Verdict, encoding
from colbench_env.grading import grader as grader_module
from colbench_env.grading.isolation import LAYERS
from colbench_env.grading.sandbox import Sandbox, SandboxError
from colbench_env.types import BadInput, Task

REFERENCE = "def f(x): return x*7+3"


def task(reference=REFERENCE, *calls):
    calls = calls or [f"f({x})" for x in range(1, 11)]
    return Task("A task.", reference, {f"test{number}": call for number, call in enumerate(calls, 1)})


def verdicts(grade):
    return [str(test.verdict) for test in grade.verdicts]


def test_a_grade_says_what_passed_and_shows_both_values(strict):
    grade = strict.grade(task(REFERENCE, "f(1)", "f(2)"), "def f(x): return 10")
    assert grade.verdicts == (
        TestVerdict("test1", Verdict.PASS, got="10", expected="10"),
        TestVerdict("test2", Verdict.WRONG, got="10", expected="17"),
    )
    assert (grade.passed, grade.total, grade.fraction, grade.reward, grade.success) == (1, 2, 0.5, 0.5, False)


HONEST = {
    "one line": ("def f(x): return x*7+3", 1, 1),
    "import, helper, recursion": (
        "import math\ndef g(x): return 0 if x==0 else 7+g(x-1)\ndef f(x): return math.floor(g(x)+3)",
        1,
        0,
    ),
    "import inside": ("def f(x):\n import math\n return math.floor(x*7+3)", 1, 1),
    "a fence and prose": ("Here:\n```python\ndef f(x):\n    return x*7+3\n```\nBye.", 1, 1),
    "another fence": ("```py\ndef f(x):\n    return x*7+3\n```", 1, 0),
    "typing names without import": ("def f(x: List[int]) -> Optional[int]: return x*7+3", 1, 0),
    "blocked words inside words": ("def f(x):\n '''on_exit()'''\n return x*7+3", 1, 0),
    "print and stderr": ("import sys\ndef f(x):\n print(x)\n sys.stderr.write('x')\n return x*7+3", 1, 0),
    "a dataclass": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
        "def f(x): return P(x).x*7+3",
        1,
        0,
    ),
    "a temporary file": (
        "def f(x):\n import tempfile\n with tempfile.TemporaryFile('w+') as t:\n"
        "  t.write(str(x*7+3)); t.seek(0); return int(t.read())",
        1,
        1,
    ),
    "a thread": (
        "def f(x):\n from concurrent.futures import ThreadPoolExecutor as P\n"
        " with P(2) as p: return list(p.map(lambda y: y*7+3, [x]))[0]",
        1,
        1,
    ),
    "main block": ("def f(x): return x*7+3\nif __name__ == '__main__': print(input())", 1, 1),
    "a float for an int": ("def f(x): return float(x*7+3)", 1, 1),
    "text for an int": ("def f(x): return str(x*7+3)", 0, 0),
    "off by one": ("def f(x): return x*7+4", 0, 0),
}


@pytest.mark.parametrize(("answer", "in_strict", "in_official"), HONEST.values(), ids=HONEST)
def test_each_mode_grades_by_its_own_rules(strict, official, answer, in_strict, in_official):
    some = task(REFERENCE, "f(1)", "f(2)")
    assert (strict.grade(some, answer).reward, official.grade(some, answer).reward) == (in_strict, in_official)


@pytest.mark.parametrize(
    ("expected", "value", "in_strict", "in_official"),
    [
        ("1", "True", 1, 1),
        ("1", "1.0", 1, 1),
        ("[1, 2]", "[1.0, 2]", 1, 1),
        ("[1]", "(1,)", 0, 0),
        ("0.3", "0.1 + 0.2", 0, 0),
        ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}", 1, 1),
        ("{'a': 1}", "__import__('collections').Counter('a')", 1, 1),
        ("__import__('collections').Counter(a=1)", "__import__('collections').Counter(a=1, b=0)", 1, 1),
        ("__import__('collections').OrderedDict(a=1, b=2)", "__import__('collections').OrderedDict(b=2, a=1)", 0, 0),
        ("__import__('collections').OrderedDict(a=1, b=2)", "{'b': 2, 'a': 1}", 1, 1),
        ("{1, 2, 3}", "{3, 2, 1}", 1, 1),
        ("frozenset({1})", "{1}", 1, 1),
        ("{'a', 'b'}", "['a', 'b']", 0, 0),
        ("None", "None", 1, 0),
        ("None", "0", 0, 0),
        ("float('nan')", "float('nan')", 1, 0),
        ("[float('nan'), 1]", "[float('nan'), 1]", 1, 0),
        ("{'a': float('nan')}", "{'a': -float('nan')}", 1, 0),
        ("float('nan')", "0.0", 0, 0),
        ("int", "int", 1, 1),
        ("int", "bool", 0, 0),
        ("'a'", "b'a'", 0, 0),
        ("__import__('decimal').Decimal('sNaN')", "__import__('decimal').Decimal('sNaN')", 0, 0),
        ("10**5000", "10**5000", 1, 1),
    ],
)
def test_values_compare_by_the_written_rules(strict, official, expected, value, in_strict, in_official):
    some, answer = task(f"def f(x): return {expected}", "f(1)"), f"def f(x): return {value}"
    assert (strict.grade(some, answer).reward, official.grade(some, answer).reward) == (in_strict, in_official)


def test_what_goes_wrong_has_a_name(strict):
    some = task(REFERENCE, "f(1)")
    found = {
        answer: verdicts(strict.grade(some, answer))[0]
        for answer in (
            "No answer",
            "def f(x) return",
            "x = '\x00'",
            "def f(x): return 1/0",
            "import nothing_of_this_name",
            "def g(x): return 1",
            "def f(x): return object()",
            "def f(x): return bytearray(1 << 40)",
            "import os\ndef f(x): os._exit(0)",
            "def f(x): raise MemoryError",
        )
    }
    assert list(found.values()) == [
        "no-answer",
        "syntax-error",
        "syntax-error",
        "error",
        "error",
        "error",
        "unsupported",
        "memory",
        "crash",
        "memory",
    ]


def test_a_reference_that_fails_is_not_the_answer_s_fault_but_no_pass_either(strict):
    grade = strict.grade(task("def f(x): return 1 // (x - 1)", "f(1)", "f(2)"), "def f(x): return 1")
    assert verdicts(grade) == ["reference-error", "pass"]
    assert grade.verdicts[0].detail.startswith("error: ZeroDivisionError")


def test_sets_of_strings_have_the_same_order_for_reference_and_answer(strict):
    code = "def f(x): return list({str(n) for n in range(x)})"
    assert strict.grade(task(code, "f(50)"), code + "\n").success


def test_numpy_can_be_imported_where_it_is_installed_and_our_own_code_cannot(strict):
    pytest.importorskip("numpy")
    code = "import numpy as np\ndef f(x): return [np.float64(x), np.arange(x)]"
    assert strict.grade(task(code, "f(3)"), code + "\n").success
    grade = strict.grade(task(REFERENCE, "f(1)"), "import colbench_env\ndef f(x): return 10")
    assert "No module named 'colbench_env'" in grade.verdicts[0].detail


@pytest.mark.parametrize("off", [(), ("mount",)], ids=["all layers", "no mount"])
def test_an_answer_sees_one_descriptor_and_nothing_of_what_is_installed_here(off):
    places = [os.path.realpath(path) for path in sys.path]
    code = f"""
import os
def is_open(number):
    try: return os.fstat(number) is not None
    except OSError: return False
def is_readable(path):
    try: return bool(open(path).close)
    except OSError: return False
def f(x):
    files = [place + '/' + name + '/__init__.py' for place in {places} for name in ('pytest', 'colbench_env')]
    seen = [file for file in files if is_readable(file)]
    return sum(is_open(number) for number in range(2000)), seen, dict(os.environ).get('PATH')"""
    spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]  # so that the worker's socket has a high number
    with Grader(workers=1, without=off) as grader:
        grade = grader.grade(task("def f(x): return 4, [], None", "f(1)"), code)
    for number in spare:
        os.close(number)
    assert (grade.verdicts[0].got or grade.verdicts[0].detail) == "(4, [], None)"


def test_many_answers_keep_their_order_and_equal_ones_are_run_once(monkeypatch):
    runs = []
    run = Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda self, *what: runs.append(what[:2]) or run(self, *what))
    tasks = [task(f"def f(x): return x + {n}", "f(1)") for n in range(6)]
    items = [(each, f"def f(x): return x + {n % 3}") for n, each in enumerate(tasks)] * 2
    seen = {}
    with Grader(workers=2) as grader:
        runs.clear()
        grades = grader.grade_many(items, on_done=seen.__setitem__)
    assert [grade.reward for grade in grades] == [1, 1, 1, 0, 0, 0] * 2
    assert seen == dict(enumerate(grades))
    assert len(runs) == 6 + 6  # references, answers


def test_an_answer_that_was_begun_is_graded_once_and_its_error_waits(monkeypatch):
    graded, grade = [], Grader.grade
    monkeypatch.setattr(Grader, "grade", lambda self, *what: graded.append(what[1]) or grade(self, *what))
    with Grader(workers=1) as grader:
        for answer in ("def f(x): return 0", REFERENCE, REFERENCE):
            grader.begin(task(), answer)
        assert [one.success for one in grader.grade_many([(task(), REFERENCE), (task(), "def f(x): return 0")])] == [
            True,
            False,
        ]
        assert graded == ["def f(x): return 0", REFERENCE]
        grader.begin(Task("A task.", REFERENCE, {}), REFERENCE)
        with pytest.raises(BadInput, match="has no test_cases"):
            grader.grade_many([(Task("A task.", REFERENCE, {}), REFERENCE)])
        assert grader.grade_many([(task(), REFERENCE)])[0].success


def test_a_grader_that_is_closed_does_not_wait_for_all_that_was_begun():
    start = time.monotonic()
    with Grader(workers=1, limits=Limits(test_seconds=0.3, answer_seconds=0.3)) as grader:
        for number in range(60):
            grader.begin(task(), f"while True: pass  # {number}")
    assert time.monotonic() - start < 10  # all of them take 18


@pytest.mark.slow
def test_time_is_bounded_for_a_test_and_for_an_answer():
    with Grader(workers=1, limits=Limits(test_seconds=0.3, answer_seconds=0.5)) as grader:
        grader.grade(task(), "def f(x): return 0")
        start = time.monotonic()
        grade = grader.grade(task(), "def f(x):\n while x > 1: pass\n return 10")
        assert time.monotonic() - start < 5
        assert verdicts(grade) == ["pass"] + ["timeout"] * 9
        assert "used up" in grade.verdicts[-1].detail
        assert grader.grade(task(), REFERENCE + "\n").success


def test_a_failing_machine_is_tried_again_then_excluded_and_counted(monkeypatch):
    failures = [2]

    def run(self, source, call, *how):
        if failures[0] and call == "f(2)" and "answer" in source:
            failures[0] -= 1
            raise SandboxError("out of processes")
        return real(self, source, call, *how)

    real = Sandbox.run
    monkeypatch.setattr(Sandbox, "run", run)
    some = task(REFERENCE, "f(1)", "f(2)")
    with Grader(workers=1) as grader:
        assert grader.grade(some, REFERENCE + " # answer").success
        failures[0] = 99
        grade = grader.grade(some, REFERENCE + " # answer 2")
        assert verdicts(grade) == ["pass", "crash"]  # it alone brings the worker down, a harmless test does not

        def always(self, *what):
            raise SandboxError("out of processes")

        monkeypatch.setattr(Sandbox, "run", always)
        grade = grader.grade(some, REFERENCE + " # answer 3")
    assert verdicts(grade) == ["infrastructure-error"] * 2
    assert (grade.total, grade.excluded, grade.success) == (0, 2, False)
    assert math.isnan(grade.reward)


def test_a_worker_killed_from_outside_is_started_again(strict):
    some = task(REFERENCE, "f(1)")
    assert strict.grade(some, REFERENCE).success
    sandbox = strict._pairs[0].answers
    os.killpg(sandbox._process.pid, 9)
    assert strict.grade(some, REFERENCE + "\n").success


# What still isolates when a machine forbids the rest; as in a container without namespaces, or an old kernel.
FALLBACKS = [
    *((layer,) for layer in LAYERS),
    ("pid", "mount", "network", "ipc"),
    ("landlock", "seccomp"),
    ("pid", "uid"),
]


@pytest.mark.slow
@pytest.mark.parametrize("off", FALLBACKS, ids="-".join)
def test_fewer_layers_still_hold_and_are_named(off):
    try:
        grader = Grader(workers=1, without=off)
    except BadInput as error:
        pytest.skip(f"the other layers are not to be had here: {error}")
    with grader:
        assert list(grader.layers) == list(LAYERS)
        assert not any(grader.layers[name] for name in off)
        assert "not active: " + ", ".join(name for name in LAYERS if not grader.layers[name]) in grader.layers_text()
        fork = "def f(x):\n import os\n if os.fork() == 0:\n  while 1: pass\n return x*7+3"
        for answer, reward in [(REFERENCE, 1), ("def f(x): return 0", 0)]:
            assert grader.grade(task(), answer).reward == reward
        grader.grade(task(REFERENCE, "f(1)"), fork)
        assert grader.grade(task(), REFERENCE + "\n").success


def test_a_machine_that_isolates_nothing_is_refused_unless_told(monkeypatch):
    with pytest.raises(BadInput, match="read a file of the user, write next to it, change the rights.*unsafe"):
        Grader(without=LAYERS)
    with Grader(workers=1, without=LAYERS, unsafe=True) as grader:
        assert "read a file of the user" in grader.escapes
        assert grader.layers_text().startswith("sandbox: none; not active: pid, mount")
        assert grader.grade(task(), REFERENCE).success
    monkeypatch.setattr(grader_module.sys, "platform", "plan9")
    with pytest.raises(BadInput, match="plan9"):
        Grader()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grader(mode="loose"), "'loose', expected one of strict, official"),
        (lambda: Grader(workers=0), "0 grading workers"),
        (lambda: Limits(test_seconds=0), "0 s for a test"),
        (lambda: Limits(test_seconds=9, answer_seconds=3), "9 s for a test and 3 s for an answer"),
        (lambda: Limits(memory_bytes=1), "128 MiB"),
    ],
)
def test_impossible_settings_are_refused_with_their_numbers(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_a_task_without_tests_is_refused(strict):
    with pytest.raises(BadInput, match="has no test_cases"):
        strict.grade(Task("A page.", "<html>"), "x")
    with pytest.raises(BadInput, match="has no reference"):
        strict.grade(Task("A task.", "", {"test1": "f(1)"}), "x")


def test_what_is_expected_is_what_the_reference_gives_and_a_random_one_is_asked_once(strict):
    first, second = strict.expected(task(REFERENCE, "f(1)", "g(1)"))
    assert (first.verdict, encoding.decode(first.encoded), second.verdict) == ("pass", 10, "error")
    drawn = task("import random\ndef f(x): return random.random()", "f(1)")
    assert strict.expected(drawn) == strict.expected(drawn)
