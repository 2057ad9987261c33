"""What is played, from plain values such as stand in a config file: tasks by split, user simulator, grader.

Whatever plays one episode at a time is made here: `colbench_env.adapters` for the trainers' protocols.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from colbench_env import mini, scenes
from colbench_env.dialogue import MAX_TURNS
from colbench_env.episodes import Settings
from colbench_env.grading import Grader
from colbench_env.humans import UserSimulator
from colbench_env.humans.chat import ChatSimulator
from colbench_env.humans.rules import RulesSimulator
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.import_function import import_function
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Task

Benchmark = Literal["backend", "frontend"]
Leaks = Literal["natural", "rejected", "leak-free"]
TOYS = ("mini", "scenes")


@dataclass(frozen=True)
class Source:
    """Plain values that say what is played; equal sources share tasks, grader and user simulator in a process.

    benchmark: backend, graded by hidden tests, or frontend, graded by similarity (the extra `frontend`).
    tasks: `mini` or `scenes`, toy tasks with the splits train, validation and test; or a JSON Lines file, whose name
    without ending is its split; or a folder of such files.
    human: `scripted` (toy tasks and frontend), `rules` (any backend task), `openai` (the endpoint at `url`, whose key
    is in $OPENAI_API_KEY) or FILE.py:NAME, a function of chat messages and a seed; "": scripted where it can, else
    rules.
    model, url: of the endpoint. leaks: what becomes of replies that give the solution away (`episodes.Settings`).
    max_turns: of the agent; 0: as many as the benchmark has. system: the agent's system prompt; None: the benchmark's.
    count: toy tasks of each split. seed: of toy tasks and of episodes. workers: answers graded side by side.
    Raises BadInput for values that are unknown.
    """

    benchmark: Benchmark = "backend"
    tasks: str = "mini"
    human: str = ""
    model: str = "gpt-4o-mini"
    url: str = "https://api.openai.com/v1"
    leaks: Leaks = "natural"
    max_turns: int = 0
    system: str | None = None
    count: int = 100
    seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        for name, known in (("benchmark", get_args(Benchmark)), ("leaks", get_args(Leaks))):
            if getattr(self, name) not in known:
                raise BadInput(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(known)}")
        for name, least in (("max_turns", 0), ("count", 1), ("workers", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise BadInput(f"{name} is {value!r}, expected a whole number of at least {least}")
        if self.human not in ("", "scripted", "rules", "openai") and ":" not in self.human:
            raise BadInput(f"human is {self.human!r}, expected scripted, rules, openai or FILE.py:NAME")
        if self.human == "rules" and self.benchmark == "frontend":
            raise BadInput("human is 'rules', which answers about functions; the frontend has scripted and openai")
        if self.human == "scripted" and self.benchmark == "backend" and not self.is_toy:
            raise BadInput(f"human is 'scripted', which knows toy tasks alone; tasks are {self.tasks}: say rules")
        if self.tasks == "scenes" and self.benchmark == "frontend":
            raise BadInput("tasks are 'scenes', which are about functions; the frontend has mini")
        if not self.is_toy and not Path(self.tasks).exists():
            raise BadInput(f"tasks are {self.tasks!r}, expected mini, scenes, or a file or folder that exists")

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Make a source of values by name, as a config has them. Raises BadInput for names or values it cannot have."""
        kinds = {field.name: int if field.type == "int" else str for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(kinds)):
            raise BadInput(f"unknown: {', '.join(unknown)}; expected some of {', '.join(kinds)}")
        optional = {field.name for field in dataclasses.fields(cls) if field.default is None}
        wrong = [
            name
            for name, value in values.items()
            if not (isinstance(value, kinds[name]) or (value is None and name in optional))
        ]
        if wrong:
            kind = {int: "a whole number", str: "a text"}[kinds[wrong[0]]]
            raise BadInput(f"{wrong[0]} is {values[wrong[0]]!r}, expected {kind}")
        return cls(**values)

    @classmethod
    def from_environment(cls, prefix: str = "COLBENCH_") -> Self:
        """Make a source of environment variables: COLBENCH_TASKS, COLBENCH_HUMAN, ... Raises BadInput."""
        found: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            text = os.environ.get(prefix + field.name.upper())
            if text is not None:
                if field.type == "int" and not text.strip().isdecimal():
                    raise BadInput(f"{prefix}{field.name.upper()} is {text!r}, expected a whole number")
                found[field.name] = int(text) if field.type == "int" else text
        return cls(**found)

    @property
    def is_toy(self) -> bool:
        """Whether tasks are made by a procedure."""
        return self.tasks in TOYS

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in order."""
        return tuple(mini.SPLITS) if self.is_toy else tuple(self._files())

    def tasks_of(self, split: str) -> tuple[Task, ...]:
        """Read or make the tasks of a split, once. Raises BadInput for an unknown split or a defective file."""
        if split not in self.splits:
            raise BadInput(f"there is no split {split!r}, expected {' or '.join(self.splits)}")
        return _tasks_of(self, split)

    def task(self, split: str, index: int) -> Task:
        """Return a task by its place in its split. Raises BadInput for a place that there is not."""
        tasks = self.tasks_of(split)
        if not isinstance(index, int) or not 0 <= index < len(tasks):
            raise BadInput(f"there is no task {index!r} in split {split!r}, which has tasks 0 to {len(tasks) - 1}")
        return tasks[index]

    @property
    def settings(self) -> Settings:
        """How episodes are played."""
        settings = Settings(
            system=self.system,
            seed=self.seed,
            no_leaks=self.leaks == "rejected",
            leak_free=self.leaks == "leak-free",
        )
        usual = {"mini": mini.MINI_TURNS, "scenes": scenes.SCENE_TURNS}
        if self.benchmark == "frontend":
            from colbench_env.design.dialogue import DesignRules
            from colbench_env.design.mini import MINI_TURNS

            settings, usual = replace(settings, rules=DesignRules()), {"mini": MINI_TURNS}
        return replace(settings, max_turns=self.max_turns or usual.get(self.tasks, MAX_TURNS))

    @property
    def simulator(self) -> UserSimulator:
        """The user simulator, one a process. Raises BadInput where it cannot be made."""
        return _simulator(self)

    @property
    def grader(self) -> Any:
        """What grades answers, one a process, which ends with it: `Grader`, or `DesignGrader` of the frontend."""
        return _grader(self)

    def _files(self) -> dict[str, Path]:
        path = Path(self.tasks)
        found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not found:
            raise BadInput(f"{path}: holds no .jsonl files, expected one for each split")
        return {file.stem: file for file in found}


@functools.cache
def _tasks_of(source: Source, split: str) -> tuple[Task, ...]:
    if not source.is_toy:
        return tuple(read_rows(source._files()[split], Task))
    if source.benchmark == "frontend":
        from colbench_env.design.mini import make_page_tasks

        return tuple(make_page_tasks(split, source.count, source.seed))
    made = scenes.make_tasks if source.tasks == "scenes" else mini.make_tasks
    return tuple(made(split, source.count, source.seed))


@functools.cache
def _simulator(source: Source) -> UserSimulator:
    if ":" in source.human:
        return ChatSimulator(import_function(source.human), model={"name": source.human})
    if source.human == "openai":
        from colbench_env.endpoint import Endpoint
        from colbench_env.endpoint_settings import EndpointSettings

        endpoint = Endpoint(EndpointSettings(source.url, source.model))
        if source.benchmark == "frontend":
            from colbench_env.humans.vision import VisionSimulator

            return VisionSimulator(endpoint, _renderer())
        from colbench_env.humans.openai import OpenAISimulator

        return OpenAISimulator(endpoint)
    if source.benchmark == "frontend":
        from colbench_env.humans.design import DesignSimulator

        return DesignSimulator(_renderer())
    if source.human == "rules" or not source.is_toy:
        return RulesSimulator()
    toy = scenes if source.tasks == "scenes" else mini
    return ScriptedSimulator(toy.keywords(), toy.UNKNOWN_REPLIES)


@functools.cache
def _grader(source: Source) -> Any:
    if source.benchmark == "frontend":
        from colbench_env.design.grading import DesignGrader
        from colbench_env.design.similarity import StructuralSimilarity

        return DesignGrader(_renderer(), StructuralSimilarity())
    return _backend_grader(source.workers)


@functools.cache
def _backend_grader(workers: int) -> Grader:
    grader = Grader(workers=workers)
    atexit.register(grader.close)
    return grader


@functools.cache
def _renderer() -> Any:
    from colbench_env.design.cache import CachedRenderer
    from colbench_env.design.renderer import Renderer

    browser = Renderer().__enter__()
    atexit.register(browser.__exit__, None, None, None)
    return CachedRenderer(browser)
