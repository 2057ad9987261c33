"""Defective tests, references and answers are named; the two modes differ where their written rules do."""

import time

import pytest

from colbench_env.grading import Grader, Limits
from colbench_env.grading import grader as grader_module
from colbench_env.grading.sandbox import Sandbox
from colbench_env.types import Task

REFERENCE = "def f(x): return x*7+3"


def task(reference, *calls):
    calls = calls or [f"f({x})" for x in range(1, 11)]
    return Task("A task.", reference, {f"test{number}": call for number, call in enumerate(calls, 1)})


def verdicts(grade):
    return [str(test.verdict) for test in grade.verdicts]


def test_a_test_that_is_no_expression_is_named_and_the_rest_graded(strict):
    calls = ("f(1)", "x = f(1)", "f(", "", "import os", "f(2)")
    grade = strict.grade(task(REFERENCE, *calls), REFERENCE + "\n")
    assert verdicts(grade) == ["pass", *["reference-error"] * 4, "pass"]
    for verdict in grade.verdicts[1:5]:
        assert verdict.detail.startswith("error: the test is not an expression: SyntaxError: ")


def test_a_reference_that_does_not_parse_is_named(strict):
    grade = strict.grade(task("def f(x) return x", "f(1)"), REFERENCE)
    assert verdicts(grade) == ["reference-error"]
    assert grade.verdicts[0].detail.startswith("syntax-error: SyntaxError: expected ':'")


@pytest.mark.slow
def test_a_reference_that_never_ends_costs_its_seconds_once_and_is_named():
    endless = task("def f(x):\n while x > 1: pass\n return 10")
    with Grader(workers=1, limits=Limits(test_seconds=0.3, answer_seconds=0.5)) as grader:
        grade = grader.grade(endless, "def f(x): return 10")
        assert verdicts(grade) == ["pass"] + ["reference-error"] * 9
        assert grade.verdicts[1].detail.startswith("timeout: killed after 0.")
        assert grade.verdicts[-1].detail == "timeout: the 0.5 s for all tests were used up by those before"
        start = time.monotonic()
        assert [grader.grade(endless, f"def f(x): return {n}").passed for n in (9, 10)] == [0, 1]
        assert time.monotonic() - start < 0.5


def test_an_answer_of_ten_megabytes_is_named_and_not_run(strict, official):
    for grader in (strict, official):
        grade = grader.grade(task(REFERENCE, "f(1)"), REFERENCE + "\n#" + "x" * 10_000_000)
        assert verdicts(grade) == ["error"]
        assert grade.verdicts[0].detail == "the answer has 10000024 characters, at most 1000000 are run"


@pytest.mark.slow
def test_official_throws_a_timeout_after_a_second_that_the_answer_can_catch():
    slow = "def f(x):\n import time\n time.sleep(1.2)\n return x*7+3"
    caught = "def f(x):\n import time\n try: time.sleep(9)\n except Exception: pass\n return x*7+3"
    with Grader(mode="official", workers=2) as grader:
        grades = grader.grade_many([(task(REFERENCE, "f(1)"), answer) for answer in (slow, caught)])
    assert [verdicts(grade) for grade in grades] == [["timeout"], ["pass"]]
    assert grades[0].verdicts[0].detail == "Alarm: more than 1 s, the released grader's limit"


def test_official_has_the_names_of_the_released_module_and_strict_those_of_typing(strict, official):
    released = "def f(x): return x*7+3 if signal.SIGINT and Empty and multiprocessing else 0"
    assert official.grade(task(REFERENCE, "f(1)"), released).reward == 1
    assert strict.grade(task(REFERENCE, "f(1)"), released).reward == 0
    assert official.grade(task(REFERENCE, "f(1)"), "if test_case in function_definition: 0\n" + REFERENCE).reward == 1
    assert strict.grade(task(REFERENCE, "f(1)"), "def f(x: Optional[int]) -> Any: return x*7+3").reward == 1


@pytest.mark.slow
def test_official_compares_numpy_arrays_of_one_item_only():
    pytest.importorskip("numpy")
    import_numpy = "def f(x):\n import numpy as np\n return "
    pairs = [
        ("np.array([x])", "np.array([x])"),
        ("np.array([x])", "x"),
        ("[np.array([x]), 1]", "([[x], 1])"),
        ("np.array([x, 2])", "np.array([x, 2])"),
        ("np.array([x])", "np.array([x, x])"),
        ("np.array([])", "np.array([])"),
    ]
    for mode, rewards in (("official", [1, 1, 1, 0, 0, 0]), ("strict", [1, 0, 0, 1, 0, 1])):
        with Grader(mode=mode, workers=1) as grader:
            found = [
                grader.grade(task(import_numpy + wanted, "f(1)"), import_numpy + value).reward
                for wanted, value in pairs
            ]
        assert found == rewards


def test_references_are_run_anew_on_a_new_day_for_they_may_ask_for_the_date(monkeypatch):
    runs = []
    run = Sandbox.run_together
    monkeypatch.setattr(Sandbox, "run_together", lambda self, *what: runs.append(what[0]) or run(self, *what))
    some = task(REFERENCE, "f(1)", "f(2)")
    with Grader(workers=1) as grader:
        for number, day in enumerate((1, 1, 2)):
            monkeypatch.setattr(grader_module.time, "gmtime", lambda day=day: (2024, 2, day, 0, 0))
            assert grader.grade(some, REFERENCE + f" # answer {number}").success
    assert runs == [REFERENCE] * 2


DEPENDENT = """
import decimal
def f(x):
    if x == 1: decimal.getcontext().prec = 5
    return decimal.Decimal(1) / 3
"""


def test_tests_of_a_reference_that_depend_on_each_other_are_run_apart_like_those_of_an_answer(strict):
    for calls, lengths in ((("f(0)", "f(1)", "f(2)"), [41, 18, 41]), (("f(1)", "f(2)", "f(1)"), [18, 41, 18])):
        grade = strict.grade(task(DEPENDENT, *calls), DEPENDENT + "\n")
        assert verdicts(grade) == ["pass"] * 3
        assert [len(test.expected) for test in grade.verdicts] == lengths


def test_one_failing_test_of_a_reference_leaves_the_others_as_they_are(strict):
    for failure in ("1/0", "exit(3)", "__import__('os')._exit(3)", "__import__('ctypes').string_at(0)"):
        some = task(f"def f(x): return x if x != 2 else {failure}", "f(1)", "f(2)", "f(3)")
        assert verdicts(strict.grade(some, "def f(x): return x")) == ["pass", "reference-error", "pass"]


def test_a_compared_literal_is_never_decided_by_the_answer(strict, official):
    equal_to_all = "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()"
    local = "def f(x):\n    class E:\n        def __eq__(self, other): return True\n    return E()"
    some = task(REFERENCE, "f(1) == 10", "f(2) == 17")
    assert verdicts(strict.grade(some, equal_to_all)) == ["unsupported"] * 2
    assert verdicts(official.grade(some, local)) == ["unsupported"] * 2
    for grader in (strict, official):
        assert grader.grade(some, REFERENCE).success
        assert grader.grade(some, "def f(x): return 0").passed == 0
    wrong_literal = task(REFERENCE, "f(1) == 11")
    assert strict.grade(wrong_literal, "def f(x): return 0").reward == 0
    assert official.grade(wrong_literal, "def f(x): return 0").reward == 1
