"""The losses of SWEET-RL as pure functions of arrays (arXiv 2503.15478).

Axis letters: B rows or pairs, T tokens, K turns. No model, no parameters and no devices appear here. Every algorithm is
one preference loss over one score a row; they differ only in how a row's tokens become its score:

    critic (eq. 2, 3)            sum over turns of the turn's mean log-ratio      aggregation "turn-mean"
    critic of the released code  mean log-ratio over all tokens that count        aggregation "token-mean"
    trajectory DPO (mtdpo)       sum of the log-ratio over all tokens that count  aggregation "sum"
    per-turn DPO (eq. 4)         the same, on rows in which only one turn counts  aggregation "sum"
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Aggregation = Literal["turn-mean", "token-mean", "sum"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MeanMetric:
    """A metric that travels as (sum, count), added over micro-batches and devices, then divided once: at the end."""

    sum: Any
    count: Any

    @property
    def value(self) -> float:
        """The mean, on the host; 0 where nothing was counted."""
        return float(self.sum) / max(float(self.count), 1e-9)


Metrics = Mapping[str, MeanMetric]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TurnSums:
    """sum_bk: float32 [B, K], the sum over the tokens of turn k+1; count_bk: float32 [B, K], how many there are."""

    sum_bk: Any
    count_bk: Any


def turn_sums(x_bt: Float[Array, "B T"], turn_bt: Int[Array, "B T"], num_turns: int) -> TurnSums:
    """Sums and counts of `x_bt` per turn; tokens with turn id 0 belong to none.

    A turn id above `num_turns` would be dropped: rows are checked where they are made (`sweet_jax.data.batch`).

    In:  x = [1, 2, 3, 4], turns = [0, 1, 1, 2], num_turns = 3
    Out: sum = [5, 4, 0], count = [2, 1, 0]
    """
    member_btk = turn_bt[:, :, None] == jnp.arange(1, num_turns + 1)
    return TurnSums(
        sum_bk=jnp.where(member_btk, x_bt[:, :, None], 0.0).sum(axis=1),
        count_bk=member_btk.sum(axis=1).astype(jnp.float32),
    )


def turn_advantages(
    logp_bt: Float[Array, "B T"],
    ref_bt: Float[Array, "B T"],
    turn_bt: Int[Array, "B T"],
    num_turns: int,
    aggregation: Aggregation,
) -> Float[Array, "B K"]:
    """Advantage of every turn, eq. 3: the log-ratio log pi_theta - log pi_ref of its tokens, aggregated; 0 for no turn.

    "turn-mean"   mean over the turn's tokens (the paper).
    "token-mean"  the turn's share of the row's mean, so that the sum over turns is the mean over all tokens that count
                  (released code).
    "sum"         sum over the turn's tokens (the paper's ablation without normalisation; DPO).
    """
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"turn aggregation {aggregation!r} is unknown, expected one of {', '.join(AGGREGATIONS)}")
    turns = turn_sums(logp_bt - ref_bt, turn_bt, num_turns)
    if aggregation == "sum":
        return turns.sum_bk
    if aggregation == "turn-mean":
        return turns.sum_bk / jnp.maximum(turns.count_bk, 1.0)
    return turns.sum_bk / jnp.maximum(turns.count_bk.sum(axis=1, keepdims=True), 1.0)


def preference_loss(
    chosen_b: Float[Array, " B"], rejected_b: Float[Array, " B"], beta: float, label_smoothing: float = 0.0
) -> Float[Array, " B"]:
    """Bradley-Terry loss of every pair, eq. 2 and 4: -log sigmoid(beta * (chosen - rejected)).

    With `label_smoothing` e the preference is taken to be wrong with probability e (conservative DPO):
    -(1-e) log sigmoid(m) - e log sigmoid(-m).
    """
    margin_b = beta * (chosen_b - rejected_b)
    return -(1.0 - label_smoothing) * jax.nn.log_sigmoid(margin_b) - label_smoothing * jax.nn.log_sigmoid(-margin_b)


def preference_metrics(
    chosen_b: Float[Array, " B"], rejected_b: Float[Array, " B"], present_b: Bool[Array, " B"], beta: float
) -> dict[str, MeanMetric]:
    """Rewards (beta x score), their margins and accuracies as (sum, count) over the pairs present; names as in TRL."""
    count = present_b.sum().astype(jnp.float32)

    def over_pairs(x_b: Array) -> MeanMetric:
        return MeanMetric(jnp.where(present_b, x_b, 0.0).sum(), count)

    return {
        "rewards/chosen": over_pairs(beta * chosen_b),
        "rewards/rejected": over_pairs(beta * rejected_b),
        "rewards/margins": over_pairs(beta * (chosen_b - rejected_b)),
        "rewards/accuracies": over_pairs((chosen_b > rejected_b).astype(jnp.float32)),
    }


def drop_first_token(mask_bt: Bool[Array, "B T"]) -> Bool[Array, "B T"]:
    """The mask without column 0: no token comes before the first one, so nothing predicts it."""
    return mask_bt & (jnp.arange(mask_bt.shape[1]) > 0)


def nll(logp_bt: Float[Array, "B T"], mask_bt: Bool[Array, "B T"]) -> MeanMetric:
    """Negative log-likelihood of the tokens in the mask: (sum, number of tokens), both float32.

    In:  logp = [0, -1, -2, -4], mask = [1, 1, 0, 1]
    Out: sum = 5, count = 2
    """
    mask_bt = drop_first_token(mask_bt)
    return MeanMetric(-jnp.where(mask_bt, logp_bt, 0.0).sum(), mask_bt.sum().astype(jnp.float32))
