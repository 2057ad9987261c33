"""What the released grader says, told by plain Python: run as a script by `grader_official`, with Python <= 3.12.

    python3.12 benchmarks/released_oracle.py < rows > verdicts

A row is `{"reference": str, "calls": [str], "answers": [str]}` (JSON Lines). Each gives `{"unstable": bool, "missing":
str, "answers": [[bool, ...], ...], "seconds": float}`: whether the reference's values differ when it is run again, the
module it lacks, which tests each answer passes (null where the released grader itself would end), and how long that
took. Nothing is isolated. Written from the released grader's behaviour: all runs in the local scope of a function of
this process, an alarm rings after a second, live objects are compared. It shares no code with the grader.
"""

import json
import multiprocessing  # noqa: F401  (this module's names are what an answer sees as globals)
import os
import signal
import sys
import time
from queue import Empty  # noqa: F401

REFUSED_TEXTS = ["import os", "from os", "import sys", "from sys", "sudo", "transformers", "exit(", "quit(", "argparse"]


class Died(Exception):
    """The answer raised what the released grader does not catch."""


def live_value(function_definition, test_case):
    """The value of the call after the source, None for any error."""
    try:
        exec(compile(function_definition, "<answer>", "exec", dont_inherit=True))
        value = eval(compile(test_case.lstrip(" \t"), "<call>", "eval", dont_inherit=True))
    except Exception as error:
        live_value.error = error
        return None
    return value


def unfenced(text):
    """The text between the first fences: python's if there is one, else any."""
    for mark in ("`" * 3 + "python", "`" * 3):
        before, found, rest = text.partition(mark)
        if found:
            # what `split(mark)[1]` keeps: up to a second such mark
            text = rest.partition(mark)[0].partition("`" * 3)[0]
    return text


def ring(number, frame):
    raise TimeoutError


def passes(reference, answer, call):
    """Whether one test is passed. Raises Died."""
    wanted = live_value(reference, call)
    signal.alarm(1)
    try:
        got = live_value(answer, call)
    except TimeoutError:
        got = None
    except BaseException as error:
        raise Died from error
    finally:
        signal.alarm(0)
    try:
        return bool(wanted == got) and wanted is not None
    except ValueError:
        return False


def judge(row):
    """The result row of a row. Names that an answer puts into this module are taken out again: they decide what later
    answers score in the released grader, so that its verdicts depend on their order. That is not compared."""
    reference, calls = row["reference"], row["calls"]
    runs, missing, live_value.error = [], "", None
    for _ in range(3):
        runs.append([repr(live_value(reference, call)) for call in calls])
        if isinstance(getattr(live_value, "error", None), ImportError):
            missing = str(live_value.error)
        live_value.error = None
    verdicts, start = [], time.perf_counter()
    for answer in row["answers"]:
        try:
            if any(text in answer for text in REFUSED_TEXTS):
                verdicts.append([False] * len(calls))
            else:
                verdicts.append([passes(reference, unfenced(answer), call) for call in calls])
        except Died:
            verdicts.append(None)
        for name in set(globals()) - OWN_NAMES:
            del globals()[name]
    seconds = time.perf_counter() - start
    return {"unstable": runs.count(runs[0]) != 3, "missing": missing, "answers": verdicts, "seconds": seconds}


def main():
    """Answers every row of standard input on standard output; what answers print is dropped."""
    results = os.fdopen(os.dup(1), "w")
    sys.stdout = open(os.devnull, "w")
    rows = [json.loads(line) for line in sys.stdin]
    sys.stdin = open(os.devnull)
    signal.signal(signal.SIGALRM, ring)
    globals()["__name__"] = "released"  # answers run in an imported module
    for row in rows:
        results.write(json.dumps(judge(row)) + "\n")
        results.flush()


OWN_NAMES = {*globals(), "OWN_NAMES"}

if __name__ == "__main__":
    main()
