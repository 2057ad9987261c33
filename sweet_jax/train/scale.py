"""The scale of the critic's loss, chosen by how well it foretells pairs that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from colbench_env.types import BadInput
from models.llama import Llama
from sweet_jax.data.batch import RowPair, TokenRow, default_buckets
from sweet_jax.data.pair_trees import prompt_key
from sweet_jax.losses import preference_loss, turn_advantages
from sweet_jax.reference import reference_logps
from sweet_jax.train.objectives import PreferenceLoss
from sweet_jax.train.preferences import both_sides, train_preference
from sweet_jax.train.settings import Training

BETAS = (0.1, 0.3, 1.0, 3.0)
HELD_OUT = 0.2
"""Fraction of the prompts whose pairs are not trained on while beta is chosen."""


def hold_out(pairs: Sequence[RowPair], seed: int) -> tuple[list[RowPair], list[RowPair]]:
    """Split pairs into those to train on and those held out, all pairs after one prompt on the same side.

    BadInput where there are fewer than two prompts.
    """
    prompts = list(dict.fromkeys(map(prompt_key, pairs)))
    if len(prompts) < 2:
        raise BadInput(f"{len(pairs)} pairs after {len(prompts)} prompts: none can be held out to choose beta by")
    order = np.random.default_rng(seed).permutation(len(prompts))
    held = {prompts[place] for place in order[: max(1, round(HELD_OUT * len(prompts)))]}
    trained = [pair for pair in pairs if prompt_key(pair) not in held]
    return trained, [pair for pair in pairs if prompt_key(pair) in held]


def choose_beta(
    model: Llama,
    pairs: Sequence[RowPair],
    *,
    loss: PreferenceLoss,
    training: Training,
    merge: Callable[[Any], Any],
    directory: Path,
    **others: Any,
) -> dict[float, float]:
    """Train with each of BETAS on most of the pairs; give beta -> mean -log sigmoid(beta margin) of the held-out ones.

    Each is the likelihood of the held-out preferences under the Bradley-Terry model that was trained, so they can be
    compared. merge: makes the network's parameters of the trained ones. directory: each training is kept in its
    `beta-X`, so that a killed choice goes on. others: as for `train_preference`.
    """
    trained, held = hold_out(pairs, others["seed"])
    told = {
        "batch_size": 2 * training.batch_size,
        "buckets": default_buckets(training.max_length),
        "pad_id": others["pad_id"],
    }
    rows = both_sides(held)
    before = reference_logps(model, others["reference"](), rows, **told)
    found = {}
    for beta in BETAS:
        params = train_preference(
            model,
            trained,
            loss=replace(loss, beta=beta),
            training=training,
            directory=directory / f"beta-{beta:g}",
            **others,
        )
        after = reference_logps(model, merge(params), rows, **told)
        scores = [_score(*of, loss) for of in zip(after, before, rows, strict=True)]
        chosen, rejected = jnp.array(scores[::2]), jnp.array(scores[1::2])
        found[beta] = float(preference_loss(chosen, rejected, beta).mean())
    return found


def _score(logps: np.ndarray, before: np.ndarray, row: TokenRow, loss: PreferenceLoss) -> float:
    logp_1t, ref_1t, turn_1t = (jnp.array(x)[None] for x in (logps, before, row.turns))
    return float(turn_advantages(logp_1t, ref_1t, turn_1t, loss.max_turns, loss.aggregation).sum())
