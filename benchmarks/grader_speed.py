"""How long the sandboxed grader takes for references graded against themselves, and peers that isolate nothing.

    python -m benchmarks.grader_speed [--tasks=FILE] [--mode=strict] [--workers=2] [--runs=3] [--bare=400]

Every test is a fresh process that locks itself up; references and answers are both run, so each test is two of them.
One peer is a bare `subprocess` for each of the first `--bare` tests, as many at a time; the other is
`benchmarks/released_oracle.py`: the same tests in one process, as the released grader does. Rows that are not fully
right are named. Without `--tasks` the tasks are procedural.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from benchmarks.grader_official import ask_oracle, find_oracle
from colbench_env.grading import Grader, Verdict
from colbench_env.mini.tasks import make_tasks
from colbench_env.tasks import read_rows
from colbench_env.types import Task


def main() -> None:
    """Prints seconds, verdicts and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks")
    parser.add_argument("--mode", default="strict")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--bare", type=int, default=400, help="tests that are run in a subprocess each")
    arguments = parser.parse_args()
    tasks = read_rows(arguments.tasks, Task) if arguments.tasks else make_tasks("train", 800, 0)
    times, processor = [], []
    for _ in range(arguments.runs):
        with Grader(mode=arguments.mode, workers=arguments.workers) as grader:
            start, used = time.perf_counter(), _processor_seconds()
            grades = grader.grade_many([(task, task.ground_truth) for task in tasks])
            times.append(time.perf_counter() - start)
            layers = grader.layers_text()
        processor.append(_processor_seconds() - used)
    print(layers)
    for place, grade in enumerate(grades):
        failed = [verdict for verdict in grade.verdicts if verdict.verdict != Verdict.PASS]
        if failed:
            shown = failed[0].detail or f"got {failed[0].got}, expected {failed[0].expected}"
            print(f"row {place}: {grade.passed} of {len(grade.verdicts)}: {failed[0].verdict}: {shown[:90]}")
    print(dict(Counter(str(verdict.verdict) for grade in grades for verdict in grade.verdicts)))
    python, version = find_oracle(None)
    told = ask_oracle(python, tasks, [[("same", task.ground_truth)] for task in tasks])
    seconds, peer = statistics.median(times), sum(row["seconds"] for row in told)
    tests = sum(len(grade.verdicts) for grade in grades)
    bare = _bare_seconds(tasks, arguments.bare, arguments.workers)
    print(f"a bare subprocess a test: {1000 * bare:.2f} ms a test (ratio {bare * tests / seconds:.2f})")
    print(
        f"{arguments.mode}, Python {sys.version.split()[0]}, {arguments.workers} workers: {len(tasks)} answers, "
        f"{tests} tests in {seconds:.1f} s (median of {', '.join(f'{each:.1f}' for each in times)}; processor time "
        f"{statistics.median(processor):.1f} s), {1000 * seconds / tests:.2f} ms a test; in one process without "
        f"isolation (Python {version}) {peer:.2f} s (ratio {seconds / peer:.0f})"
    )


def _bare_seconds(tasks: list[Task], count: int, workers: int) -> float:
    """Seconds a test where each has a process of its own without any wall, `workers` at a time."""
    scripts = [
        f"from typing import *\n{task.ground_truth}\nprint(repr({call}))"
        for task in tasks
        for call in task.test_cases.values()
    ][:count]

    def run(script: str) -> None:
        subprocess.run([sys.executable, "-I", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, scripts))
    return (time.perf_counter() - start) / len(scripts)


def _processor_seconds() -> float:
    """Of this process and of the workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    main()
