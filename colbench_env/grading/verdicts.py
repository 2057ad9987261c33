"""What a grade is made of: limits, outcomes of single runs, verdicts of tests, and the comparison between them."""

import ast
import math
from dataclasses import dataclass
from typing import Any

from ..terminal_text import shorten
from ..types import BadInput, Verdict
from . import encoding
from .answers import Case

MODES = ("strict", "official")
MAX_SHOWN = 300  # characters of a value or an error text


@dataclass(frozen=True)
class Limits:
    """What one test, and one answer, may use. A test's time is wall-clock time."""

    test_seconds: float = 5.0
    answer_seconds: float = 15.0  # all tests of an answer together; the rest then counts as timed out
    memory_bytes: int = 1 << 30
    disk_bytes: int = 16 << 20
    threads: int = 32

    def __post_init__(self) -> None:
        if not 0 < self.test_seconds <= self.answer_seconds:
            times = f"{self.test_seconds} s for a test and {self.answer_seconds} s for an answer"
            raise BadInput(f"limits of {times}, expected 0 < test <= answer")
        if self.memory_bytes < 128 << 20 or self.disk_bytes < 1 << 16 or self.threads < 1:
            raise BadInput("expected at least 128 MiB of memory, 64 KiB of disk and one thread a test")

    @property
    def cpu_seconds(self) -> int:
        """The hard processor limit: later than the wall clock for one thread, a second line of defence."""
        return math.ceil(self.test_seconds) + 1


@dataclass(frozen=True)
class Outcome:
    """How one run of one call ended: PASS with an encoded value, or what went wrong."""

    verdict: Verdict
    encoded: bytes = b""
    detail: str = ""


@dataclass(frozen=True)
class TestVerdict:
    """The verdict on one test. `got` and `expected` are texts for people, None where there was no value.

    Nothing of this may reach a dialogue, a reward or a critic: an answer chooses its error text.
    """

    __test__ = False  # not a class of tests, whatever pytest thinks of its name

    name: str
    verdict: Verdict
    detail: str = ""
    got: str | None = None
    expected: str | None = None


@dataclass(frozen=True)
class Grade:
    """The grade of one answer. Tests that failed for reasons of the machine are not counted, but `excluded`.

    Examples:
        >>> from colbench_env.grading.verdicts import TestVerdict
        >>> grade = Grade((TestVerdict("test1", Verdict.PASS), TestVerdict("test2", Verdict.WRONG)))
        >>> grade.reward, grade.success, grade.passed, grade.total
        (0.5, False, 1, 2)
    """

    verdicts: tuple[TestVerdict, ...]

    @property
    def excluded(self) -> int:
        """Tests without a verdict on the answer, because the grader's machine failed."""
        return sum(test.verdict == Verdict.INFRASTRUCTURE_ERROR for test in self.verdicts)

    @property
    def total(self) -> int:
        """Tests that count."""
        return len(self.verdicts) - self.excluded

    @property
    def passed(self) -> int:
        """Tests passed."""
        return sum(test.verdict == Verdict.PASS for test in self.verdicts)

    @property
    def fraction(self) -> float:
        """The share of the counted tests that passed; NaN if none counts, which is no statement on the answer."""
        return self.passed / self.total if self.total else math.nan

    @property
    def reward(self) -> float:
        """The benchmark's reward: the share of tests passed, 1.0 exactly when all did."""
        return self.fraction

    @property
    def success(self) -> bool:
        """Whether every test passed, at least one of them counted."""
        return 0 < self.total == self.passed

    def in_row(self) -> dict[str, Any]:
        """Return what a graded row keeps besides its reward: each test's verdict, and under `tests` what was
        expected and got, or what went wrong; these texts are for display."""
        texts = [{"name": test.name, "expected": test.expected, "got": test.got, "detail": test.detail or None}
                 for test in self.verdicts]  # fmt: skip
        tests = [{key: text for key, text in test.items() if text is not None} for test in texts]
        return {"verdicts": {test.name: str(test.verdict) for test in self.verdicts}, "tests": tests}


def judge(case: Case, expected: Outcome, got: Outcome, mode: str) -> TestVerdict:
    """Judge one test by the outcomes of the reference and of the answer. Compares plain values only."""
    if expected.verdict == Verdict.INFRASTRUCTURE_ERROR:
        return TestVerdict(case.name, expected.verdict, _cut("reference: " + expected.detail))
    if expected.verdict != Verdict.PASS:
        return TestVerdict(case.name, Verdict.REFERENCE_ERROR, _cut(f"{expected.verdict}: {expected.detail}"))
    try:
        wanted = _value(expected, case, mode)
    except encoding.Malformed as error:
        return TestVerdict(case.name, Verdict.REFERENCE_ERROR, _cut(str(error)))
    if wanted is None and mode == "official":
        return TestVerdict(case.name, Verdict.REFERENCE_ERROR, "the reference gives None, which never counts")
    if got.verdict != Verdict.PASS:
        return TestVerdict(case.name, got.verdict, _cut(got.detail), expected=display(wanted))
    try:
        value = _value(got, case, mode)
    except encoding.Malformed as error:
        return TestVerdict(case.name, Verdict.UNSUPPORTED, _cut(str(error)), expected=display(wanted))
    verdict = Verdict.PASS if equal(value, wanted, mode) else Verdict.WRONG
    return TestVerdict(case.name, verdict, got=display(value), expected=display(wanted))


def equal(value: object, wanted: object, mode: str) -> bool:
    """Python's `==` on plain values: True == 1 == 1.0, (1,) != [1], nothing rounded.

    `strict`: a float NaN equals a float NaN in the same place (both were decoded to the one object `encoding.NAN`), a
    numpy array only an array of the same shape with equal items. `official`: NaN equals nothing, and arrays compare as
    in the released grader's `if`, which refuses (so: not equal) all but those of a single item.
    """
    try:
        return bool(value is wanted or value == wanted) if mode == "strict" else _released_equal(value, wanted)
    except (ArithmeticError, RecursionError):  # a signalling Decimal
        return False


def _released_equal(a: Any, b: Any) -> bool:
    if isinstance(a, encoding.Array) or isinstance(b, encoding.Array):
        left, right = _items(a), _items(b)
        return len(left) == len(right) == 1 and bool(left[0] == right[0])
    if type(a) is type(b) and isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_released_equal, a, b))
    if type(a) is type(b) is dict:
        return a.keys() == b.keys() and all(_released_equal(a[key], b[key]) for key in a)
    return bool(a == b)


def _items(value: object) -> list[object]:
    """All items of what numpy would make an array of."""
    if isinstance(value, encoding.Array):
        return _items(value.items)
    if isinstance(value, (list, tuple)):
        return [item for part in value for item in _items(part)]
    return [value]


def display(value: object) -> str:
    """Format a plain value as a short text for display."""
    try:
        return _cut(repr(value))  # of values of at most encoding.MAX_BYTES
    except ValueError:  # more digits than Python prints
        return f"a {type(value).__name__} with a number of thousands of digits"


def _value(outcome: Outcome, case: Case, mode: str) -> object:
    """Return the plain value of an outcome. In `official` a test `f(..) == literal` gives the comparison's truth.

    `strict` compares what the calls give: were the literal wrong, any wrong answer would agree with the reference.
    """
    value = encoding.decode(outcome.encoded, encoding.NAN if mode == "strict" else None)
    if mode == "official" and case.literal is not None:
        return equal(value, ast.literal_eval(case.literal), mode)
    return value


def _cut(text: str) -> str:
    return shorten(text, MAX_SHOWN)
