"""Compares the `official` grader, verdict by verdict, with what the released grader gives on Python <= 3.12.

    python -m benchmarks.grader_official [--tasks=FILE] [--mutants=4] [--seed=0] [--workers=2] [--oracle-python=PATH]

Every reference is graded as it is and in `--mutants` - 1 mutations (`benchmarks/mutants.py`), drawn from the seed; a
few also in the dear ones. The peer is `benchmarks/released_oracle.py`, run in the same call by a Python <= 3.12: this
one, or one that is found, or `--oracle-python`. Without `--tasks` the tasks are procedural. Exit status 1 if a verdict
differs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.mutants import APART, RARE, mutants
from colbench_env.grading import Grader, Verdict
from colbench_env.mini.tasks import make_tasks
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Task

RARE_EVERY, APART_EVERY = 400, 20


@dataclass
class Count:
    """What was compared of one kind of answer."""

    answers: int = 0
    tests: int = 0
    verdicts_differ: int = 0
    rewards_differ: int = 0
    examples: list[str] = field(default_factory=list)


def main() -> None:
    """Prints the table; exit status 1 if anything differs that is not counted apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks")
    parser.add_argument("--mutants", type=int, default=4, help="answers made of each reference, itself included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--oracle-python")
    arguments = parser.parse_args()
    tasks = read_rows(arguments.tasks, Task) if arguments.tasks else make_tasks("train", 100, arguments.seed)
    made = [answers_of(task, place, arguments.mutants, arguments.seed) for place, task in enumerate(tasks)]
    python, version = find_oracle(arguments.oracle_python)
    start = time.perf_counter()
    told = ask_oracle(python, tasks, made)
    told_after = time.perf_counter()
    items = [(task, text) for task, answers in zip(tasks, made, strict=True) for _, text in answers]
    with Grader(mode="official", workers=arguments.workers) as grader:
        print(grader.layers_text())
        grades = iter(grader.grade_many(items))
    graded_after = time.perf_counter()
    counts, skipped, excluded = compare(made, told, grades)
    print_table(counts)
    for place, why in skipped.items():
        print(f"row {place} not compared: {why}")
    same = [count for kind, count in counts.items() if kind not in APART]
    answers, tests, verdicts, rewards = (
        sum(getattr(count, name) for count in same)
        for name in ("answers", "tests", "verdicts_differ", "rewards_differ")
    )
    grading, asking = graded_after - told_after, told_after - start
    print(
        f"grader on Python {sys.version.split()[0]}, oracle on Python {version}: {answers} answers, {tests} verdicts "
        f"compared, {verdicts} verdicts and {rewards} rewards differ; {excluded} verdicts lost to the machine; "
        f"grader {grading:.1f} s, oracle {asking:.1f} s (ratio {grading / asking:.1f})"
    )
    sys.exit(bool(verdicts or rewards))


def answers_of(task: Task, place: int, count: int, seed: int) -> list[tuple[str, str]]:
    """The kinds and texts of the answers made from one reference."""
    call = next(iter(task.test_cases.values()))
    answers = mutants(task.ground_truth, call, count, f"{seed} {place}")
    extra = (RARE if place % RARE_EVERY == 1 else {}) | (APART if place % APART_EVERY == 3 else {})
    name = call.partition("(")[0].strip()
    return answers + [(kind, make(task.ground_truth, name, None)) for kind, make in extra.items()]


def find_oracle(given: str | None) -> tuple[str, str]:
    """An interpreter of Python <= 3.12, and its version. Raises BadInput."""
    here = [sys.executable] if sys.version_info < (3, 13) else []
    found = [shutil.which(f"python3.{minor}") for minor in (12, 11)]
    versions = Path(sys.base_prefix).parent  # where several are installed side by side
    beside = [str(path) for path in sorted(versions.glob("3.1[12].*/bin/python"), reverse=True)]
    for python in [given] if given else [*here, *filter(None, found), *beside]:
        asked = subprocess.run([python, "-V"], capture_output=True, text=True)
        version = asked.stdout.removeprefix("Python ").strip()
        if asked.returncode == 0 and version.split(".") < ["3", "13"]:
            return python, version
    raise BadInput("found no Python <= 3.12 to run the released grader's behaviour, expected --oracle-python=PATH")


def ask_oracle(python: str, tasks: list[Task], made: list[list[tuple[str, str]]]) -> list[dict]:
    """What the oracle says on every task."""
    rows = "".join(
        json.dumps(
            {
                "reference": task.ground_truth,
                "calls": list(task.test_cases.values()),
                "answers": [text for _, text in answers],
            }
        )
        + "\n"
        for task, answers in zip(tasks, made, strict=True)
    )
    oracle = Path(__file__).resolve().with_name("released_oracle.py")
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONHASHSEED": "0", "TZ": "UTC", "LANG": "C.UTF-8"}
    with tempfile.TemporaryDirectory() as folder:  # references and answers may write files
        done = subprocess.run(
            [python, str(oracle)], input=rows, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
    lines = done.stdout.splitlines()
    if len(lines) != len(tasks):
        raise BadInput(f"the oracle ended with status {done.returncode} after {len(lines)} of {len(tasks)} rows")
    return [json.loads(line) for line in lines]


def compare(made, told, grades) -> tuple[dict[str, Count], dict[int, str], int]:
    """Counts by kind, the rows that cannot be compared and why, and the verdicts lost to the machine."""
    counts: dict[str, Count] = defaultdict(Count)
    skipped: dict[int, str] = {}
    excluded = 0
    for place, (answers, row) in enumerate(zip(made, told, strict=True)):
        graded = [next(grades) for _ in answers]
        absent = [v.detail for v in graded[0].verdicts if "ModuleNotFoundError" in v.detail]
        if row["unstable"]:
            skipped[place] = "the reference is random"
        elif bool(row["missing"]) != bool(absent):
            skipped[place] = f"a module is missing on one side only ({row['missing'] or absent[0]})"
        if place in skipped:
            continue
        for (kind, _), grade, wanted in zip(answers, graded, row["answers"], strict=True):
            count = counts[kind]
            excluded += grade.excluded
            count.answers += 1
            count.tests += len(grade.verdicts)
            passed = [verdict.verdict == Verdict.PASS for verdict in grade.verdicts]
            wanted = [False] * len(passed) if wanted is None else wanted  # it ends there: nothing can count
            count.verdicts_differ += sum(a != b for a, b in zip(passed, wanted, strict=True))
            if grade.reward != sum(wanted) / len(wanted):
                count.rewards_differ += 1
                count.examples.append(f"row {place}: {sum(passed)} for {sum(wanted)}")
    return counts, skipped, excluded


def print_table(counts: dict[str, Count]) -> None:
    """One line for each kind of answer."""
    print(f"{'kind of answer':<46}{'answers':>8}{'tests':>8}{'verdicts differ':>17}{'rewards differ':>16}")
    for kind, count in sorted(counts.items(), key=lambda item: (item[0] in APART, item[0])):
        label = f"apart: {kind}" if kind in APART else kind
        numbers = f"{count.answers:>8}{count.tests:>8}{count.verdicts_differ:>17}{count.rewards_differ:>16}"
        print(f"{label:<46}{numbers}  {'; '.join(count.examples[:3])}".rstrip())


if __name__ == "__main__":
    main()
