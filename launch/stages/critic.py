"""Stages pairs and critic: step-wise advantages learnt from preferences between whole dialogues (section 4.1)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Pair, Trajectory
from launch.run import Run
from launch.run_dir import write_rows
from launch.stages.learning import fitted_pairs, shows_reference, train_on_pairs
from sweet_jax.batch import RowPair, bucket, default_buckets, pad_pairs
from sweet_jax.chat import privileged_prefix
from sweet_jax.critic import value_head_objective, value_head_shapes, with_value_head
from sweet_jax.objectives import Preference
from sweet_jax.pairs import trajectory_pairs
from sweet_jax.rows import (
    CHOSEN_TOKENS,
    REJECTED_TOKENS,
    row_to_json,
    trajectory_row,
    turn_output,
    turn_prompt,
)
from sweet_jax.step import combined
from sweet_jax.training import fit, restore_params


def pairs(run: Run) -> dict[str, Any]:
    """Trajectory pairs: of each task's samples the best, if it passes all tests, against every worse one."""
    path = run.directory.path / "grading" / "trajectories.jsonl"
    by_task: dict[str, list[tuple[int, Trajectory]]] = defaultdict(list)
    for line, trajectory in enumerate(read_rows(path, Trajectory), start=1):
        if trajectory.reward is not None:
            by_task[trajectory.task.task_id].append((line, trajectory))
    if not by_task:
        raise BadInput(f"{path}: no answer was graded, so there is nothing to compare")
    rows = [
        _pair(run, path, samples[pair.chosen], samples[pair.rejected])
        for samples in by_task.values()
        for pair in trajectory_pairs([trajectory.reward for _, trajectory in samples])
    ]
    if not rows:
        _without_pairs(run, path)
        return {"pairs": 0, "tasks": len(by_task)}
    write_rows(run.directory.stage("pairs") / "trajectory_pairs.jsonl", rows)
    return {"pairs": len(rows), "tasks": len(by_task)}


def _without_pairs(run: Run, path: Path) -> None:
    reason = f"{path}: no task has both a sample that passes all tests and a worse one"
    if shows_reference(run) and run.config.critic.without_pairs == "hindsight":
        run.console.warn(f"stage pairs: {reason}: no critic is trained, so what follows is no measure of SWEET-RL")
        return
    other = ""
    if shows_reference(run):
        other = "; to run the other stages all the same, --critic.without-pairs=hindsight"
    raise BadInput(
        f"{reason}, so there are no pairs to learn from: sample more (--num-tasks, --rollouts.samples) or give better "
        f"--trajectories{other}"
    )


def _pair(run: Run, path: Path, chosen: tuple[int, Trajectory], rejected: tuple[int, Trajectory]) -> Pair:
    prefix = privileged_prefix(chosen[1].task.ground_truth) if shows_reference(run) else ""
    texts, tokens = [], []
    for line, trajectory in (chosen, rejected):
        row = trajectory_row(trajectory, run.chat, run.system, f"{path}:{line}")
        last = row.num_turns
        said = run.chat.reply_text(turn_output(row, last))
        texts.append(prefix + run.chat.decode(turn_prompt(row, last)) + said)
        tokens.append(row_to_json(run.chat.with_prefix(row, prefix) if prefix else row))
    extra = {"task": chosen[1].task.task_id, CHOSEN_TOKENS: tokens[0], REJECTED_TOKENS: tokens[1]}
    return Pair(texts[0], texts[1], extra)


def critic(run: Run) -> dict[str, Any]:
    """The step-level critic: Bradley-Terry on summed turn advantages (eq. 2 and 3)."""
    settings = run.config.critic
    if run.directory.note("pairs")["pairs"] == 0:  # type: ignore[index]
        return {"pairs": 0, "steps": 0}
    path = run.directory.path / "pairs" / "trajectory_pairs.jsonl"
    pairs = fitted_pairs(run, "critic", path, settings.training, last_turn_only=False)
    preference = Preference(
        settings.aggregation, settings.beta, settings.nll_coef, settings.label_smoothing, run.config.rollouts.max_turns
    )
    if settings.parameterisation == "log-ratio":
        train_on_pairs(run, "critic", pairs, preference, settings.training, "turn")
    else:
        _train_value_head(run, pairs, preference)
    return {"pairs": len(pairs), "steps": settings.training.steps(len(pairs))}


def critic_params(run: Run) -> Any:
    """The trained critic's parameters; under adapters the frozen network is among them."""
    settings, num_pairs = run.config.critic, run.directory.note("critic")["pairs"]  # type: ignore[index]
    head = settings.parameterisation == "value-head"
    shapes = (
        value_head_shapes(run.trained_shapes, run.llama_config.hidden_size, run.mesh) if head else run.trained_shapes
    )
    trained = restore_params(run.directory.path / "critic", shapes, settings.training, num_pairs)
    return combined({"llama": run.frozen_params} if head else run.frozen_params, trained)


def _train_value_head(run: Run, pairs: Sequence[RowPair], settings: Preference) -> None:
    training, buckets = run.config.critic.training, default_buckets(run.config.critic.training.max_length)

    def make_batch(indices: np.ndarray, longest: int) -> Any:
        return pad_pairs([pairs[index] for index in indices], bucket(longest, buckets), run.chat.pad_id)

    size, key = run.llama_config.hidden_size, jax.random.key(run.config.seed)
    fit(
        "critic", value_head_shapes(run.trained_shapes, size, run.mesh),
        lambda: with_value_head(run.first_params(), size, key, run.mesh), run.mesh,
        value_head_objective(run.model, settings), [len(pair) for pair in pairs], make_batch, training,
        run.config.seed, run.directory.stage("critic"), run.reporter("critic"), {"llama": run.frozen_params},
    )  # fmt: skip
