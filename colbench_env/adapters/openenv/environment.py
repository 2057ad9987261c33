"""ColBench as an OpenEnv `Environment` with tasks by split."""

import uuid
from typing import Any

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import EnvironmentMetadata

from colbench_env.adapters import Session
from colbench_env.adapters.openenv.models import ColBenchAction, ColBenchObservation, ColBenchState
from colbench_env.adapters.openenv.rubric import StepCredit, TurnCredit
from colbench_env.source import Source
from colbench_env.types import BadInput, Trajectory


class ColBenchEnvironment(Environment[ColBenchAction, ColBenchObservation, ColBenchState]):
    """One session; sessions share grader and user simulator, and nothing else."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, source: Source | None = None, credit: StepCredit | None = None):
        self._session = Session(source or Source.from_environment())
        super().__init__(rubric=TurnCredit(credit, lambda: self.graded))
        self._state = ColBenchState()

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        split: str = "",
        index: int | None = None,
        **unknown: Any,
    ) -> ColBenchObservation:
        """Begin an episode about task `index` of `split`, the first one if none is said, or about a drawn task.

        Raises BadInput for a split, a task or a name that there is not.
        """
        if unknown:
            raise BadInput(f"reset knows seed, episode_id, split and index, not {', '.join(sorted(unknown))}")
        self._reset_rubric()
        text = self._session.begin(split, index, seed)
        self._state = ColBenchState(
            episode_id=episode_id or str(uuid.uuid4()),
            step_count=0,
            split=self._session.split,
            index=self._session.index,
            task_id=self._session.task_id,
        )
        return self._observation(text)

    def step(self, action: ColBenchAction, timeout_s: float | None = None, **_: Any) -> ColBenchObservation:
        """Say the agent's turn. Raises ValueError after the end, and Spoilt where the machine failed."""
        text = self._session.step(action.text)
        self._state.step_count += 1
        observation = self._observation(text)
        self._apply_rubric(action, observation)
        if observation.done:
            observation.turn_credits = self.rubric.compute_step_rewards()
        return observation

    def _observation(self, text: str) -> ColBenchObservation:
        session = self._session
        return ColBenchObservation(
            text=text,
            messages=session.messages,
            turns_left=session.turns_left,
            success=session.success if session.done else None,
            done=session.done,
            reward=session.reward if session.done else 0.0,
        )

    @property
    def state(self) -> ColBenchState:
        """Which task is played, and how many turns there were."""
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        """Say what this environment is."""
        about = "An agent asks a user with hidden wishes, then answers; hidden tests grade the answer."
        return EnvironmentMetadata(name="colbench", description=about, version="1")

    @property
    def graded(self) -> Trajectory | None:
        """The graded row of the episode, with the reference, once it is over; it stays on the server."""
        return self._session.trajectory

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def list_splits(self) -> list[str]:
        """Name the splits."""
        return list(self._session.source.splits)

    def num_tasks(self, split: str) -> int:
        """Count the tasks of a split."""
        return len(self._session.source.tasks_of(split))

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """Describe a task as an agent may know it: without reference and tests. Raises IndexError."""
        if not 0 <= index < self.num_tasks(split):
            raise IndexError(f"there is no task {index} in split {split!r}, which has {self.num_tasks(split)}")
        task = self._session.source.task(split, index)
        return {"id": task.task_id, "index": index, "split": split, "problem": task.problem_description}

    def get_task_range(self, split: str, start: int | None = None, stop: int | None = None) -> list[dict[str, Any]]:
        """Describe the tasks in [start, stop)."""
        return [self.get_task(split, index) for index in range(*slice(start, stop).indices(self.num_tasks(split)))]

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """Describe all tasks of a split."""
        return self.get_task_range(split)
