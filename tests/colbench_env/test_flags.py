"""Flags of doubtful tasks, read off the source and observed in the sandbox."""

from decimal import Decimal
from pathlib import Path

import pytest

from colbench_env.flags import Flag, observed_flags, outcome_flags, source_flags
from colbench_env.grading import Grader, encoding
from colbench_env.grading.answers import parse_case
from colbench_env.grading.verdicts import Outcome
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Task, Verdict

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def task(reference, *calls):
    return Task("A task.", reference, {f"test{number}": call for number, call in enumerate(calls or ["f(1)"], 1)})


@pytest.mark.parametrize(
    ("reference", "call", "flags"),
    [
        ("def f(x): return x", "f(1)", set()),
        ("def f(x):\n    import random as r\n    return r.random()", "f(1)", {Flag.RANDOM}),
        ("from random import choice\ndef f(x): return choice(x)", "f([1, 2])", {Flag.RANDOM}),
        ("import random\ndef f(x):\n    random.seed(3)\n    return random.random()", "f(1)", set()),
        ("import random\ndef f(x):\n    random.seed()\n    return random.random()", "f(1)", {Flag.RANDOM}),
        ("import random\ndef f(x): return random.Random(x).random()", "f(1)", set()),
        ("import os\ndef f(x): return os.urandom(x)", "f(1)", {Flag.RANDOM}),
        ("from uuid import uuid4\ndef f(x): return str(uuid4())", "f(1)", {Flag.RANDOM}),
        ("import numpy as np\ndef f(x): return np.random.rand()", "f(1)", {Flag.RANDOM}),
        ("from datetime import datetime\ndef f(x): return datetime.now().year - x", "f(1)", {Flag.RANDOM}),
        ("import time\ndef f(x): return time.time() - x", "f(1)", {Flag.RANDOM}),
        ("def f(x): return float('NaN')", "f(1)", {Flag.NAN}),
        ("def f(x): return x", "f([float('-nan')])", {Flag.NAN}),
        ("import math as m\ndef f(x): return m.nan", "f(1)", {Flag.NAN}),
        ("from math import nan\ndef f(x): return nan", "f(1)", {Flag.NAN}),
        ("def f(x): return float('inf')", "f('nan, banana')", set()),
        ("def f(x): return x", "f(1) == [1, -2]", {Flag.COMPARISON}),
        ("def f(x): return x", " f(1) == 1", {Flag.COMPARISON}),
        ("def f(x): return x", "f(1) == f(2)", set()),
        ("def f(x): return x", "f(1) <= 1", set()),
        ("def f(x): return x", "f(1 == 1)", set()),
        ("def f(x):\n    from surely_not_there.x import y", "f(1)", {Flag.MISSING_MODULE}),
        ("import os.path, collections.abc\nfrom json import loads\ndef f(x): return x", "f(1)", set()),
        ("import surely_not_there\ndef f(x)", "f(1) == 1", {Flag.COMPARISON}),
        ("import random", "f(", {Flag.RANDOM}),
        ("def f(x): return '\\d'", "f('\\d')", set()),
        ("<p>import random</p>", "f(1)", set()),
        ("a\0b", "f(\0)", set()),
        ("x = '\ud800'", "f('\ud800')", set()),
        ("import random\n" + "-" * 200_000 + "1", "f" + "(" * 200_000, set()),
        ("import random\ny = 1" + " + 1" * 100_000, "f(1)" + ".a" * 100_000, set()),
    ],
)
def test_the_flags_of_a_source(reference, call, flags):
    assert source_flags(task(reference, call)) == flags


def test_a_task_without_tests_has_no_flags_of_its_source():
    assert source_flags(Task("A page.", "import random")) == set()


@pytest.mark.parametrize("call", ["f(1) == 2", "f(1)==[1, {'a': -2j}]", "f(1) == f(2)", "f(1) == x", "f(1) == 1 == 1"])
def test_a_comparison_is_flagged_exactly_where_the_grader_takes_the_test_apart(call):
    taken_apart = parse_case("test1", call).literal is not None
    assert (Flag.COMPARISON in source_flags(task("", call))) == taken_apart


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=1) as grader:
        yield grader


@pytest.mark.parametrize(
    ("reference", "flags"),
    [
        ("def f(x): return {x, 'a', None, 2.5}", set()),
        ("import random\ndef f(x): return random.random()", {Flag.RANDOM}),
        ("import time\ndef f(x): return (time.monotonic_ns(), float('nan'))", {Flag.RANDOM, Flag.NAN}),
        ("def f(x): return {'mean': [1e308 * 10 - 1e308 * 10]}", {Flag.NAN}),
        ("def f(x):\n    import surely_not_there", {Flag.MISSING_MODULE}),
        ("def f(x): return 1 / 0", set()),
        ("def f(x): return object()", set()),
    ],
)
def test_the_flags_that_two_runs_of_the_reference_show(grader, reference, flags):
    assert observed_flags(task(reference), grader) == flags


def test_a_reference_is_run_anew_each_time_it_is_observed(grader):
    ticking = task("import time\ndef f(x): return time.monotonic_ns()")
    (first,), (second,) = grader.run_reference(ticking), grader.run_reference(ticking)
    assert first.verdict == second.verdict == Verdict.PASS
    assert encoding.decode(first.encoded) < encoding.decode(second.encoded)


def test_without_a_reference_there_is_nothing_to_observe(grader):
    with pytest.raises(BadInput, match="has no reference and cannot be graded"):
        observed_flags(task(""), grader)


def passed(value):
    return Outcome(Verdict.PASS, encoding.encode(value))


@pytest.mark.parametrize(
    ("first", "second", "flags"),
    [
        (passed(1), passed(1), set()),
        (passed(1), passed(1.0), set()),  # equal in Python, so no answer fails by it
        (passed(1), passed(2), {Flag.RANDOM}),
        (passed(1), Outcome(Verdict.ERROR, detail="ValueError: no"), {Flag.RANDOM}),
        (passed({1: complex("nan")}), passed({1: complex("nan")}), {Flag.NAN}),
        (passed([Decimal("sNaN")]), passed([Decimal("sNaN")]), {Flag.NAN}),
        (passed({float("nan")}), passed({float("nan")}), {Flag.NAN}),
        (passed(1), passed(float("nan")), {Flag.RANDOM, Flag.NAN}),
        (Outcome(Verdict.ERROR, detail="ModuleNotFoundError: No module named 'x'"),) * 2 + ({Flag.MISSING_MODULE},),
        (Outcome(Verdict.INFRASTRUCTURE_ERROR), passed(1), set()),
        (passed(1), Outcome(Verdict.TIMEOUT), set()),
    ],
)
def test_what_two_outcomes_say(first, second, flags):
    assert outcome_flags((passed(0), first), (passed(0), second)) == flags


@pytest.mark.slow
def test_the_real_tasks_have_the_flags_that_are_known_of_them(grader):
    path = SHARED / "colbench/backend_test_800.jsonl"
    if not path.exists():
        pytest.skip("../shared/data is not beside this checkout")
    tasks = read_rows(path, Task)
    flags = [source_flags(one) for one in tasks]
    assert [row for row, found in enumerate(flags) if Flag.RANDOM in found] == [264]
    assert [row for row, found in enumerate(flags) if Flag.COMPARISON in found] == [94, 227, 272, 291, 391, 537]
    assert observed_flags(tasks[741], grader) == {Flag.NAN}
