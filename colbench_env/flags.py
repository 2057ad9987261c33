"""What makes a task doubtful for measuring. A flag is no defect: reports give figures with and without flagged tasks.

`source_flags` reads, `observed_flags` runs. Either finds what the other cannot: a NaN that comes of a computation, a
random number on which two runs happen to agree.
"""

import ast
import functools
import sys
from collections.abc import Iterator
from decimal import Decimal
from enum import StrEnum
from typing import Literal

from .grading import Grader, encoding
from .grading.sandbox import installed_packages
from .grading.verdicts import Outcome, equal
from .python_source import NotPython, parse
from .types import Task, Verdict

RANDOM_MODULES = ("random", "secrets", "uuid")
RANDOM_NAMES = ("numpy.random", "os.urandom", "time.time", "time.time_ns")
CLOCK_METHODS = ("now", "today", "utcnow")
SEEDED_CALLS = ("seed", "Random", "RandomState", "default_rng")  # with an argument
NAN_NAMES = ("math.nan", "numpy.nan", "cmath.nan")
NO_STATEMENT = {Verdict.INFRASTRUCTURE_ERROR, Verdict.TIMEOUT}  # of the machine: another time there may be a value


class Flag(StrEnum):
    """Why a task is doubtful.

    random: results may differ from run to run (unseeded random numbers, or the clock). nan: NaN, which does not equal
    itself, is a result or is written in the source. comparison: a test is `f(..) == literal`, so the released grader
    compares truth values. missing-module: the reference imports what the grader's sandbox does not have here.
    """

    RANDOM = "random"
    NAN = "nan"
    COMPARISON = "comparison"
    MISSING_MODULE = "missing-module"


def source_flags(task: Task) -> frozenset[Flag]:
    """Find the flags that the reference and the tests show without being run. What does not parse shows none.

    In: reference `import random`, test `f(1) == 2`   Out: {Flag.RANDOM, Flag.COMPARISON}
    """
    if not task.test_cases:
        return frozenset()  # a frontend task, or one of which only the description is known
    calls = [tree for call in task.test_cases.values() if (tree := _parse(call, "eval")) is not None]
    flags = {flag for tree in calls for flag in _tree_flags(tree)}
    if (reference := _parse(task.ground_truth, "exec")) is not None:
        flags.update(_tree_flags(reference))
    if any(isinstance(tree, ast.Expression) and _compares_with_literal(tree.body) for tree in calls):
        flags.add(Flag.COMPARISON)
    return frozenset(flags)


def observed_flags(task: Task, grader: Grader) -> frozenset[Flag]:
    """Find the flags that two runs of the reference in the sandbox show. Raises BadInput without reference or tests."""
    return outcome_flags(grader.run_reference(task), grader.run_reference(task))


def outcome_flags(first: tuple[Outcome, ...], second: tuple[Outcome, ...]) -> frozenset[Flag]:
    """Find the flags that two runs of one reference show: NaN, differing results, a missing module."""
    found = set()
    for one, other in zip(first, second, strict=True):
        if {one.verdict, other.verdict} & NO_STATEMENT:
            continue
        if (one.verdict, one.encoded) != (other.verdict, other.encoded):
            if one.verdict != other.verdict or not equal(_value(one), _value(other), "strict"):
                found.add(Flag.RANDOM)
        if _has_nan(_value(one)) or _has_nan(_value(other)):
            found.add(Flag.NAN)
        if one.verdict == Verdict.ERROR and one.detail.startswith("ModuleNotFoundError"):
            found.add(Flag.MISSING_MODULE)
    return frozenset(found)


def _parse(source: str, mode: Literal["exec", "eval"]) -> ast.AST | None:
    try:
        return parse(source, mode)
    except NotPython:
        return None


def _compares_with_literal(node: ast.AST) -> bool:
    """In: the trees of `f(1) == [2]`, `f(1) == g(1)`, `f(1) < 2`   Out: True, False, False"""
    if not isinstance(node, ast.Compare) or len(node.ops) != 1 or not isinstance(node.ops[0], ast.Eq):
        return False
    try:
        ast.literal_eval(node.comparators[0])
    except (ValueError, TypeError, RecursionError, MemoryError):
        return False
    return True


def _tree_flags(tree: ast.AST) -> Iterator[Flag]:
    """In: the tree of `import numpy as np; np.random.rand()`   Out: Flag.RANDOM"""
    imported = dict(_imports(tree))  # local name -> full name
    modules = {full.split(".")[0] for full in imported.values()}
    names, seeded = set(imported.values()), False
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name):
                names.add(f"{imported.get(node.value.id, node.value.id)}.{node.attr}")
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            seeded |= called in SEEDED_CALLS and bool(node.args or node.keywords)
            if isinstance(node.func, ast.Attribute) and called in CLOCK_METHODS and len(node.args) < 2:
                yield Flag.RANDOM
            if called == "float" and len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
                text = node.args[0].value
                if isinstance(text, str) and text.strip().lower().lstrip("+-") == "nan":
                    yield Flag.NAN
    if modules - importable():
        yield Flag.MISSING_MODULE
    if not seeded and (modules & set(RANDOM_MODULES) or names & set(RANDOM_NAMES)):
        yield Flag.RANDOM
    if names & set(NAN_NAMES):
        yield Flag.NAN


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """In: the tree of `import numpy as np; from os import path`   Out: ("np", "numpy"), ("path", "os.path")"""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


@functools.cache
def importable() -> frozenset[str]:
    """List the top-level modules that the grader's sandbox has on this machine."""
    return frozenset(sys.stdlib_module_names) | frozenset(installed_packages())


def _value(outcome: Outcome) -> object:
    """Decode the plain value of an outcome, None where there is none."""
    if outcome.verdict != Verdict.PASS:
        return None
    try:
        return encoding.decode(outcome.encoded, encoding.NAN)
    except encoding.Malformed:
        return None


def _has_nan(value: object) -> bool:
    """In: {"mean": [1.0, nan]}   Out: True"""
    match value:
        case float() | complex():
            return value != value
        case Decimal():
            return value.is_nan()
        case dict():
            return any(_has_nan(part) for item in value.items() for part in item)
        case list() | tuple() | set() | frozenset():
            return any(map(_has_nan, value))
        case encoding.Array():
            return _has_nan(value.items)
    return False
