"""Stages policy and evaluation: what the agent learns from the pairs, and what that is worth on held-out tasks."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colbench_env.episodes import seed_of
from colbench_env.tasks import read_located_rows, read_rows
from colbench_env.types import BadInput, Task, Trajectory
from launch.training.run import Run
from launch.training.stages.learning import (
    both_sides,
    check_action_tokens,
    check_lengths,
    fitted_pairs,
    held_out,
)
from launch.training.stages.playing import Agent, play
from launch.training.stages.rollouts import grade, outcome
from models.parameters import flatten
from sweet_jax import processes
from sweet_jax.data.batch import bucket, default_buckets, most_turns, pad_rows, truncate
from sweet_jax.data.token_rows import check_row, trajectory_row
from sweet_jax.export import export_trained
from sweet_jax.train.loop import fit
from sweet_jax.train.metrics import CollapseWatch
from sweet_jax.train.objectives import PreferenceLoss, nll_objective
from sweet_jax.train.preferences import train_preference

ALL_CHECKPOINTS = 1_000_000


def policy(run: Run) -> dict[str, Any]:
    """Train the policy: DPO on turn pairs (eq. 4), DPO on trajectory pairs, or imitation of successes."""
    config, settings = run.config, run.config.policy
    if config.algorithm == "rft":
        count, counts = _imitate(run)
    else:
        per_turn = config.algorithm == "sweet"
        path = run.directory.rows_file("turn-pairs" if per_turn else "pairs")
        pairs = fitted_pairs(run, "policy", path, settings.training, last_turn_only=per_turn)
        turns = most_turns(both_sides(pairs))
        preference = PreferenceLoss("sum", settings.beta, settings.nll_coef, settings.label_smoothing, turns)
        counts = check_action_tokens(both_sides(pairs), turns)
        train_preference(
            run.model,
            pairs,
            loss=preference,
            training=settings.training,
            nll_mask=settings.nll_mask,
            keep=_kept(run),
            **run.preference_arguments("policy"),
        )
        count = len(pairs)
    export_policy(run, run.policy_params(count))
    return {"rows": count, "steps": settings.training.steps(count)} | counts


def export_policy(run: Run, params: Any) -> None:
    """Write the policy's Hugging Face directory, policy/model of the run."""
    directory, flat = run.directory.path / "policy" / "model", flatten(params)
    export_trained(directory, run.llama_config, flat.__getitem__, flat["embedding"].dtype, run.model_directory)


def _kept(run: Run) -> int:
    """How many checkpoints of the policy stay: all where one is to be selected."""
    return ALL_CHECKPOINTS if run.config.policy_stage == "selection" else 2


def _imitate(run: Run) -> tuple[int, dict[str, int]]:
    """Rejection fine-tuning on the agent's turns of every trajectory that the benchmark finds worth it; how many rows,
    and their `check_action_tokens`."""
    settings = run.config.policy
    path = run.directory.rows_file("grading")
    given = read_located_rows(path, Trajectory)
    good = [given[index] for index in _demonstrations(run, [found.row for found in given])]
    rows = [(found.location, trajectory_row(found.row, run.chat, run.system, found.location)) for found in good]
    for location, row in rows:
        check_row(row, run.llama_config.vocab_size, location)
    rows = rows[held_out(settings.training, len(rows)) :]
    check_lengths("policy", [(location, len(row)) for location, row in rows], settings.training)
    fitted = [truncate(row, settings.training.max_length, settings.training.truncation) for _, row in rows]
    kept = [row for row in fitted if row is not None]
    if not kept:
        raise BadInput(f"{path}: {run.benchmark.no_demonstrations_message}, so there is nothing to imitate")
    counts = check_action_tokens(kept, most_turns(kept))
    buckets = default_buckets(settings.training.max_length)

    def make_batch(indices: np.ndarray, longest: int) -> Any:
        chosen = [kept[index] for index in indices]
        return pad_rows(chosen, bucket(longest, buckets), run.chat.pad_id, settings.nll_mask)

    fit(
        "policy",
        shapes=run.trained_shapes,
        first=run.first_params,
        mesh=run.mesh,
        objective=nll_objective(run.model),
        lengths=[len(row) for row in kept],
        make_batch=make_batch,
        settings=settings.training,
        seed=run.config.seed,
        directory=run.directory.stage("policy"),
        reporter=run.reporter("policy"),
        frozen=run.frozen_params,
        keep=_kept(run),
    )
    return len(kept), counts


def _demonstrations(run: Run, rows: Sequence[Trajectory]) -> list[int]:
    """Numbers of the rows, from 0."""
    by_task: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        if row.reward is not None:
            by_task[row.task.task_id].append(number)
    return sorted(
        numbers[index]
        for numbers in by_task.values()
        for index in run.benchmark.demonstrations([rows[number].reward or 0.0 for number in numbers])
    )


def evaluation(run: Run) -> dict[str, Any]:
    """Start policy and trained policy on held-out tasks: the same tasks, the same seeds."""
    folder = run.directory.stage("evaluation")
    held_out = read_rows(run.directory.path / "tasks" / "eval.jsonl", Task)
    seed = seed_of(run.config.seed, "evaluation")
    policies: dict[str, Callable[[], Any]] = {"start": lambda: run.start_params}
    if run.config.algorithm != "zero-shot":
        stage = run.config.policy_stage
        trained, chosen = run.directory.note("policy"), run.directory.note(stage)
        if trained is None or chosen is None:
            raise BadInput(f"{run.directory.path}: there is no trained policy to evaluate: run --stage={stage} first")
        step = chosen["step"] if stage == "selection" else None
        policies["trained"] = lambda: run.start_params if step == 0 else run.policy_params(trained["rows"], step)
    counts, note = {}, {}
    for name, params in policies.items():  # all play before any is waited for to be graded
        agent = Agent(name, params(), run.config.evaluation.temperature)
        counts[name] = play(run, f"evaluation: {name}", folder / f"{name}_ungraded.jsonl", agent, held_out, 1, seed)
    watch = CollapseWatch(total=len(policies))
    for name in policies:
        played, graded = folder / f"{name}_ungraded.jsonl", folder / f"{name}.jsonl"
        grade_played = functools.partial(grade_outcome, run, f"evaluation: {name}", played, graded)
        found = processes.broadcast_from_process_0(grade_played)
        for warning in watch.turns(found["turns"]):
            run.console.warn(f"evaluation of the {name} policy: {warning}")
        note[name] = found | {key: count for key, count in counts[name].items() if key == "failed"}
    return note


def grade_outcome(run: Run, stage: str, played: Path, graded: Path) -> dict[str, float]:
    """Grade what was played, into that file, and return the mean reward, success and turns."""
    return outcome(grade(run, stage, played, graded))
