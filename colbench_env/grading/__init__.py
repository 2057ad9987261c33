"""The backend grader: runs untrusted Python in a sandbox and compares plain values.

`with Grader() as grader: grader.grade(task, answer).fraction`. The path a reader takes: `grader` (what is run and
judged) -> `sandbox` (the grader's side of a worker) -> `worker` (the other side) -> `isolation` (its walls).
"""

from ..types import Verdict
from .grader import Grader
from .verdicts import Grade, Limits, TestVerdict

__all__ = ["Grade", "Grader", "Limits", "TestVerdict", "Verdict"]
