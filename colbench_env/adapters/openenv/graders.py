"""Graders for the semantic checks that OpenEnv's policy names and OpenEnv 0.10 does not implement.

They are registered under its entry point `openenv.validation.graders`, apply to the package `colbench`, and measure in
this process what the server would do: same sessions, same sandbox. `colbench_env.adapters.openenv.validate` runs them.
"""

import functools
import json
import os
import resource
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openenv.validation.graders import Subject
from openenv.validation.manifest import NormalizedManifest
from openenv.validation.report import CheckResult
from openenv.validation.types import CheckStatus, Level, ProviderCapability

from colbench_env.adapters import Session
from colbench_env.adapters.openenv.oracle import oracle_turns
from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.grading import Grader, Limits
from colbench_env.simulator_health import leaks
from colbench_env.source import Source
from colbench_env.types import NO_ANSWER, Task

TASKS = 20
QUESTIONS = ("What about rounding?", "Which unit do you want?", "What about capital letters?")
ATTACKED = Task("A task.", "def f(x): return x*7+3", {f"test{x}": f"f({x})" for x in range(1, 11)})
"""What the canaries are written for."""
SHORT = Limits(test_seconds=1.0, answer_seconds=2.0, memory_bytes=512 << 20)  # many of them wait for the limits

Finding = tuple[list[str], dict[str, Any]]
"""Problems, none where the check passes, and what was measured."""


@dataclass(frozen=True)
class SemanticGrader:
    """One check of the level SEMANTIC, as OpenEnv's registry takes it. remediation: said where it fails."""

    check_id: str
    measure: Callable[[Subject], Finding]
    remediation: str
    level: Level = Level.SEMANTIC
    requires_capabilities: frozenset[str] = frozenset()
    requires_provider: frozenset[ProviderCapability] = frozenset()
    depends_on: tuple[str, ...] = ()

    def applies_to(self, manifest: NormalizedManifest) -> bool:
        """Whether this is our package: the checks play its tasks."""
        return manifest.name == "colbench"

    def run(self, subject: Subject) -> CheckResult:
        """Measure, and say what was found."""
        started = time.monotonic()
        problems, measured = self.measure(subject)
        return CheckResult(
            check_id=self.check_id,
            status=CheckStatus.FAIL if problems else CheckStatus.PASS,
            measured=measured,
            evidence=problems or ["measured on the tasks of the package"],
            remediation=self.remediation if problems else None,
            duration_s=time.monotonic() - started,
        )


def play(source: Source, index: int, turns: list[str]) -> tuple[list[str], float | None]:
    """Say the turns about a task of the last split: what the user says, and the reward."""
    session = Session(source)
    replies = [session.begin(source.splits[-1], index)]
    for turn in turns:
        replies.append(session.step(turn))
    return replies, session.reward


def _tasks(source: Source) -> list[Task]:
    return list(source.tasks_of(source.splits[-1])[:TASKS])


def _oracle_max(subject: Subject) -> Finding:
    source, low = Source.from_environment(), 1.0 - subject.manifest.reward.oracle_tolerance
    rewards = [play(source, index, oracle_turns(task))[1] for index, task in enumerate(_tasks(source))]
    short = [index for index, reward in enumerate(rewards) if reward is None or reward < low]
    return [f"the reference of task {index} has reward {rewards[index]}" for index in short], {"tasks": len(rewards)}


def floors(source: Source) -> dict[str, float]:
    """Measure what answers are worth that know nothing: mean reward over the tasks, by the kind of answer."""
    kinds: dict[str, Callable[[Task], str]] = {
        "no answer": lambda task: NO_ANSWER,
        "not Python": lambda task: "hello",
        "gives its first argument": lambda task: f"{_signature(task)}: return {_argument(task)}",
        "gives None": lambda task: f"{_signature(task)}: return None",
        "gives 0": lambda task: f"{_signature(task)}: return 0",
    }
    tasks = _tasks(source)
    means = {}
    for name, answer in kinds.items():
        rewards = [play(source, at, [f"{ANSWER_MARKER}\n{answer(task)}"])[1] or 0.0 for at, task in enumerate(tasks)]
        means[name] = sum(rewards) / len(rewards)
    return means


def _signature(task: Task) -> str:
    return "def " + task.problem_description.rpartition("def ")[2].strip()


def _argument(task: Task) -> str:
    return _signature(task).partition("(")[2].partition(")")[0].partition(",")[0].strip() or "None"


def _floor_gap(subject: Subject) -> Finding:
    means = floors(Source.from_environment())
    gap = subject.manifest.reward.range[1] - max(means.values())
    wanted = subject.manifest.reward.floor_margin
    problem = [f"the gap between oracle and floor is {gap:.3f}, declared {wanted}"] if gap < wanted else []
    return problem, {"gap": gap, "floors": means}


@functools.cache
def attack_rewards(path: Path) -> dict[str, float | None]:
    """Grade the attacks of a JSON Lines file: id -> reward; an honest answer after each must be worth 1."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    rewards: dict[str, float | None] = {}
    with Grader(workers=1, limits=SHORT) as grader:
        for row in rows:
            grade = grader.grade(ATTACKED, row["answer"])
            rewards[row["id"]] = None if grade.excluded else grade.reward
            if grader.grade(ATTACKED, ATTACKED.ground_truth).reward != 1.0:
                rewards[row["id"]] = None
    return rewards


def _canary_floor(subject: Subject) -> Finding:
    rewards = attack_rewards(subject.root / (subject.manifest.capabilities.canaries or ""))
    scored = {name: reward for name, reward in rewards.items() if reward != 0.0}
    return [f"canary {name!r}: reward {reward}" for name, reward in scored.items()], {"canaries": len(rewards)}


def _no_solution_leakage(subject: Subject) -> Finding:
    from colbench_env.adapters.openenv import ColBenchAction, ColBenchEnvironment

    source, problems = Source.from_environment(), []
    for index, task in enumerate(_tasks(source)):
        environment = ColBenchEnvironment(source)
        seen = [environment.reset(split=source.splits[-1], index=index).model_dump_json()]
        for question in (*QUESTIONS, f"{ANSWER_MARKER} pass"):
            observation = environment.step(ColBenchAction(text=question))
            seen.append(observation.model_dump_json())
            problems += [f"task {index}: a reply leaks: {kind}" for kind in leaks(task, observation.text)]
        seen += [environment.state.model_dump_json(), json.dumps(environment.get_task(source.splits[-1], index))]
        secrets = [line.strip() for line in task.ground_truth.splitlines()[1:] if len(line.strip()) > 12]
        hidden = [
            secret for secret in (*secrets, *task.test_cases.values()) if json.dumps(secret)[1:-1] in "".join(seen)
        ]
        problems += [f"task {index}: an observation holds {secret!r}" for secret in hidden]
    return problems, {"tasks": TASKS, "questions": len(QUESTIONS)}


def _verdicts(answers: list[tuple[Task, str]]) -> list[list[str]]:
    with Grader(workers=2) as grader:
        return [[str(one.verdict) for one in grade.verdicts] for grade in grader.grade_many(answers)]


def _answers(source: Source) -> list[tuple[Task, str]]:
    tasks = _tasks(source)
    wrong = [(task, f"{_signature(task)}: return {_argument(task)}") for task in tasks]
    return [(task, task.ground_truth) for task in tasks] + wrong


def _verifier_determinism(subject: Subject) -> Finding:
    answers = _answers(Source.from_environment())
    runs = [_verdicts(answers) for _ in range(3)]
    differing = [place for place, found in enumerate(zip(*runs, strict=True)) if len({tuple(one) for one in found}) > 1]
    return [f"answer {place} has other verdicts the next time" for place in differing], {"answers": len(answers)}


@contextmanager
def _elsewhere(**environment: str) -> Any:
    before, here = dict(os.environ), Path.cwd()
    os.environ.update(environment)
    os.chdir("/")
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def _verifier_portability(subject: Subject) -> Finding:
    answers = _answers(Source.from_environment())
    usual = _verdicts(answers)
    with _elsewhere(TZ="Asia/Kathmandu", LANG="tr_TR.UTF-8", LC_ALL="C", PYTHONHASHSEED="7", PYTHONUTF8="0"):
        other = _verdicts(answers)
    problem = [] if usual == other else ["verdicts depend on time zone, locale, hash seed or working directory"]
    return problem, {"answers": len(answers)}


def _resource_envelope(subject: Subject) -> Finding:
    source, declared, slowest = Source.from_environment(), subject.manifest.resources, 0.0
    for index, task in enumerate(_tasks(source)):
        started = time.monotonic()
        play(source, index, [*QUESTIONS, *oracle_turns(task)])
        slowest = max(slowest, time.monotonic() - started)
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    megabytes = sum(resource.getrusage(one).ru_maxrss for one in who) / 1024
    problems = []
    if megabytes > declared.memory_mb:
        problems.append(f"{megabytes:.0f} MB were used, {declared.memory_mb} are declared")
    if slowest > declared.episode_timeout_s:
        problems.append(f"an episode took {slowest:.1f} s, {declared.episode_timeout_s} are declared")
    return problems, {"memory_mb": round(megabytes), "slowest_episode_s": round(slowest, 3)}


def _replayability(subject: Subject) -> Finding:
    source, differing = Source.from_environment(), []
    for index, task in enumerate(_tasks(source)):
        turns = [*QUESTIONS, *oracle_turns(task)]
        if play(source, index, turns) != play(source, index, turns):
            differing.append(f"task {index}: the same turns had another dialogue or reward")
    return differing, {"episodes": TASKS}


oracle_max = SemanticGrader("semantic.oracle_max", _oracle_max, "correct the references")
floor_gap = SemanticGrader("semantic.floor_gap", _floor_gap, "add tests that answers without knowledge fail")
canary_floor = SemanticGrader("semantic.canary_floor", _canary_floor, "close what the canary goes through")
no_solution_leakage = SemanticGrader("semantic.no_solution_leakage", _no_solution_leakage, "hide the reference")
verifier_determinism = SemanticGrader("semantic.verifier_determinism", _verifier_determinism, "drop tests by chance")
verifier_portability = SemanticGrader("semantic.verifier_portability", _verifier_portability, "isolate the verifier")
resource_envelope = SemanticGrader("semantic.resource_envelope", _resource_envelope, "declare more, or use less")
replayability = SemanticGrader("semantic.replayability", _replayability, "seed everything that is drawn")
