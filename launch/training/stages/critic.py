"""Stages pairs and critic: step-wise advantages learnt from preferences between whole dialogues (section 4.1)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp

from colbench_env.tasks import read_located_rows
from colbench_env.types import BadInput, Pair, Trajectory
from launch.common.run_dir import write_rows
from launch.training.run import Run
from launch.training.stages.learning import (
    both_sides,
    check_action_tokens,
    check_pair,
    fitted_pairs,
    shows_reference,
)
from models.hf_io import load_llama
from sweet_jax.critic import HeadKind, add_value_head, value_head_shapes
from sweet_jax.data.batch import RowPair, TokenRow, most_turns
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import CHOSEN_TOKENS, REJECTED_TOKENS, pair_rows, row_to_json, turn_output, turn_prompt
from sweet_jax.train.head_training import head_training
from sweet_jax.train.loop import fit, restore_params
from sweet_jax.train.objectives import PreferenceLoss
from sweet_jax.train.preferences import train_preference
from sweet_jax.train.scale import choose_beta
from sweet_jax.train.step import merge_params
from sweet_jax.trajectory_pairs import Sample, select_pairs, tokenise_pair


def pairs(run: Run) -> dict[str, Any]:
    """Trajectory pairs, as the benchmark prefers samples of one task (section 4.1)."""
    if run.config.pairs is not None:
        return _given_pairs(run, run.config.pairs)
    path = run.directory.rows_file("grading")
    samples = [Sample(found.location, found.row) for found in read_located_rows(path, Trajectory)]
    tasks = {sample.trajectory.task.task_id for sample in samples if sample.trajectory.reward is not None}
    if not tasks:
        raise BadInput(f"{path}: no answer was graded, so there is nothing to compare")
    privileged = shows_reference(run)
    rows = [
        tokenise_pair(*preferred, run.chat, run.system, privileged)
        for preferred in select_pairs(samples, run.benchmark.preference_pairs)
    ]
    if not rows:
        _without_pairs(run, path)
        return {"pairs": 0, "tasks": len(tasks)}
    write_rows(run.directory.stage("pairs") / "trajectory_pairs.jsonl", rows)
    return {"pairs": len(rows), "tasks": len(tasks)}


def _given_pairs(run: Run, path: Path) -> dict[str, Any]:
    """Trajectory pairs of a file, made into token rows where they are text; without the reference where it is not to
    be seen. BadInput where it is, and a row does not begin with it."""
    privileged, chat, rows = shows_reference(run), run.chat, []
    for found in read_located_rows(path, Pair):
        pair, location = found.row, found.location
        made = pair_rows(pair, chat, False, location)
        check_pair(made, run, location)
        sides, (chosen, rejected) = [made.chosen, made.rejected], (pair.chosen, pair.rejected)
        if privileged and any(side.prefix <= int(chat.bos_id is not None) for side in sides):
            raise BadInput(
                f"{location}: the dialogue does not begin with the reference solution, which the critic is to see: "
                "--critic.no-privileged trains one that does not"
            )
        if not privileged:
            sides = [chat.drop_prefix(side) for side in sides]
            chosen, rejected = (_last_prompt_and_turn(side, chat) for side in sides)
        tokens = [row_to_json(side) for side in sides]
        rows.append(Pair(chosen, rejected, pair.extra | {CHOSEN_TOKENS: tokens[0], REJECTED_TOKENS: tokens[1]}))
    write_rows(run.directory.stage("pairs") / "trajectory_pairs.jsonl", rows)
    return {"pairs": len(rows), "from": str(path)}


def _last_prompt_and_turn(row: TokenRow, chat: Chat) -> str:
    """Give the row in the released layout: without the last turn's end."""
    return chat.decode(turn_prompt(row, row.num_turns)) + chat.reply_text(turn_output(row, row.num_turns))


def _without_pairs(run: Run, path: Path) -> None:
    reason = f"{path}: {run.benchmark.no_preferences_message}"
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


def critic(run: Run) -> dict[str, Any]:
    """Train the step-level critic: Bradley-Terry on summed turn advantages (eq. 2 and 3)."""
    settings = run.config.critic
    if run.directory.note("pairs")["pairs"] == 0:  # type: ignore[index]
        return {"pairs": 0, "steps": 0}
    path = run.directory.rows_file("pairs")
    pairs = fitted_pairs(run, "critic", path, settings.training, last_turn_only=False)
    rows = both_sides(pairs)
    beta = settings.beta or 1.0
    preference = PreferenceLoss(
        settings.aggregation, beta, settings.nll_coef, settings.label_smoothing, most_turns(rows)
    )
    counts: dict[str, Any] = check_action_tokens(rows, preference.max_turns)
    if settings.beta == 0:
        losses = choose_beta(
            run.model,
            pairs,
            loss=preference,
            training=settings.training,
            merge=functools.partial(merge_params, run.frozen_params),
            **run.preference_arguments("critic"),
        )
        preference = replace(preference, beta=min(losses, key=losses.__getitem__))
        told = {f"{beta:g}": round(found, 4) for beta, found in losses.items()}
        counts |= {"beta": preference.beta, "held_out_loss": told}
    if settings.parameterisation == "log-ratio":
        train_preference(
            run.model,
            pairs,
            loss=preference,
            training=settings.training,
            **run.preference_arguments("critic"),
        )
    else:
        _train_head(run, pairs, preference, cast(HeadKind, settings.parameterisation))
    return {"pairs": len(pairs), "steps": settings.training.steps(len(pairs))} | counts


def critic_params(run: Run) -> Any:
    """Load the trained critic's parameters; under adapters the frozen network is among them."""
    settings, given = run.config.critic, run.given_critic
    if given is None:
        directory, num_pairs = run.directory.path / "critic", run.directory.note("critic")["pairs"]  # type: ignore[index]
    elif given.pairs is None:
        return load_llama(given.directory, run.mesh, run.dtype if run.lora else jnp.float32).params
    else:
        directory, num_pairs = given.directory, given.pairs
    head = settings.has_head
    shapes = (
        value_head_shapes(run.trained_shapes, run.llama_config.hidden_size, run.mesh) if head else run.trained_shapes
    )
    trained = restore_params(directory, shapes, settings.training, num_pairs)
    return merge_params({"llama": run.frozen_params} if head else run.frozen_params, trained)


def _train_head(run: Run, pairs: Sequence[RowPair], loss: PreferenceLoss, kind: HeadKind) -> None:
    training, size, key = run.config.critic.training, run.llama_config.hidden_size, jax.random.key(run.config.seed)
    objective, make_batch = head_training(run.model, pairs, loss, training, run.chat.pad_id, kind)
    fit(
        "critic",
        shapes=value_head_shapes(run.trained_shapes, size, run.mesh),
        first=lambda: add_value_head(run.first_params(), size, key, run.mesh),
        mesh=run.mesh,
        objective=objective,
        lengths=[len(pair) for pair in pairs],
        make_batch=make_batch,
        settings=training,
        seed=run.config.seed,
        directory=run.directory.stage("critic"),
        reporter=run.reporter("critic"),
        frozen={"llama": run.frozen_params},
    )
