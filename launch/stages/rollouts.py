"""Stages rollouts and grading: dialogues of a policy with the simulated human, and their rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colbench_env.episodes import EpisodeFailed
from colbench_env.grading import Grader
from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Task, Trajectory
from launch.cli import Stopped
from launch.dialogues import Assignment
from launch.grading import can_be_graded, grade_rows
from launch.run import Run
from launch.run_dir import append_rows, resume_rows, write_rows
from sweet_jax.metrics import CollapseWatch

WAVE = 4  # dialogues under way: this many sampler batches; also what is written, and redone after a kill, at once


def play(
    run: Run, stage: str, path: Path, params: Any, wanted: Sequence[Assignment], temperature: float, seed: int
) -> None:
    """Plays what is missing in `path`, a wave at a time."""
    wave = WAVE * run.config.rollouts.rows
    done = resume_rows(path, Trajectory, wave, len(wanted))
    if done == len(wanted):
        return
    table, watch = run.table(params, temperature, seed), CollapseWatch(len(wanted))
    while done < len(wanted):
        part = wanted[done : done + wave]
        so_far = done
        try:
            played = table.play(
                part, lambda ended, so_far=so_far: run.console.progress(stage, so_far + ended, len(wanted))
            )
        except EpisodeFailed as failure:
            raise Stopped(f"stage {stage}: {failure}; run the same command again to continue") from failure
        append_rows(path, played)
        done += len(part)
        tokens = [turn.extra["tokens"] for trajectory in played for turn in trajectory.agent_turns]
        for warning in watch.replies(float(np.mean(tokens))):
            run.console.warn(f"stage {stage}: {warning}")
        run.console.progress(stage, done, len(wanted))


def rollouts(run: Run) -> dict[str, Any]:
    """Dialogues of the start policy: row j * num_tasks + i is sample j of task i."""
    path = run.directory.stage("rollouts") / "trajectories.jsonl"
    if run.config.trajectories is not None:
        given = read_rows(run.config.trajectories, Trajectory)
        write_rows(path, given)
        return {"trajectories": len(given), "from": str(run.config.trajectories)}
    train = read_rows(run.directory.path / "tasks" / "train.jsonl", Task)
    wanted = [Assignment(task, sample) for sample in range(run.config.rollouts.samples) for task in train]
    play(run, "rollouts", path, run.start_params, wanted, run.config.rollouts.temperature, run.config.seed)
    return {"trajectories": len(wanted)}


def grade(run: Run, stage: str, source: Path, target: Path) -> list[Trajectory]:
    """The trajectories of `source` with rewards and verdicts, written to `target` as they are graded."""
    trajectories = read_rows(source, Trajectory)
    for line, trajectory in enumerate(trajectories, start=1):
        if trajectory.reward is None and not can_be_graded(trajectory):
            raise BadInput(f"{source}:{line}: the task has no reference or no tests, so the answer cannot be graded")
    wanted = [trajectory.reward is None for trajectory in trajectories]
    with Grader(run.config.grader, workers=run.config.grader_workers, unsafe=run.config.unsafe) as grader:
        graded = grade_rows(
            trajectories, wanted, grader, target, lambda done, total: run.console.progress(stage, done, total)
        )
    lost = sum(t.reward is None for t in graded)
    if lost:
        run.console.warn(
            f"stage {stage}: {lost} answers could not be graded for lack of a working sandbox and are left out"
        )
    return graded


def grading(run: Run) -> dict[str, Any]:
    """Rewards of the rollouts: the share of a task's tests that the answer passes."""
    source, folder = run.directory.path / "rollouts" / "trajectories.jsonl", run.directory.stage("grading")
    graded = grade(run, "grading", source, folder / "trajectories.jsonl")
    return {"trajectories": len(graded), **outcome(graded)}


def outcome(graded: Sequence[Trajectory]) -> dict[str, float]:
    rewards = [t.reward for t in graded if t.reward is not None]
    return {
        "reward": float(np.mean(rewards)) if rewards else math.nan,
        "success": float(np.mean([reward == 1.0 for reward in rewards])) if rewards else math.nan,
        "turns": float(np.mean([len(t.agent_turns) for t in graded])),
    }
