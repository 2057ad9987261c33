"""What each training stage minimises: token log-probs of a batch -> a score for each row -> one loss.

    SFT, rft              nll_objective                -sum of log-probs / tokens in the NLL mask
    critic (log-ratio)    preference_objective         eq. 2 and 3: "turn-mean", rows with the privileged prefix
    critic (value head)   critic.value_head_objective  eq. 2 on the head's advantages
    mtdpo                 preference_objective         DPO: "sum" over all action tokens of a dialogue
    policy                preference_objective         eq. 4: "sum" over the action tokens of the last turn only

Equations are those of arXiv 2503.15478; the formulas stand in `sweet_jax.losses`, what an objective is in
`sweet_jax.train.step`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from colbench_env.types import BadInput
from models.llama import Llama
from sweet_jax.data.batch import PairBatch, TurnBatch
from sweet_jax.logprobs import token_logps
from sweet_jax.losses import (
    AGGREGATIONS,
    Aggregation,
    MeanMetric,
    Metrics,
    drop_first_token,
    nll,
    preference_loss,
    preference_metrics,
    turn_advantages,
)
from sweet_jax.train.step import Objective


@dataclass(frozen=True)
class PreferenceLoss:
    """How a pair becomes a loss; the defaults are the paper's critic. BadInput for values out of range.

    aggregation: how a row's log-ratios become its score (see `losses.turn_advantages`).
    beta: scale of the score in the sigmoid.
    nll_coef: weight of the negative log-likelihood of the chosen rows.
    label_smoothing: probability with which the preference is taken to be wrong (conservative DPO).
    max_turns: K, the most agent turns of a row.
    """

    aggregation: Aggregation = "turn-mean"
    beta: float = 0.1
    nll_coef: float = 0.01
    label_smoothing: float = 0.0
    max_turns: int = 10

    def __post_init__(self) -> None:
        if self.aggregation not in AGGREGATIONS:
            raise BadInput(f"turn aggregation {self.aggregation!r} is unknown, expected {', '.join(AGGREGATIONS)}")
        if self.beta <= 0 or self.nll_coef < 0:
            raise BadInput(f"beta {self.beta} must be above 0 and nll_coef {self.nll_coef} must not be negative")
        if not 0 <= self.label_smoothing < 0.5:
            raise BadInput(f"label_smoothing is {self.label_smoothing}, it must be at least 0 and below 0.5")
        if self.max_turns < 1:
            raise BadInput(f"max_turns is {self.max_turns}, it must be at least 1")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PreferenceBatch:
    """Pairs, and the log-probs of their tokens under the frozen reference, computed once before training.

    chosen_ref_bt, rejected_ref_bt: float32 [B, T]; 0 in the padding.
    """

    pairs: PairBatch
    chosen_ref_bt: Any
    rejected_ref_bt: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Counts:
    """The divisors of a batch, float32 scalars: its real pairs, and the tokens of its NLL mask."""

    pairs: Any
    nll_tokens: Any


def real_pairs(pairs: PairBatch) -> Bool[Array, " B"]:
    """Mask the pairs that prefer something: not those of length 0, which fill up an incomplete batch, nor a row paired
    with itself, which is there for its NLL."""
    filled_b = (pairs.chosen.length_b > 0) & (pairs.rejected.length_b > 0)
    return filled_b & (pairs.chosen.tokens_bt != pairs.rejected.tokens_bt).any(axis=1)


def count_pairs(pairs: PairBatch) -> Counts:
    """Count what a batch of pairs is divided by, at least 1 each."""
    return Counts(at_least_one(real_pairs(pairs).sum()), at_least_one(drop_first_token(pairs.chosen.nll_bt).sum()))


def at_least_one(count: Array) -> Array:
    return jnp.maximum(count, 1).astype(jnp.float32)


def nll_objective(model: Llama, chunk: int | None = None) -> Objective:
    """Make the next-token loss over the tokens in `TurnBatch.nll_bt`: all of a row, or only the agent's."""

    def counts(batch: TurnBatch) -> Array:
        return at_least_one(drop_first_token(batch.nll_bt).sum())

    def loss(params: Mapping[str, Any], batch: TurnBatch, tokens: Array) -> tuple[Array, Metrics]:
        logp_bt = token_logps(model, params, batch.tokens_bt, chunk=chunk)
        metric = nll(logp_bt, batch.nll_bt)
        return metric.sum / tokens, {"nll": metric}

    return Objective(counts, loss)


def preference_objective(model: Llama, settings: PreferenceLoss, chunk: int | None = None) -> Objective:
    """Make the preference loss on `PreferenceBatch`, eq. 2 to 4.

    loss = mean over pairs of -log sigmoid(beta * (score(chosen) - score(rejected))) + nll_coef * NLL(chosen),
    score(row) = sum over turns of the turn's aggregated log-ratio (eq. 3; `losses.turn_advantages`).
    chunk: see `logprobs.token_logps`.
    """

    def counts(batch: PreferenceBatch) -> Counts:
        return count_pairs(batch.pairs)

    def loss(params: Mapping[str, Any], batch: PreferenceBatch, counts: Counts) -> tuple[Array, Metrics]:
        pairs, real_b = batch.pairs, real_pairs(batch.pairs)
        chosen_bt, rejected_bt = pair_logps(model, params, pairs, chunk)

        def score(logp_bt: Array, ref_bt: Array, rows: TurnBatch) -> Array:
            advantage_bk = turn_advantages(logp_bt, ref_bt, rows.turn_bt, settings.max_turns, settings.aggregation)
            return advantage_bk.sum(axis=1)

        chosen_b = score(chosen_bt, batch.chosen_ref_bt, pairs.chosen)
        rejected_b = score(rejected_bt, batch.rejected_ref_bt, pairs.rejected)
        chosen_nll = nll(chosen_bt, pairs.chosen.nll_bt)
        total, metrics = combine_sides(settings, chosen_b, rejected_b, real_b, chosen_nll, counts)
        metrics["logps/chosen"] = _mean_row_logp(chosen_bt, pairs.chosen)
        metrics["logps/rejected"] = _mean_row_logp(rejected_bt, pairs.rejected)
        metrics["log_ratios/abs"] = mean_log_ratio_size(
            (chosen_bt, batch.chosen_ref_bt, pairs.chosen), (rejected_bt, batch.rejected_ref_bt, pairs.rejected)
        )
        return total, metrics

    return Objective(counts, loss)


def combine_sides(
    settings: PreferenceLoss, chosen_b: Array, rejected_b: Array, real_b: Array, chosen_nll: MeanMetric, counts: Counts
) -> tuple[Array, dict[str, MeanMetric]]:
    """Make the loss of the scores of both sides and the NLL of the chosen one, and what is measured of them."""
    loss_b = preference_loss(chosen_b, rejected_b, settings.beta, settings.label_smoothing)
    total = jnp.where(real_b, loss_b, 0.0).sum() / counts.pairs
    total += settings.nll_coef * chosen_nll.sum / counts.nll_tokens
    return total, preference_metrics(chosen_b, rejected_b, real_b, settings.beta) | {"nll": chosen_nll}


def pair_logps(
    model: Llama, params: Mapping[str, Any], pairs: PairBatch, chunk: int | None = None
) -> tuple[Array, Array]:
    """Compute token log-probs [B, T] of the chosen and of the rejected rows, in one forward pass over [2B, T].

    The sides are interleaved (chosen 0, rejected 0, chosen 1, ...): a pair stays on the device that holds it.
    """
    both_bst = jnp.stack([pairs.chosen.tokens_bt, pairs.rejected.tokens_bt], axis=1)
    logp_bst = token_logps(model, params, both_bst.reshape(-1, both_bst.shape[-1]), chunk=chunk).reshape(both_bst.shape)
    return logp_bst[:, 0], logp_bst[:, 1]


def mean_log_ratio_size(*sides: tuple[Array, Array, TurnBatch]) -> MeanMetric:
    """Sum the sizes |log pi_theta - log pi_ref| of all action tokens; the mean is over tokens. How far a network has
    moved from its reference, in nats a token.

    sides: (log-probs, log-probs under the reference, rows) of the chosen and of the rejected rows.
    """
    sums = [jnp.where(rows.turn_bt > 0, jnp.abs(logp_bt - ref_bt), 0.0).sum() for logp_bt, ref_bt, rows in sides]
    counts = [(rows.turn_bt > 0).sum().astype(jnp.float32) for _, _, rows in sides]
    return MeanMetric(sums[0] + sums[1], counts[0] + counts[1])


def _mean_row_logp(logp_bt: Array, rows: TurnBatch) -> MeanMetric:
    """Sum the log-probs of all action tokens; the mean is over rows."""
    count = (rows.length_b > 0).sum().astype(jnp.float32)
    return MeanMetric(jnp.where(rows.turn_bt > 0, logp_bt, 0.0).sum(), count)
