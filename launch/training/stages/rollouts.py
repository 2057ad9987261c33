"""Stages rollouts and grading: dialogues of a policy with the simulated human, and their rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colbench_env.grade_file import grade_rows, why_ungraded
from colbench_env.rewards import check_rewards
from colbench_env.tasks import read_located_rows, read_rows
from colbench_env.types import BadInput, Task, Trajectory
from launch.common.run_dir import write_rows
from launch.training.run import Run
from launch.training.stages.playing import Agent, play


def rollouts(run: Run) -> dict[str, Any]:
    """Dialogues of the start policy: row j * num_tasks + i is sample j of task i, unless episodes have failed."""
    path = run.directory.stage("rollouts") / "trajectories.jsonl"
    if run.config.trajectories is not None:
        given = read_located_rows(run.config.trajectories, Trajectory)
        check_rewards(given, run.benchmark.metric_names.benchmark)
        write_rows(path, [found.row for found in given])
        return {"trajectories": len(given), "from": str(run.config.trajectories)}
    train = read_rows(run.directory.path / "tasks" / "train.jsonl", Task)
    agent = Agent("start", run.start_params, run.config.rollouts.temperature)
    return play(run, "rollouts", path, agent, train, run.config.rollouts.samples, run.config.seed)


def grade(run: Run, stage: str, source: Path, target: Path) -> list[Trajectory]:
    """Grade the trajectories of `source`, each written to `target` with reward and verdicts as it is graded."""
    located = read_located_rows(source, Trajectory)
    trajectories = [found.row for found in located]
    for found in located:
        if found.row.reward is None and (reason := run.benchmark.grading_error(found.row.task)):
            raise BadInput(f"{found.location}: the answer cannot be graded: {reason}")
    wanted = [trajectory.reward is None for trajectory in trajectories]
    graded = grade_rows(
        trajectories,
        wanted,
        run.benchmark.grader,
        target,
        lambda done, total: run.console.progress(stage, done, total),
    )
    lost = sum(t.reward is None for t in graded)
    if lost:
        run.console.warn(
            f"stage {stage}: {lost} answers could not be graded, {why_ungraded(graded)}: they are left out"
        )
    return graded


def grading(run: Run) -> dict[str, Any]:
    """Rewards of the rollouts: the share of a task's tests that the answer passes, or its similarity."""
    source, folder = run.directory.rows_file("rollouts"), run.directory.stage("grading")
    graded = grade(run, "grading", source, folder / "trajectories.jsonl")
    return {"trajectories": len(graded), **outcome(graded)}


def outcome(graded: Sequence[Trajectory]) -> dict[str, float]:
    rewards = [t.reward for t in graded if t.reward is not None]
    return {
        "reward": float(np.mean(rewards)) if rewards else math.nan,
        "success": float(np.mean([reward == 1.0 for reward in rewards])) if rewards else math.nan,
        "turns": float(np.mean([len(t.agent_turns) for t in graded])),
    }
