"""The grader: tasks and answers in, grades out."""

import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import dataclass

from ..types import BadInput, Task, Verdict
from . import answers, encoding
from .answers import Case
from .isolation import LAYERS
from .sandbox import Sandbox, SandboxError
from .verdicts import MODES, Grade, Limits, Outcome, TestVerdict, judge

ATTEMPTS = 3
PROBE_SECONDS = 10.0
SCOPES = {"strict": "module", "official": "function"}
RELEASED_SECONDS = 1.0  # `official`: after this time the released grader throws a TimeoutError into an answer

# Tries, as an answer could, what no answer may: True for each thing that worked.
PROBE = """
def attempt(action):
    try:
        action()
        return True
    except BaseException:
        return False

def read(path):
    with open(path) as file:
        return file.read(1)

def connect():
    import socket
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
        some.connect(("127.0.0.1", 9))  # nothing is sent: it only asks for a way

def escapes(path, pid):
    import os
    return {
        "read a file of the user": attempt(lambda: read(path)),
        "write next to it": attempt(lambda: open(path + ".new", "w").close()),
        "change the rights of a file": attempt(lambda: os.chmod(path, 0o666)),
        "reach the network": attempt(connect),
        "signal the grader": attempt(lambda: os.kill(pid, 0)),
        "leave a process behind": attempt(lambda: os.fork() or os._exit(0)),
    }
"""


@dataclass(frozen=True)
class WorkerPair:
    """The two workers of one thread: what runs references never runs answers."""

    references: Sandbox
    answers: Sandbox


@dataclass(frozen=True)
class _Expected:
    """What a reference gives in each test, and in which tests it had a process of its own."""

    outcomes: dict[str, Outcome]
    alone: set[str]


class Grader:
    """Grades answers in sandboxed processes; a context manager that is safe to use from several threads.

    `mode` is "strict" or "official", `workers` the number of answers graded at a time. Raises BadInput where the
    machine isolates nothing, unless `unsafe`. `without` names layers to leave off, to test the others alone.

    Examples:
        >>> task = Task("Add one.", "def f(x): return x + 1", {"test1": "f(1)", "test2": "f(-1)"})
        >>> with Grader(workers=1) as grader:
        ...     grader.grade(task, "def f(x): return abs(x) + 1").reward
        0.5
    """

    def __init__(
        self,
        mode: str = "strict",
        workers: int = 2,
        limits: Limits | None = None,
        unsafe: bool = False,
        *,
        without: Iterable[str] = (),
    ):
        if mode not in MODES:
            raise BadInput(f"grader mode {mode!r}, expected one of {', '.join(MODES)}")
        if sys.platform != "linux":
            raise BadInput(f"the grader's sandbox is made of Linux system calls, this is {sys.platform}")
        if workers < 1:
            raise BadInput(f"{workers} grading workers, expected at least 1")
        self.mode = mode
        self.workers = workers
        self.limits = limits or Limits()
        self._references: dict[object, Future[_Expected]] = {}
        self._day: object = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="grader")
        self._begun: dict[object, Future[Grade]] = {}
        off = frozenset(without)
        self._pairs = [WorkerPair(Sandbox(self.limits, off), Sandbox(self.limits, off)) for _ in range(workers)]
        self._free: queue.LifoQueue[WorkerPair] = queue.LifoQueue()
        for pair in reversed(self._pairs):
            self._free.put(pair)
        try:
            self.layers, escapes = _examine(self._pairs[0].answers)
        except SandboxError as error:
            self.close()
            raise BadInput(f"the grader's worker process cannot run here: {error}") from None
        if escapes and not unsafe:
            self.close()
            raise BadInput(
                f"nothing on this machine keeps an answer from these: {', '.join(escapes)} ({self.layers_text()}); "
                "grade where namespaces, or Landlock and seccomp, are allowed, or say --unsafe to run them regardless"
            )
        self.escapes = escapes

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all worker processes and everything in them, after the answers that are being graded."""
        self._pool.shutdown(cancel_futures=True)
        for pair in self._pairs:
            pair.references.close()
            pair.answers.close()

    def layers_text(self) -> str:
        """One line that says which layers hold on this machine and which do not."""
        on = [name for name, active in self.layers.items() if active]
        off = [name for name, active in self.layers.items() if not active]
        return f"sandbox: {', '.join(on) or 'none'}" + (f"; not active: {', '.join(off)}" if off else "")

    def grade(self, task: Task, answer: str) -> Grade:
        """Grade one answer. Raises BadInput for a task without tests or without a reference."""
        cases = _cases(task)
        if answers.is_no_answer(answer):
            return Grade(tuple(TestVerdict(case.name, Verdict.NO_ANSWER) for case in cases))
        if len(answer) > answers.MAX_CHARACTERS:
            detail = f"the answer has {len(answer)} characters, at most {answers.MAX_CHARACTERS} are run"
            return Grade(tuple(TestVerdict(case.name, Verdict.ERROR, detail) for case in cases))
        word = answers.blocked_word(answer) if self.mode == "official" else None
        if word is not None:
            detail = f"the released block-list has {word!r}"
            return Grade(tuple(TestVerdict(case.name, Verdict.WRONG, detail) for case in cases))
        with self._free_pair() as pair:
            expected = self._expected(pair.references, task, cases)
            # a test whose reference failed is not run: nothing could pass it
            known = tuple(case for case in cases if expected.outcomes[case.name].verdict == Verdict.PASS)
            if self.mode == "official":
                got = self._run_all(pair.answers, answers.official_source(answer), known, RELEASED_SECONDS)
            else:
                got = self._run_all(pair.answers, answers.strict_source(answer, cases), known)
            outcomes = dict(zip((case.name for case in known), got, strict=True))
            return Grade(tuple(self._judge(pair, task, case, expected, outcomes.get(case.name)) for case in cases))

    def begin(self, task: Task, answer: str) -> None:
        """Start to grade an answer, beside whatever the caller does next; `grade_many` has its grade, or its error."""
        with self._lock:
            if (key := (_key(task), answer)) not in self._begun:
                self._begun[key] = self._pool.submit(self.grade, task, answer)

    def grade_many(
        self, items: Iterable[tuple[Task, str]], on_done: Callable[[int, Grade], None] | None = None
    ) -> list[Grade]:
        """Grade many answers, `workers` at a time, and return the grades in order; what occurs twice is graded once.

        `on_done(index, grade)` is called in this thread as soon as an item has its grade. Raises what `grade` raises.
        """
        items = list(items)
        places: dict[object, list[int]] = {}
        for index, (task, answer) in enumerate(items):
            places.setdefault((_key(task), answer), []).append(index)
        grades: dict[int, Grade] = {}
        with self._lock:
            waiting = {
                self._begun.pop(key)
                if key in self._begun
                else self._pool.submit(self.grade, *items[indices[0]]): indices
                for key, indices in places.items()
            }
        try:
            for future in as_completed(waiting):
                for index in waiting[future]:
                    grades[index] = future.result()
                    if on_done is not None:
                        on_done(index, grades[index])
        except BaseException:
            for future in waiting:
                future.cancel()
            wait(waiting)
            raise
        return [grades[index] for index in range(len(items))]

    def run_reference(self, task: Task) -> tuple[Outcome, ...]:
        """Run each test of the task with its reference, now. Raises BadInput as `grade` does."""
        cases = _cases(task)
        with self._free_pair() as pair:
            return self._run_all(pair.references, task.ground_truth, cases)

    def expected(self, task: Task) -> tuple[Outcome, ...]:
        """Return what each test of the task gives with its reference, as answers are compared with it: run when it
        is first asked for, by `grade` or here. Raises BadInput as `grade` does."""
        cases = _cases(task)
        with self._free_pair() as pair:
            return tuple(self._expected(pair.references, task, cases).outcomes[case.name] for case in cases)

    @contextmanager
    def _free_pair(self) -> Iterator[WorkerPair]:
        pair = self._free.get()
        try:
            yield pair
        finally:
            self._free.put(pair)

    def _judge(self, pair: WorkerPair, task: Task, case: Case, expected: _Expected, got: Outcome | None) -> TestVerdict:
        """Judge one test. Nothing is wrong before it differs from a reference that had its own process too."""
        wanted = expected.outcomes[case.name]
        got = got or wanted
        verdict = judge(case, wanted, got, self.mode)
        if verdict.verdict == Verdict.WRONG and case.name not in expected.alone:
            wanted = self._run(pair.references, task.ground_truth, case.call, self.limits.test_seconds, 0.0)
            expected.outcomes[case.name] = wanted
            expected.alone.add(case.name)
            verdict = judge(case, wanted, got, self.mode)
        return verdict

    def _expected(self, sandbox: Sandbox, task: Task, cases: tuple[Case, ...]) -> _Expected:
        """Compute what the reference gives once a day (it may ask for the date), whichever thread comes first."""
        today = time.gmtime()[:3]
        with self._lock:
            if today != self._day:
                self._references.clear()
                self._day = today
            mine = (key := _key(task)) not in self._references
            future = self._references.setdefault(key, Future())
        if mine:
            try:
                future.set_result(self._run_reference(sandbox, task.ground_truth, cases))
            except BaseException as error:
                with self._lock:
                    self._references.pop(key, None)
                future.set_exception(error)
        return future.result()

    def _run_reference(self, sandbox: Sandbox, source: str, cases: tuple[Case, ...]) -> _Expected:
        """Run every test of a reference: all in one process if that goes well, else each in its own."""
        names = [case.name for case in cases]
        try:
            calls, seconds = [case.call for case in cases], self.limits.test_seconds
            if together := sandbox.run_together(source, calls, SCOPES[self.mode], seconds):
                return _Expected(dict(zip(names, together, strict=True)), set())
        except SandboxError:
            pass  # tried again below, and reported if that fails as well
        outcomes = self._run_all(sandbox, source, cases)
        return _Expected(dict(zip(names, outcomes, strict=True)), set(names))

    def _run_all(
        self, sandbox: Sandbox, source: str, cases: tuple[Case, ...], alarm: float = 0.0
    ) -> tuple[Outcome, ...]:
        """Run every test in a fresh process. What all must share (a syntax error) is found once."""
        outcomes: list[Outcome] = []
        deadline = time.monotonic() + self.limits.answer_seconds
        for case in cases:
            seconds = min(self.limits.test_seconds, deadline - time.monotonic())
            if outcomes and outcomes[0].verdict == Verdict.SYNTAX_ERROR:
                outcomes.append(outcomes[0])
            elif seconds <= 0:
                detail = f"the {self.limits.answer_seconds:g} s for all tests were used up by those before"
                outcomes.append(Outcome(Verdict.TIMEOUT, detail=detail))
            else:
                outcomes.append(self._run(sandbox, source, case.call, seconds, alarm))
        return tuple(outcomes)

    def _run(self, sandbox: Sandbox, source: str, call: str, seconds: float, alarm: float) -> Outcome:
        """Run one test, and try again when the worker fails.

        If the worker fails every time, but serves a harmless test in between, it is this source that brings it down:
        that is a crash, or else an answer could have the tests it cannot pass excluded.
        """
        for _ in range(ATTEMPTS):
            try:
                return sandbox.run(source, call, SCOPES[self.mode], seconds, alarm)
            except SandboxError as error:
                detail = str(error)
        try:
            if sandbox.run("", "6 * 7", "module", self.limits.test_seconds).verdict == Verdict.PASS:
                return Outcome(Verdict.CRASH, detail="takes its worker process down")
        except SandboxError as error:
            detail = str(error)
        return Outcome(Verdict.INFRASTRUCTURE_ERROR, detail=detail)


def _examine(sandbox: Sandbox) -> tuple[dict[str, bool], list[str]]:
    """Which layers are active, and what a test that tries to escape manages all the same. Raises SandboxError."""
    sandbox.start()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        canary = os.path.join(folder, "canary")
        with open(canary, "w") as file:
            file.write("canary")
        outcome = sandbox.run(PROBE, f"escapes({canary!r}, {os.getpid()})", "module", PROBE_SECONDS)
    if outcome.verdict != Verdict.PASS:
        raise SandboxError(f"a first test ended with {outcome.verdict}: {outcome.detail}")
    found = encoding.decode(outcome.encoded)
    assert isinstance(found, dict)
    if "pid" in sandbox.layers:  # a process may be started there: it ends with the test
        del found["leave a process behind"]
    return {name: name in sandbox.layers for name in LAYERS}, [what for what, worked in found.items() if worked]


def _cases(task: Task) -> tuple[Case, ...]:
    if not task.test_cases or not task.ground_truth:
        missing = "reference" if task.test_cases else "test_cases"
        raise BadInput(f"task {task.task_id} has no {missing} and cannot be graded")
    return tuple(answers.parse_case(name, call) for name, call in task.test_cases.items())


def _key(task: Task) -> tuple[object, ...]:
    return task.ground_truth, *task.test_cases.items()
