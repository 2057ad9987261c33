"""What critic and policy share: the token rows of a file of pairs, and checks of rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from colbench_env.tasks import read_located_rows
from colbench_env.types import BadInput, Pair
from launch.training.run import Run
from sweet_jax.data.batch import (
    RowPair,
    TokenRow,
    action_tokens_without_loss,
    fit_pairs,
    rows_without_action_tokens,
)
from sweet_jax.data.token_rows import check_row, pair_rows
from sweet_jax.train.metrics import CollapseWatch
from sweet_jax.train.preferences import both_sides
from sweet_jax.train.settings import Training


def shows_reference(run: Run) -> bool:
    return run.config.algorithm == "sweet" and run.config.critic.privileged


def fitted_pairs(run: Run, stage: str, path: Path, training: Training, last_turn_only: bool) -> tuple[RowPair, ...]:
    """Read the pairs of a file as token rows within the length limit; report what was cut, dropped or empty."""
    given = read_located_rows(path, Pair)
    lines = given[held_out(training, len(given)) :]
    rows = [pair_rows(found.row, run.chat, last_turn_only, found.location) for found in lines]
    for found, pair in zip(lines, rows, strict=True):
        check_pair(pair, run, found.location)
    check_lengths(stage, [(found.location, len(pair)) for found, pair in zip(lines, rows, strict=True)], training)
    fitted = fit_pairs(rows, training.max_length, training.truncation)
    watch = CollapseWatch(len(rows))
    empty = rows_without_action_tokens(both_sides(fitted.pairs))
    for warning in watch.rows(2 * len(rows), len(empty), len(fitted.cut)):
        run.console.warn(f"stage {stage}: {warning}")
    if fitted.dropped:
        run.console.warn(f"stage {stage}: {len(fitted.dropped)} of {len(rows)} pairs were too long and were dropped")
    return fitted.pairs


def check_pair(pair: RowPair, run: Run, location: str) -> None:
    """`rows.check_row` of both sides."""
    check_row(pair.chosen, run.llama_config.vocab_size, f"{location}: 'chosen'")
    check_row(pair.rejected, run.llama_config.vocab_size, f"{location}: 'rejected'")


def held_out(training: Training, rows: int) -> int:
    """How many of the rows, from the first on, are not trained on."""
    return int(training.held_out_fraction * rows)


def check_lengths(stage: str, lengths: Sequence[tuple[str, int]], training: Training) -> None:
    """BadInput naming the first (place, length) over the limit, unless longer rows are to be cut or dropped."""
    for location, length in lengths:
        if length > training.max_length and training.truncation == "raise":
            raise BadInput(
                f"{location}: the row has {length} tokens, more than {stage}.max_length of "
                f"{training.max_length}: raise it, or choose a {stage}.truncation"
            )


def check_action_tokens(rows: Sequence[TokenRow], num_turns: int) -> dict[str, int]:
    """How many action tokens the rows have, and how many of them reach no loss: none, or RuntimeError."""
    counts = {
        "action_tokens": sum(int((row.turns > 0).sum()) for row in rows),
        "action_tokens_without_loss": action_tokens_without_loss(rows, num_turns),
    }
    if counts["action_tokens_without_loss"]:
        raise RuntimeError(f"action tokens are dropped, of {num_turns} turns: {counts}")
    return counts
