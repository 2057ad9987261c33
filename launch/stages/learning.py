"""What critic and policy share: the token rows of a file of pairs, training on them, the model as a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from colbench_env.tasks import read_rows
from colbench_env.types import BadInput, Pair
from launch.run import Run
from sweet_jax.batch import RowPair, bucket, default_buckets, fit_pairs, pad_pairs, uncounted
from sweet_jax.logprobs import ReferenceCache, pad_reference, reference_logps
from sweet_jax.metrics import CollapseWatch
from sweet_jax.objectives import Preference, PreferenceBatch, preference_objective
from sweet_jax.rows import pair_rows
from sweet_jax.settings import Training
from sweet_jax.training import fit


def shows_reference(run: Run) -> bool:
    return run.config.algorithm == "sweet" and run.config.critic.privileged


def fitted_pairs(run: Run, stage: str, path: Path, training: Training, last_turn_only: bool) -> tuple[RowPair, ...]:
    """The pairs of a file as token rows within the length limit; what was cut, dropped or empty is told."""
    given = read_rows(path, Pair)
    first = held_out(training, len(given))
    rows = [
        pair_rows(pair, run.chat, last_turn_only, f"{path}:{line}")
        for line, pair in enumerate(given[first:], start=first + 1)
    ]
    check_lengths(stage, path, [(line, len(pair)) for line, pair in enumerate(rows, start=first + 1)], training)
    fitted = fit_pairs(rows, training.max_length, training.truncation)
    watch = CollapseWatch(len(rows))
    empty = uncounted([row for pair in fitted.pairs for row in (pair.chosen, pair.rejected)])
    for warning in watch.rows(2 * len(rows), len(empty), len(fitted.cut)):
        run.console.warn(f"stage {stage}: {warning}")
    if fitted.dropped:
        run.console.warn(f"stage {stage}: {len(fitted.dropped)} of {len(rows)} pairs were too long and were dropped")
    return fitted.pairs


def held_out(training: Training, rows: int) -> int:
    """How many of the rows, from the first on, are not trained on."""
    return int(training.held_out_share * rows)


def check_lengths(stage: str, path: Path, lengths: Sequence[tuple[int, int]], training: Training) -> None:
    """BadInput naming the first (line, length) over the limit, unless longer rows are to be cut or dropped."""
    for line, length in lengths:
        if length > training.max_length and training.truncation == "raise":
            raise BadInput(
                f"{path}:{line}: the row has {length} tokens, more than {stage}.training.max_length of "
                f"{training.max_length}: raise it, or choose a {stage}.training.truncation"
            )


def train_on_pairs(
    run: Run, stage: str, pairs: Sequence[RowPair], settings: Preference, training: Training, nll: str
) -> None:
    """Preference training of the network, its start being the reference; leaves checkpoints in the stage's folder."""
    folder, mesh = run.directory.stage(stage), run.mesh
    buckets = default_buckets(training.max_length)
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    reference = reference_logps(
        run.model, run.start_params, rows,
        batch_size=2 * training.batch_size, buckets=buckets, pad_id=run.chat.pad_id,
        cache=ReferenceCache(folder / "reference"),
        progress=lambda done, total: run.console.progress(f"{stage}: reference log-probs", done, total),
    )  # fmt: skip

    def make_batch(indices: np.ndarray, longest: int) -> PreferenceBatch:
        length = bucket(longest, buckets)
        return PreferenceBatch(
            pad_pairs([pairs[index] for index in indices], length, run.chat.pad_id, nll),  # type: ignore[arg-type]
            pad_reference([reference[2 * index] for index in indices], length),
            pad_reference([reference[2 * index + 1] for index in indices], length),
        )

    fit(
        stage, run.trained_shapes, run.first_params, mesh, preference_objective(run.model, settings),
        [len(pair) for pair in pairs], make_batch, training, run.config.seed, folder, run.reporter(stage),
        run.frozen_params,
    )  # fmt: skip
