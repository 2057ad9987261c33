"""Who gets the reward of an episode: the last turn, or each turn what a critic says."""

from collections.abc import Callable, Sequence
from typing import Any

from openenv.core.rubrics.trajectory import TrajectoryRubric

from colbench_env.types import Trajectory

StepCredit = Callable[[Trajectory], Sequence[float]]
"""From a graded dialogue, which holds task and reference, to what each of the agent's turns is worth."""


class TurnCredit(TrajectoryRubric):
    """Gives the last turn the reward, or every turn what `credit` says, such as a trained critic.

    graded: the row of the episode that is over.
    """

    def __init__(self, credit: StepCredit | None = None, graded: Callable[[], Trajectory | None] = lambda: None):
        super().__init__()
        self.credit, self.graded = credit, graded

    def score_trajectory(self, trajectory: list[tuple[Any, Any]]) -> float:
        """Return the reward that the last observation has."""
        return float(trajectory[-1][1].reward or 0.0)

    def compute_step_rewards(self) -> list[float]:
        """Return what each turn is worth, in order. ValueError where `credit` gives another number of values."""
        if not self._trajectory:
            return []
        reward, graded = self.score_trajectory(self._trajectory), self.graded()
        if self.credit is None or graded is None:
            return [0.0] * (len(self._trajectory) - 1) + [reward]
        credits = [float(value) for value in self.credit(graded)]
        if len(credits) != len(self._trajectory):
            raise ValueError(f"the critic gave {len(credits)} values for {len(self._trajectory)} turns")
        return credits
