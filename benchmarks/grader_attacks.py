"""Grades a file of attacks on the grader, each followed by an honest and a wrong answer, and prints what came out.

    python -m benchmarks.grader_attacks --attacks=FILE [--mode=strict]

A row is `{"id", "what", "answer", "expect"}` (JSON Lines); the task is `f(x) = x*7+3`. `expect` begins with "1.0" or
"results may count" where the answer is honest; all others must score 0. Also printed: the time of each, the memory of
this process before and after, and what processes are left. Exit status 1 if anything is not as it must be.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from colbench_env.grading import Grader
from colbench_env.types import Task

TASK = Task("A task.", "def f(x): return x*7+3", {f"test{x}": f"f({x})" for x in range(1, 11)})


def main() -> None:
    """Prints one line an attack, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", required=True)
    parser.add_argument("--mode", default="strict")
    arguments = parser.parse_args()
    with open(arguments.attacks, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    failures, begin = [], time.perf_counter()
    with Grader(mode=arguments.mode, workers=1) as grader:
        print(grader.layers_text())
        honest(grader, "warm-up")
        before, workers = resident_megabytes(), descendants()
        for row in rows:
            start = time.perf_counter()
            grade = grader.grade(TASK, row["answer"])
            seconds = time.perf_counter() - start
            wanted = 1.0 if row["expect"].startswith(("1.0", "results may count")) else 0.0
            good = (arguments.mode == "official" or grade.reward == wanted) and honest(grader, row["id"])
            left = max(0, len(descendants()) - len(workers))
            verdicts = sorted({str(verdict.verdict) for verdict in grade.verdicts})
            print(
                f"{row['id']} {'ok ' if good and not left else 'BAD'} reward {grade.reward:.1f}, {'/'.join(verdicts)}, "
                f"{seconds:.1f} s, left {left}: {row['what'][:60]} (expected: {row['expect'][:50]})"
            )
            if not good or left:
                failures.append(row["id"])
        after = resident_megabytes()
    print(
        f"{len(rows)} attacks in {time.perf_counter() - begin:.1f} s, {len(failures)} not as expected "
        f"({', '.join(failures) or 'none'}); memory of this process {before:.1f} MiB before, {after:.1f} MiB after; "
        f"processes left at the end: {len(descendants())}"
    )
    sys.exit(bool(failures))


def honest(grader: Grader, tag: str) -> bool:
    """Whether a right answer scores 1 and a wrong one 0."""
    right, wrong = (grader.grade(TASK, f"def f(x):\n    return x*7+{plus}  # {tag}") for plus in (3, 4))
    return right.reward == 1 and wrong.reward == 0


def resident_megabytes() -> float:
    """The memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def descendants() -> set[int]:
    """The processes that this one has started, and theirs."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
    found = {os.getpid()}
    while new := {process for process, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {os.getpid()}


if __name__ == "__main__":
    main()
