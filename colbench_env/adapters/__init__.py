"""ColBench in the protocols of trainers and of evaluation tools, one module each, with the extra of the same name.

    openenv         a server and its client (OpenEnv 0.10)
    verifiers       a taskset and the environment that plays it (verifiers 0.4, `verifiers.v1`)
    inspect_tasks   a task with solver and scorer (inspect-ai; the extra `inspect`)
    trl             an `environment_factory` with the tools ask_user and submit (TRL 1.16)
    tinker          a `MessageEnv` (tinker-cookbook)
    tunix           a `BaseTaskEnv` (google-tunix)
    skyrl           a `BaseTextEnv` (skyrl-gym)

What is played is a `colbench_env.source.Source` in all of them; gymnasium's is `colbench_env.gym`. An episode that the
machine spoilt raises `Spoilt`, or what the protocol has for it: it is never a reward of 0.
"""

import asyncio
import random
from dataclasses import replace

from colbench_env import background
from colbench_env.dialogue import Episode
from colbench_env.episodes import EpisodeFailed, grade_trajectories, make_trajectory, user_turn_async
from colbench_env.humans import UserSimulator
from colbench_env.source import Source
from colbench_env.types import BadInput, Trajectory


class Spoilt(RuntimeError):
    """An episode that ended for reasons of the machine, not of the agent: leave it out, or play it again."""


class Session:
    """One episode at a time, as adapters need it: `begin`, then `step` until `done`.

    With the seed of `Settings(seed=...)` it gives the dialogue and the reward of `episodes.play` and
    `grade_trajectories`. split, index, seed: of this episode. reward: None until it is over, then the share of tests
    passed (frontend: the similarity). trajectory: the graded row, at the end; it holds the reference.
    """

    def __init__(self, source: Source, human: UserSimulator | None = None):
        self.source = source
        self.human = human or source.simulator
        self.split, self.index, self.seed = "", -1, source.seed
        self.reward: float | None = None
        self.trajectory: Trajectory | None = None
        self._settings = source.settings
        self._episode: Episode | None = None
        self._begun = 0

    def begin(self, split: str = "", index: int | None = None, seed: int | None = None) -> str:
        """Begin an episode and return what the user says first. Raises BadInput for a split or task there is not.

        split: the first one if none is said. index: the place of the task in it; None: it is drawn. seed: of the draw
        and of the user simulator, from 0; None: that of the source, and one more for each later episode.
        """
        split = split or self.source.splits[0]
        seed = self.source.seed + self._begun if seed is None else seed
        if not isinstance(seed, int) or seed < 0:
            raise BadInput(f"the seed is {seed!r}, expected a whole number from 0")
        drawn = random.Random(seed).randrange(len(self.source.tasks_of(split))) if index is None else index
        self._settings = replace(self._settings, seed=seed)
        self._episode = self._settings.begin(self.source.task(split, drawn))
        self.split, self.index, self.seed, self._begun = split, drawn, seed, self._begun + 1
        self.reward = self.trajectory = None
        return self._episode.messages[-1].content

    def step(self, text: str) -> str:
        """Do as `step_async`, from a thread without an event loop of its own."""
        return background.run(self.step_async(text))

    async def step_async(self, text: str) -> str:
        """Say the agent's turn and return the user's reply, "" at the end. Raises Spoilt where the machine failed, and
        ValueError where no episode is under way."""
        if self._episode is None or self._episode.done:
            raise ValueError("the episode is over: begin another one before the next turn")
        before, self._episode = self._episode.step_agent(text), None  # a spoilt one cannot go on
        try:
            if not before.done:
                self._episode = await user_turn_async(before, self.human, self._settings, sample=0)
                return self._episode.messages[-1].content
            row = make_trajectory(before, self.human, self._settings, sample=0)
            (self.trajectory,) = await asyncio.to_thread(grade_trajectories, [row], self.source.grader)
            if self.trajectory.reward is None:
                raise EpisodeFailed("grader", before, 0, "a test could not be run")
        except EpisodeFailed as failure:
            raise Spoilt(f"the {failure.by} failed, not the agent: {failure.reason}") from failure
        self._episode, self.reward = before, self.trajectory.reward
        return ""

    @property
    def done(self) -> bool:
        """Whether no episode is under way."""
        return self._episode is None or self._episode.done

    @property
    def messages(self) -> list[dict[str, str]]:
        """The dialogue so far as chat messages for the agent, system prompt first."""
        return [] if self._episode is None else self._settings.agent_messages(self._episode)

    @property
    def task_id(self) -> str:
        """The id of the task that is played."""
        return "" if self._episode is None else self._episode.task.task_id

    @property
    def turns_left(self) -> int:
        """How many turns the agent still has."""
        return 0 if self._episode is None or self._episode.done else self._settings.max_turns - self._episode.turns

    @property
    def success(self) -> bool:
        """Whether the episode is over and all tests passed."""
        return self.reward == 1.0

    def close(self) -> None:
        """Forget the episode."""
        self._episode = self.trajectory = self.reward = None
