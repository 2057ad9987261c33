"""The two benchmarks, backend and frontend: everything in which a run about one differs from a run about the other.

An opened benchmark holds what its tasks need (a browser, a similarity) and is closed with the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Protocol

from colbench_env.design import mini as frontend_mini
from colbench_env.design.dialogue import DesignRules
from colbench_env.dialogue import MAX_TURNS, BackendRules, Rules
from colbench_env.humans import UserSimulator
from colbench_env.mini import MINI_TURNS
from colbench_env.scenes import SCENE_TURNS
from colbench_env.types import BadInput, Task, Trajectory
from launch.reporting.metric_names import METRIC_NAMES, MetricNames

if TYPE_CHECKING:
    from colbench_env.design.cache import CachedRenderer
    from colbench_env.design.grading import Similarity
    from colbench_env.design.page_images import SideBySide
    from colbench_env.grade_file import AnswerGrader
    from colbench_env.grading import Grader
    from colbench_env.types import BenchmarkName
    from launch.common.settings import Design, Toy
    from launch.common.simulator import Simulator
    from sweet_jax.pairs import IndexPair


def default_turns(benchmark: BenchmarkName, is_toy: bool, toy: Toy = "miniature") -> int:
    """Return the most agent turns of a dialogue by default: the paper's ten, fewer in the toy benchmarks."""
    if not is_toy:
        return MAX_TURNS
    if benchmark == "frontend":
        return frontend_mini.MINI_TURNS
    return SCENE_TURNS if toy == "scenes" else MINI_TURNS


class Benchmark(Protocol):
    """What a run has to know of its benchmark.

    rules: of the dialogue.
    metric_names: how figures are called.
    runs_answers: whether references and answers are programs.
    is_synchronous: whether the scripted human needs no time, so that processes that all play the same dialogues stay
    in step.
    no_preferences_message: why there may be no pairs.
    no_demonstrations_message: why there may be nothing to imitate.
    """

    rules: ClassVar[Rules]
    metric_names: ClassVar[MetricNames]
    runs_answers: ClassVar[bool]
    is_synchronous: ClassVar[bool]
    no_preferences_message: ClassVar[str]
    no_demonstrations_message: ClassVar[str]

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """Make tasks of the toy benchmark."""
        ...

    def scripted_dialogues(self, count: int, seed: int, privileged: float) -> Iterator[Trajectory]:
        """Play scripted dialogues of mixed quality about toy tasks, for the start policy to imitate.

        privileged: fraction of those whose agent sees the reference, in a toy whose agent acts on it.
        """
        ...

    def grading_error(self, task: Task) -> str:
        """Say why answers to the task cannot be graded, "" where they can."""
        ...

    def human(self, simulator: Simulator) -> UserSimulator:
        """Make the user simulator, unless it is the run's own model."""
        ...

    @property
    def grader(self) -> AnswerGrader:
        """What grades answers, opened when it is first needed and closed with the benchmark."""
        ...

    def begin_grading(self, task: Task, answer: str) -> None:
        """Start to grade an answer that the grader will be asked for, where that can be done beside other work."""
        ...

    def describe_grader(self) -> str:
        """Name the grader and its isolation, in a line."""
        ...

    def preference_pairs(self, rewards: Sequence[float]) -> list[IndexPair]:
        """Choose which samples of one task are preferred to which."""
        ...

    def demonstrations(self, rewards: Sequence[float]) -> list[int]:
        """Choose the samples of one task that rejection fine-tuning imitates."""
        ...

    def page_images(self, policies: Mapping[str, Sequence[Trajectory]]) -> list[SideBySide]:
        """Draw what the policies have made of some tasks, for a report; [] where there is nothing to see."""
        ...


class Backend(Benchmark):
    """Python functions, graded by hidden tests in a sandbox. toy: whose tasks and user, where nobody gives any."""

    rules: ClassVar[Rules] = BackendRules()
    metric_names: ClassVar[MetricNames] = METRIC_NAMES["backend"]
    runs_answers: ClassVar[bool] = True
    is_synchronous: ClassVar[bool] = True
    no_preferences_message: ClassVar[str] = "no task has both a sample that passes all tests and a worse one"
    no_demonstrations_message: ClassVar[str] = "no trajectory passes all tests"

    def __init__(self, mode: str = "strict", workers: int = 2, unsafe: bool = False, toy: Toy = "miniature") -> None:
        self._mode, self._workers, self._unsafe, self._is_scenes = mode, workers, unsafe, toy == "scenes"
        self._grader: Grader | None = None

    def close(self) -> None:
        """End the grader's processes."""
        if self._grader is not None:
            self._grader.close()

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        return self._toy.make_tasks(split, count, seed)

    @property
    def _toy(self) -> ModuleType:
        from colbench_env import mini, scenes

        return scenes if self._is_scenes else mini

    def scripted_dialogues(self, count: int, seed: int, privileged: float) -> Iterator[Trajectory]:
        more = {"privileged": privileged} if self._is_scenes else {}
        return (dialogue.trajectory() for dialogue in self._toy.behaviour_dialogues("train", count, seed, **more))

    def grading_error(self, task: Task) -> str:
        if not task.ground_truth:
            return "the task has no reference"
        return "" if task.test_cases else "the task has no 'test_cases', expected a backend task with call expressions"

    def human(self, simulator: Simulator) -> UserSimulator:
        from colbench_env.humans.rules import RulesSimulator
        from colbench_env.humans.scripted import ScriptedSimulator

        match simulator.human:
            case "openai":
                return simulator.behind_endpoint()
            case "scripted":
                return ScriptedSimulator(self._toy.keywords(), self._toy.UNKNOWN_REPLIES)
        return RulesSimulator(simulator.human)

    @property
    def grader(self) -> Grader:
        if self._grader is None:
            from colbench_env.grading import Grader

            self._grader = Grader(self._mode, workers=self._workers, unsafe=self._unsafe)
        return self._grader

    def begin_grading(self, task: Task, answer: str) -> None:
        self.grader.begin(task, answer)

    def describe_grader(self) -> str:
        return f"{self._mode}, {self.grader.layers_text()}"

    def preference_pairs(self, rewards: Sequence[float]) -> list[IndexPair]:
        """Prefer the best sample, if it passes all tests, to every worse one."""
        from sweet_jax.pairs import trajectory_pairs

        return trajectory_pairs(rewards)

    def demonstrations(self, rewards: Sequence[float]) -> list[int]:
        """Return the samples that pass all tests."""
        return [index for index, reward in enumerate(rewards) if reward == 1.0]

    def page_images(self, policies: Mapping[str, Sequence[Trajectory]]) -> list[SideBySide]:
        """Return no pictures: functions cannot be looked at."""
        return []


class Frontend(Benchmark):
    """Web pages, graded by how much they look like a hidden one. The browser is started when it is first needed."""

    rules: ClassVar[Rules] = DesignRules()
    metric_names: ClassVar[MetricNames] = METRIC_NAMES["frontend"]
    runs_answers: ClassVar[bool] = False
    is_synchronous: ClassVar[bool] = False
    no_preferences_message: ClassVar[str] = "no task has two samples whose similarities differ by 0.1"
    no_demonstrations_message: ClassVar[str] = no_preferences_message

    def __init__(self, design: Design) -> None:
        if design.failed == "black" and design.clip is None:
            raise BadInput(
                "--design.failed=black compares a black picture by CLIP: --design.clip=DIR is missing "
                "(--design.failed=zero goes with the structural similarity)"
            )
        self._design = design
        self._held = contextlib.ExitStack()
        self._renderer: CachedRenderer | None = None
        self._similarity: Similarity | None = None

    def close(self) -> None:
        """Close the browser."""
        self._held.close()
        self._renderer = None

    @property
    def renderer(self) -> CachedRenderer:
        """What renders pages, and remembers the last ones."""
        if self._renderer is None:
            from colbench_env.design.cache import CachedRenderer
            from colbench_env.design.renderer import Renderer

            design = self._design
            browser = self._held.enter_context(
                Renderer(
                    design.pages, online_images=design.online_images, assets=design.assets, executable=design.chromium
                )
            )
            self._renderer = CachedRenderer(browser)
        return self._renderer

    @property
    def similarity(self) -> Similarity:
        """What compares pages."""
        if self._similarity is None:
            design = self._design
            if design.clip is not None:
                from launch.common.clip_similarity import ClipSimilarity

                self._similarity = ClipSimilarity.load(design.clip, failed=design.failed)
            else:
                from colbench_env.design.similarity import StructuralSimilarity

                self._similarity = StructuralSimilarity()
        return self._similarity

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        from colbench_env.design.mini import make_page_tasks

        return make_page_tasks(split, count, seed)

    def scripted_dialogues(self, count: int, seed: int, privileged: float) -> Iterator[Trajectory]:
        from colbench_env.design.mini import page_behaviour_dialogues
        from colbench_env.humans.design import DesignSimulator

        human = DesignSimulator(self.renderer, plain=True)
        return (dialogue.trajectory() for dialogue in page_behaviour_dialogues("train", count, seed, human))

    def grading_error(self, task: Task) -> str:
        from colbench_env.design.html import extract_html

        if not task.ground_truth:
            return "the task has no reference"
        return "" if extract_html(task.ground_truth) else "the reference is no HTML page, expected a frontend task"

    def human(self, simulator: Simulator) -> UserSimulator:
        if simulator.human == "openai":
            from colbench_env.humans.vision import VisionSimulator

            return VisionSimulator(simulator.endpoint(), self.renderer, simulator.vision_prompt)
        from colbench_env.humans.design import DesignSimulator

        return DesignSimulator(self.renderer, plain=simulator.human_plain, called=simulator.human)

    @property
    def grader(self) -> AnswerGrader:
        from colbench_env.design.grading import DesignGrader

        return DesignGrader(self.renderer, self.similarity)

    def begin_grading(self, task: Task, answer: str) -> None:
        """Do nothing: the browser is busy with the simulated user."""

    def describe_grader(self) -> str:
        return f"{self.similarity.name}; pages without a network"

    def preference_pairs(self, rewards: Sequence[float]) -> list[IndexPair]:
        """Prefer every sample to those that score less by 0.1."""
        from sweet_jax.pairs import score_pairs

        return score_pairs(rewards)

    def demonstrations(self, rewards: Sequence[float]) -> list[int]:
        """Return the best sample, if it is preferred to another."""
        from sweet_jax.pairs import best_sample

        return best_sample(rewards)

    def page_images(self, policies: Mapping[str, Sequence[Trajectory]]) -> list[SideBySide]:
        """Draw the pages next to the reference."""
        from colbench_env.design.page_images import side_by_side

        return side_by_side(policies, self.renderer)
