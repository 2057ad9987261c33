"""The losses of SWEET-RL as pure functions of arrays (arXiv 2503.15478).

Axis letters: B rows or pairs, T tokens, K turns. No model, no parameters and no devices appear here. Action tokens are
those the agent sampled, each turn's end-of-turn token among them; a turn number of 0 masks all others. Every algorithm
is one preference loss over one score for each row; they differ only in how a row's tokens become its score:

    critic (eq. 2, 3)            sum over turns of the turn's mean log-ratio  aggregation "turn-mean"
    critic of the released code  mean log-ratio over all action tokens        aggregation "token-mean"
    trajectory DPO (mtdpo)       sum of the log-ratio over all action tokens  aggregation "sum"
    per-turn DPO (eq. 4)         the same, on rows with only one turn         aggregation "sum"
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
    """A mean kept as (sum, count): both are added over micro-batches and devices, and divided once, at the end."""

    sum: Any
    count: Any

    @property
    def value(self) -> float:
        """The mean as a float of the host; 0 where the count is 0."""
        return float(self.sum) / max(float(self.count), 1e-9)


Metrics = Mapping[str, MeanMetric]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TurnSums:
    """Sums over the tokens of each turn.

    sum_bk: float32 [B, K], the sum over the tokens of turn k+1.
    count_bk: float32 [B, K], the number of those tokens.
    """

    sum_bk: Any
    count_bk: Any


def turn_sums(x_bt: Float[Array, "B T"], turn_bt: Int[Array, "B T"], num_turns: int) -> TurnSums:
    """Sum and count the values of each turn; tokens with turn number 0 belong to none.

    A turn number above `num_turns` would be dropped: rows are checked where they are made (`sweet_jax.data.batch`).

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
    """Aggregate the log-ratio log pi_theta - log pi_ref over each turn's tokens, eq. 3; 0 for a turn without tokens.

    logp_bt, ref_bt: log-probs of the tokens under pi_theta and pi_ref. turn_bt: 1 to num_turns, 0 for other tokens.
    aggregation:
    "turn-mean"   mean over the turn's tokens (the paper).
    "token-mean"  the turn's share of the row's mean, so that the sum over turns is the mean over all action tokens
                  (released code).
    "sum"         sum over the turn's tokens (the paper's ablation without normalisation; DPO).
    Raises ValueError for any other aggregation.
    """
    return aggregate_turns(turn_sums(logp_bt - ref_bt, turn_bt, num_turns), aggregation)


def aggregate_turns(turns: TurnSums, aggregation: Aggregation) -> Float[Array, "*rows K"]:
    """Make the advantages of a row's turns of the sums over their tokens (see `turn_advantages`)."""
    if aggregation not in AGGREGATIONS:
        raise ValueError(f"turn aggregation {aggregation!r} is unknown, expected one of {', '.join(AGGREGATIONS)}")
    if aggregation == "sum":
        return turns.sum_bk
    if aggregation == "turn-mean":
        return turns.sum_bk / jnp.maximum(turns.count_bk, 1.0)
    return turns.sum_bk / jnp.maximum(turns.count_bk.sum(axis=-1, keepdims=True), 1.0)


def preference_loss(
    chosen_b: Float[Array, " B"], rejected_b: Float[Array, " B"], beta: float, label_smoothing: float = 0.0
) -> Float[Array, " B"]:
    """Compute the Bradley-Terry loss of every pair, eq. 2 and 4: -log sigmoid(beta * (chosen - rejected)).

    chosen_b, rejected_b: the scores of the two rows. With `label_smoothing` e the preference is taken to be wrong with
    probability e (conservative DPO): -(1-e) log sigmoid(m) - e log sigmoid(-m), with m = beta * (chosen - rejected).
    """
    margin_b = beta * (chosen_b - rejected_b)
    return -(1.0 - label_smoothing) * jax.nn.log_sigmoid(margin_b) - label_smoothing * jax.nn.log_sigmoid(-margin_b)


def outcome_loss(value: Float[Array, "*shape"], outcome: float) -> Float[Array, "*shape"]:
    """Compute the cross-entropy of values, which are logits of success, with the outcome, 0 to 1."""
    return -outcome * jax.nn.log_sigmoid(value) - (1.0 - outcome) * jax.nn.log_sigmoid(-value)


def preference_metrics(
    chosen_b: Float[Array, " B"], rejected_b: Float[Array, " B"], real_b: Bool[Array, " B"], beta: float
) -> dict[str, MeanMetric]:
    """Measure rewards (beta x score), their margins and accuracies over the real pairs; names as in TRL."""
    count = real_b.sum().astype(jnp.float32)

    def over_pairs(x_b: Array) -> MeanMetric:
        return MeanMetric(jnp.where(real_b, x_b, 0.0).sum(), count)

    return {
        "rewards/chosen": over_pairs(beta * chosen_b),
        "rewards/rejected": over_pairs(beta * rejected_b),
        "rewards/margins": over_pairs(beta * (chosen_b - rejected_b)),
        "rewards/accuracies": over_pairs((chosen_b > rejected_b).astype(jnp.float32)),
    }


def drop_first_token(mask_bt: Bool[Array, "B T"]) -> Bool[Array, "B T"]:
    """Drop column 0 from the mask: no token comes before the first one, so nothing predicts it."""
    return mask_bt & (jnp.arange(mask_bt.shape[1]) > 0)


def nll(logp_bt: Float[Array, "B T"], mask_bt: Bool[Array, "B T"]) -> MeanMetric:
    """Sum the negative log-likelihood of the tokens in the mask; count: their number, both float32.

    In:  logp = [0, -1, -2, -4], mask = [1, 1, 0, 1]
    Out: sum = 5, count = 2
    """
    mask_bt = drop_first_token(mask_bt)
    return MeanMetric(-jnp.where(mask_bt, logp_bt, 0.0).sum(), mask_bt.sum().astype(jnp.float32))
