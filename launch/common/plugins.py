"""What plugins (`sweet_jax.plugins`) change in a command: its settings, and parts of its benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from colbench_env.dialogue import Rules
from colbench_env.humans import UserSimulator
from colbench_env.types import NO_ANSWER, BadInput, Task, Trajectory
from launch.common.benchmarks import Benchmark
from launch.common.simulator import Simulator
from launch.reporting.metric_names import METRIC_NAMES, MetricNames
from sweet_jax.pairs import IndexPair, best_sample, score_pairs
from sweet_jax.plugins import Plugin, load_plugins

ENDPOINT = {"human_url": "", "human_model": "", "human_omit": "", "human_body": "{}"}  # of a simulator that has none


def takes_place(names: str | None, flag: str, asked: str, usual: str, brought: object, what: str) -> bool:
    """Return whether the plugins of --plugin=NAMES take the place of what a setting has.

    flag, asked, usual: the setting, its value and its default. brought: what a plugin brings, None for nothing.
    what: the same in words.
    Raises BadInput where the flag asks for something else than its default, or for what no plugin brings.
    """
    if asked == "plugin" and not brought:
        missing = f"--plugin={names} brings none" if names else "--plugin=MODULE is missing"
        raise BadInput(f"{flag}=plugin needs a plugin with {what}: {missing}")
    if brought and asked not in ("plugin", usual):
        raise BadInput(f"{flag}={asked} and --plugin={names}, which brings {what}: leave one of them out")
    return bool(brought)


def settle_simulator(names: str | None, simulator: Simulator, usual: Simulator) -> Simulator:
    """Return the settings of the user simulator, with human "plugin" where a plugin brings one.

    usual: the defaults. Raises BadInput where flags ask for another one.
    """
    brought = load_plugins(names or "").user_simulator
    if not takes_place(names, "--human", simulator.human, usual.human, brought, "a user simulator"):
        return simulator
    for name, none in ENDPOINT.items():
        if (asked := getattr(simulator, name)) not in (none, getattr(usual, name)):
            flag = f"--{name.replace('_', '-')}={asked}"
            raise BadInput(f"{flag} and --plugin={names}, which brings a user simulator: leave one of them out")
    return replace(simulator, human="plugin", **ENDPOINT)  # type: ignore[arg-type]


@dataclass(frozen=True)
class RewardGrade:
    """A reward that a function has given. excluded: never, as the function gives one or ends the run."""

    reward: float
    excluded: int = 0

    @property
    def success(self) -> bool:
        """Whether the reward is 1."""
        return self.reward == 1.0

    def in_row(self) -> dict[str, Any]:
        """Return what a graded row keeps besides its reward: nothing."""
        return {}


@dataclass(frozen=True)
class RewardGrader:
    """Grades with the reward function of a plugin, one answer after another, in this process."""

    plugin: Plugin

    @property
    def mode(self) -> str:
        """The plugin's name: rows tell by it how they were graded."""
        return self.plugin.name_of("reward")

    def layers_text(self) -> str:
        """Say that nothing keeps the function from doing harm."""
        return "reward function of a plugin, run as it is"

    def grade_many(
        self,
        answers: Iterable[tuple[Task, str]],
        on_done: Callable[[int, RewardGrade], None] = lambda place, grade: None,
    ) -> list[RewardGrade]:
        """Grade all answers and return the grades in order; `on_done` gets each as soon as it is there."""
        grades = []
        for place, (task, answer) in enumerate(answers):
            grades.append(RewardGrade(self.plugin.grade(task, "" if answer == NO_ANSWER else answer)))
            on_done(place, grades[-1])
        return grades


class PluggedBenchmark(Benchmark):
    """A benchmark with the plugin's tasks, user simulator and reward where it brings them, else its own.

    Rewards of a plugin may be any from 0 to 1: samples that differ by 0.1 are compared, as pages are.
    """

    def __init__(self, benchmark: Benchmark, plugin: Plugin) -> None:
        self._benchmark, self._plugin = benchmark, plugin

    @property
    def rules(self) -> Rules:  # type: ignore[override]
        return self._benchmark.rules

    @property
    def metric_names(self) -> MetricNames:  # type: ignore[override]
        own = self._benchmark.metric_names
        return replace(METRIC_NAMES["plugin"], benchmark=own.benchmark) if self._plugin.reward else own

    @property
    def runs_answers(self) -> bool:  # type: ignore[override]
        return self._benchmark.runs_answers and not self._plugin.reward

    @property
    def is_synchronous(self) -> bool:  # type: ignore[override]
        return self._benchmark.is_synchronous and not self._plugin.user_simulator

    @property
    def no_preferences_message(self) -> str:  # type: ignore[override]
        rewarded = "no task has two samples whose rewards differ by 0.1"
        return rewarded if self._plugin.reward else self._benchmark.no_preferences_message

    @property
    def no_demonstrations_message(self) -> str:  # type: ignore[override]
        return self.no_preferences_message if self._plugin.reward else self._benchmark.no_demonstrations_message

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        if not self._plugin.make_tasks:
            return self._benchmark.tasks(split, count, seed)
        tasks = self._plugin.tasks(split, count, seed)
        for number, task in enumerate(tasks):
            if reason := self.grading_error(task):
                raise BadInput(
                    f"plugin {self._plugin.name_of('make_tasks')}: task {number} of split {split!r}: {reason}"
                )
        return tasks

    def scripted_dialogues(self, count: int, seed: int, privileged: float) -> Iterator[Trajectory]:
        return self._benchmark.scripted_dialogues(count, seed, privileged)

    def grading_error(self, task: Task) -> str:
        return "" if self._plugin.reward else self._benchmark.grading_error(task)

    def human(self, simulator: Simulator) -> UserSimulator:
        return self._plugin.human() if simulator.human == "plugin" else self._benchmark.human(simulator)

    @property
    def grader(self) -> Any:
        return RewardGrader(self._plugin) if self._plugin.reward else self._benchmark.grader

    def begin_grading(self, task: Task, answer: str) -> None:
        if not self._plugin.reward:
            self._benchmark.begin_grading(task, answer)

    def describe_grader(self) -> str:
        if self._plugin.reward:
            return f"{RewardGrader(self._plugin).mode}, {RewardGrader(self._plugin).layers_text()}"
        return self._benchmark.describe_grader()

    def preference_pairs(self, rewards: Sequence[float]) -> list[IndexPair]:
        return score_pairs(rewards) if self._plugin.reward else self._benchmark.preference_pairs(rewards)

    def demonstrations(self, rewards: Sequence[float]) -> list[int]:
        return best_sample(rewards) if self._plugin.reward else self._benchmark.demonstrations(rewards)

    def page_images(self, policies: Mapping[str, Sequence[Trajectory]]) -> list[Any]:
        return self._benchmark.page_images(policies)
