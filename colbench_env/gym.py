"""The environment as a `gymnasium.Env`, with spaces. Needs gymnasium; nothing else in this package does."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.spaces import Space, Text

from colbench_env.environment import Environment
from colbench_env.episodes import Settings
from colbench_env.grading import Grader
from colbench_env.humans import UserSimulator
from colbench_env.types import Task


class AnyText(Space[str]):
    """The space of all strings: gymnasium's own `Text` has a fixed alphabet and length. Samples are short words."""

    def __init__(self, seed: int | None = None):
        super().__init__(None, str, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """False: a text is no array."""
        return False

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string."""
        return isinstance(x, str)

    def sample(self, mask: None = None, probability: None = None) -> str:
        """Draw a word of up to ten letters and digits; masks are not known."""
        if mask is not None or probability is not None:
            raise ValueError("a space of all strings has no masks")
        return Text(10, seed=self.np_random).sample()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    def __repr__(self) -> str:
        return "AnyText()"


class GymEnvironment(Environment, gymnasium.Env[str, str]):
    """`Environment`, which says what is observed and rewarded, for whatever asks for a `gymnasium.Env`."""

    metadata = {"render_modes": []}

    def __init__(self, tasks: Sequence[Task], human: UserSimulator, grader: Grader, settings: Settings | None = None):
        super().__init__(tasks, human, grader, settings)
        self.observation_space = AnyText()
        self.action_space = AnyText()

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """As `Environment.reset`."""
        gymnasium.Env.reset(self, seed=seed)  # gymnasium's own generator, which nothing here draws from
        return super().reset(seed=seed, options=options)
