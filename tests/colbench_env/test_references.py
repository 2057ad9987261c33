"""What is wrong with a reference, and what guessing would score."""

import math

import pytest

from colbench_env.grading import Grader, Limits
from colbench_env.references import commonest_share, outcome_defect, source_defect
from colbench_env.types import Task


def task(reference, *calls):
    return Task("p", reference, {f"test{number}": call for number, call in enumerate(calls, start=1)})


@pytest.fixture(scope="module")
def graders():
    with Grader("strict", workers=1, limits=Limits(test_seconds=1.0, answer_seconds=2.0)) as strict:
        with Grader("official", workers=1) as official:
            yield {"strict": strict, "official": official}


@pytest.mark.parametrize(
    ("defective", "says"),
    [
        (task("def f(x:\n", "f(1)"), "the reference is not Python ('(' was never closed in line 1)"),
        (task("f = 1", "f(1)", "x = f(2)"), "test2 is not an expression (invalid syntax in line 1): 'x = f(2)'"),
        (task("import nothing_of_that_name", "f(1)"), ""),
        (task("f = print", "f('\\d') == '\\d'"), ""),
    ],
)
def test_what_does_not_parse_is_named(defective, says):
    assert source_defect(defective) == says


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "says"),
    [
        (
            "def f(x):\n    while x > 1: pass\n    return x",
            "the reference runs for too long in test2 (killed after 1.0 s)",
        ),
        ("def f(x):\n    import os\n    os._exit(1)", "the reference ends its process in test1"),
        ("def f(x):\n    return object()", "the reference gives a value that cannot be compared in test1"),
        ("def f(x):\n    raise ValueError(x)", "the reference gives no value in any of its 2 tests (ValueError: 1)"),
        ("def f(x):\n    return 1 / (x - 1)", ""),
        ("import nothing_of_that_name", ""),
        ("def f(x):\n    return x", ""),
    ],
)
def test_a_reference_that_gives_no_result_is_named(graders, reference, says):
    looked_at = task(reference, "f(1)", "f(2)")
    found = outcome_defect(looked_at, graders["strict"].run_reference(looked_at))
    assert found[: len(says)] == says and bool(found) == bool(says)


@pytest.mark.parametrize(
    ("results", "strict", "official"),
    [
        ("[3, 5, 3, 4]", 0.5, 0.5),
        ("[1, True, 1.0, 2]", 0.75, 0.75),  # they are equal to one another
        ("[None, None, 2, 3]", 0.5, 0.25),  # None never counts in the released grader
        ("[float('nan'), float('nan'), 1, 2]", 0.5, 0.25),  # nor does NaN equal anything there
        ("[[1], [1], (1,), 1 / 0 if x == 3 else 0]", 0.5, 0.5),
    ],
)
def test_guessing_the_commonest_result_passes_its_share_of_the_tests(graders, results, strict, official):
    looked_at = task(f"def f(x):\n    return {results}[x]", *(f"f({x})" for x in range(4)))
    found = {mode: commonest_share(grader.run_reference(looked_at), mode) for mode, grader in graders.items()}
    assert found == {"strict": strict, "official": official}


def test_where_the_machine_fails_nothing_is_said(graders):
    from colbench_env.grading.verdicts import Outcome
    from colbench_env.types import Verdict

    assert math.isnan(commonest_share([Outcome(Verdict.INFRASTRUCTURE_ERROR)], "strict"))
