"""What each stage minimises: token log-probs of a batch -> scores of its rows -> one number (see `losses`, `step`).

start policy, rft     nll_objective         -sum of log-probs / tokens in the NLL mask
critic (log-ratio)    preference_objective  aggregation "turn-mean", rows with the privileged prefix
mtdpo                 preference_objective  aggregation "sum", whole dialogues
policy                preference_objective  aggregation "sum", rows in which only the last turn counts
critic (value head)   critic.value_head_objective
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
    """How pairs are compared; the defaults are the paper's critic.

    beta: scale of the log-ratio. nll_coef: weight of the NLL of the chosen rows. max_turns: K, agent turns in a row.
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
    """Pairs with the log-probs of the frozen reference for their tokens, float32 [B, T], computed once beforehand."""

    pairs: PairBatch
    chosen_ref_bt: Any
    rejected_ref_bt: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Counts:
    """What a whole batch is divided by: its pairs, and the tokens of its NLL mask (float32 scalars)."""

    pairs: Any
    nll_tokens: Any


def present(pairs: PairBatch) -> Bool[Array, " B"]:
    """Which pairs are real: a row of length 0 fills up an incomplete batch and counts nowhere."""
    return (pairs.chosen.length_b > 0) & (pairs.rejected.length_b > 0)


def pair_counts(pairs: PairBatch) -> Counts:
    """The divisors of a batch of pairs, at least 1 each."""
    return Counts(_at_least_one(present(pairs).sum()), _at_least_one(drop_first_token(pairs.chosen.nll_bt).sum()))


def _at_least_one(count: Array) -> Array:
    return jnp.maximum(count, 1).astype(jnp.float32)


def nll_objective(model: Llama, chunk: int | None = None) -> Objective:
    """Next-token prediction over `TurnBatch.nll_bt`: all tokens or only the agent's, as that data column says."""

    def counts(batch: TurnBatch) -> Array:
        return _at_least_one(drop_first_token(batch.nll_bt).sum())

    def loss(params: Mapping[str, Any], batch: TurnBatch, tokens: Array) -> tuple[Array, Metrics]:
        logp_bt = token_logps(model, params, batch.tokens_bt, chunk=chunk)
        metric = nll(logp_bt, batch.nll_bt)
        return metric.sum / tokens, {"nll": metric}

    return Objective(counts, loss)


def preference_objective(model: Llama, settings: PreferenceLoss, chunk: int | None = None) -> Objective:
    """The preference loss on `PreferenceBatch`, eq. 2 to 4, plus `nll_coef` x NLL of the chosen rows."""

    def counts(batch: PreferenceBatch) -> Counts:
        return pair_counts(batch.pairs)

    def loss(params: Mapping[str, Any], batch: PreferenceBatch, counts: Counts) -> tuple[Array, Metrics]:
        pairs, present_b = batch.pairs, present(batch.pairs)
        chosen_bt, rejected_bt = pair_logps(model, params, pairs, chunk)

        def score(logp_bt: Array, ref_bt: Array, rows: TurnBatch) -> Array:
            return turn_advantages(logp_bt, ref_bt, rows.turn_bt, settings.max_turns, settings.aggregation).sum(axis=1)

        chosen_b = score(chosen_bt, batch.chosen_ref_bt, pairs.chosen)
        rejected_b = score(rejected_bt, batch.rejected_ref_bt, pairs.rejected)
        loss_b = preference_loss(chosen_b, rejected_b, settings.beta, settings.label_smoothing)
        chosen_nll = nll(chosen_bt, pairs.chosen.nll_bt)
        total = jnp.where(present_b, loss_b, 0.0).sum() / counts.pairs
        total += settings.nll_coef * chosen_nll.sum / counts.nll_tokens
        metrics = preference_metrics(chosen_b, rejected_b, present_b, settings.beta)
        metrics["logps/chosen"] = _counted_sum(chosen_bt, pairs.chosen, present_b)
        metrics["logps/rejected"] = _counted_sum(rejected_bt, pairs.rejected, present_b)
        metrics["nll"] = chosen_nll
        return total, metrics

    return Objective(counts, loss)


def pair_logps(
    model: Llama, params: Mapping[str, Any], pairs: PairBatch, chunk: int | None = None
) -> tuple[Array, Array]:
    """Token log-probs [B, T] of the chosen and of the rejected rows, in one pass of the network over [2B, T].

    The sides are interleaved (chosen 0, rejected 0, chosen 1, ...): a pair stays on the device that holds it.
    """
    both_bst = jnp.stack([pairs.chosen.tokens_bt, pairs.rejected.tokens_bt], axis=1)
    logp_bst = token_logps(model, params, both_bst.reshape(-1, both_bst.shape[-1]), chunk=chunk).reshape(both_bst.shape)
    return logp_bst[:, 0], logp_bst[:, 1]


def _counted_sum(logp_bt: Array, rows: TurnBatch, present_b: Array) -> MeanMetric:
    return MeanMetric(jnp.where(rows.turn_bt > 0, logp_bt, 0.0).sum(), present_b.sum().astype(jnp.float32))
