"""What a trained critic says of each turn of a dialogue, for others: `ColBenchEnvironment(source, credit=...)`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from colbench_env.types import BadInput, Trajectory
from launch.common.benchmarks import Backend
from launch.common.console import Console
from launch.ranking.choosing import open_critic
from launch.training.stages.ranking import make_scorer
from sweet_jax.data.token_rows import trajectory_row, turn_output
from sweet_jax.mesh import parse_mesh
from sweet_jax.ranking import Turn
from sweet_jax.rollout.candidates import list_positions, make_candidates


def load_credit(critic: Path | str, mesh: str = "1x1") -> Callable[[Trajectory], list[float]]:
    """Load the critic of a run of `launch.train`; return the advantages that it gives to the turns of a dialogue.

    critic: the run directory, or its stage. mesh: DATAxTENSOR devices. An advantage is that by which stage ranking
    compares turns: nats for critics of log-ratios. Threads may call the function; one is served at a time.
    Raises BadInput where no critic is found; the function raises it for a dialogue whose task has no reference, where
    the critic is to see one.
    """
    shape = parse_mesh(mesh)
    console = Console(audible=False, takes_logs=False)
    run = open_critic(Path(critic), shape, Backend(), console, "float32", prompted=True)
    score = make_scorer(run, None, shape.data * -(-8 // shape.data), quiet=True)
    privileged = run.config.critic.privileged
    alone = threading.Lock()

    def credit(trajectory: Trajectory) -> list[float]:
        if privileged and not trajectory.task.ground_truth:
            raise BadInput(f"task {trajectory.task.task_id} has no reference, which the critic of {critic} is to see")
        with alone:
            tokens = trajectory_row(trajectory, run.chat, run.system, "the dialogue")
            positions = list_positions([trajectory], [tokens])
            rows = [make_candidates(position, [], run.chat, privileged) for position in positions]
            turns = [Turn(place, tuple(turn_output(tokens, place + 1))) for place in range(len(positions))]
            return [found.advantage for found in score(rows, turns)]

    return credit
