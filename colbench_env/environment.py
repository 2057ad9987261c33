"""An episode as an environment: `reset` opens a dialogue, `step` takes the agent's turn, the reward comes at the end.

It has the interface of gymnasium and does not need it; `colbench_env.gym` has the same as a `gymnasium.Env`.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from colbench_env.dialogue import Episode
from colbench_env.episodes import EpisodeFailed, Settings, grade_trajectories, make_trajectory, seed_of, user_turn
from colbench_env.grading import Grader
from colbench_env.humans import UserSimulator
from colbench_env.types import BadInput, Task


class Environment:
    """Episodes about `tasks`, one at a time. An observation is what the user simulator has just said; "" when it is
    over.

    `info` always has `messages` (the dialogue as chat messages for the agent), `task_id`, `seed` and `turns`; where the
    episode is terminated also `trajectory` (graded; it holds the reference) and `success`.

    The reward is 0.0 until the episode is terminated, then the share of tests passed. It is NaN exactly where the
    machine failed, never 0: then `info["error"]` says who ("human" or "grader") and why. Leave such an episode out.
    """

    def __init__(self, tasks: Sequence[Task], human: UserSimulator, grader: Grader, settings: Settings | None = None):
        if not tasks:
            raise BadInput("an environment without tasks, expected at least one")
        self.tasks = tuple(tasks)
        self.human = human
        self.grader = grader
        self.settings = settings or Settings()
        self._random = random.Random(self.settings.seed)
        self._played = self.settings
        self._episode: Episode | None = None

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Begin an episode and return the problem, and info. The task is drawn, or is number `options["task"]`.

        `seed` decides this episode and those after it; if none was ever given, it is that of the settings. Each
        episode's own seed is in info: `play` with settings of that seed and the same turns gives the same dialogue.
        """
        unknown = set(options or ()) - {"task"}
        if unknown:
            raise BadInput(f"unknown options {sorted(unknown)}, expected 'task'")
        if seed is not None:
            self._random = random.Random(seed)
        drawn, number = self._random.randrange(len(self.tasks)), (options or {}).get("task")
        if number is not None and not 0 <= number < len(self.tasks):
            raise BadInput(f"task {number} is asked for, there are tasks 0 to {len(self.tasks) - 1}")
        self._played = replace(self.settings, seed=seed_of(self._random.getrandbits(64)))
        self._episode = self._played.begin(self.tasks[drawn if number is None else number])
        return self._episode.messages[-1].content, self._info(self._episode)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info after the agent's turn `action`.

        Terminated: the agent has answered (its last turn always counts as an answer). Truncated: the user simulator
        could not reply. Raises ValueError where no episode is under way.
        """
        if self._episode is None:
            raise ValueError("no episode is under way: call reset()")
        if not isinstance(action, str):
            raise ValueError(f"the agent's turn is {type(action).__name__}, expected a string")
        episode = self._episode.step_agent(action)
        self._episode = None
        if episode.done:
            reward, info = self._graded(episode)
            return "", reward, True, False, info
        try:
            episode = user_turn(episode, self.human, self._played, sample=0)
        except EpisodeFailed as failure:
            return "", math.nan, False, True, self._info(episode) | {"error": failure.to_json()}
        self._episode = episode
        return episode.messages[-1].content, 0.0, False, False, self._info(episode)

    def close(self) -> None:
        """Do nothing: grader and user simulator belong to whoever made them."""

    def _graded(self, episode: Episode) -> tuple[float, dict[str, Any]]:
        (row,) = grade_trajectories([make_trajectory(episode, self.human, self._played, sample=0)], self.grader)
        info = self._info(episode) | {"trajectory": row, "success": row.reward == 1.0}
        if row.reward is None:
            failure = EpisodeFailed("grader", episode, 0, "a test could not be run")
            return math.nan, info | {"error": failure.to_json()}
        return row.reward, info

    def _info(self, episode: Episode) -> dict[str, Any]:
        return {
            "messages": self._played.agent_messages(episode),
            "task_id": episode.task.task_id,
            "seed": self._played.seed,
            "turns": episode.turns,
        }
