"""The losses of pairs on rows that share prefixes; on separate rows they are those of `sweet_jax.train.objectives` and
`sweet_jax.critic`, to which these are equal up to rounding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from models.llama import Llama
from sweet_jax.critic import require_no_nll, tree_values
from sweet_jax.data.pair_trees import PairTrees
from sweet_jax.logprobs import tree_logps
from sweet_jax.losses import (
    MeanMetric,
    Metrics,
    TurnSums,
    aggregate_turns,
    outcome_loss,
    preference_loss,
    preference_metrics,
    turn_sums,
)
from sweet_jax.train.objectives import Counts, PreferenceLoss, at_least_one, combine_sides
from sweet_jax.train.step import Objective


@dataclass(frozen=True)
class _Branches:
    """The S = 2 P branches of each tree: sums of what its M wanted tokens have, and the P pairs of branches."""

    batch: PairTrees

    @property
    def count(self) -> int:
        return 2 * self.batch.chosen_bp.shape[1]

    @property
    def branch_bm(self) -> Array:
        """Of each wanted token the branch 1..S, 0 in the padding."""
        return jnp.where(self.batch.turn_bm > 0, self.batch.branch_bm, 0)

    def group_bm(self, turns: int) -> Array:
        """Give each wanted token the number of its turn among those of all branches, 1..S K, 0 in the padding."""
        branch_bm = self.branch_bm
        return jnp.where(branch_bm > 0, (branch_bm - 1) * turns + self.batch.turn_bm, 0)

    def turn_sums(self, x_bm: Array, group_bm: Array, turns: int) -> TurnSums:
        """Sum over the tokens of each branch's turns: [B, S, K]."""
        sums = turn_sums(x_bm, group_bm, self.count * turns)
        return TurnSums(*(x.reshape(x.shape[0], self.count, turns) for x in (sums.sum_bk, sums.count_bk)))

    def sums(self, x_bm: Array) -> TurnSums:
        """Sum over the tokens of each branch: [B, S]."""
        return turn_sums(x_bm, self.branch_bm, self.count)

    @property
    def filled_b(self) -> Array:
        """Mask the pairs that are there, of all trees: [B P]."""
        return self.batch.chosen_bp.reshape(-1) > 0

    @property
    def real_b(self) -> Array:
        """Mask those of two different rows (see `sweet_jax.train.objectives.real_pairs`)."""
        return self.filled_b & (self.batch.chosen_bp != self.batch.rejected_bp).reshape(-1)

    def of_pairs(self, x_bs: Array, branch_bp: Array) -> Array:
        """Look up what the branches of the pairs have, 0 in the padding: [B P]."""
        found_bp = jnp.take_along_axis(x_bs, jnp.maximum(branch_bp - 1, 0), axis=1)
        return jnp.where(self.filled_b, found_bp.reshape(-1), 0.0)

    def sides(self, x_bs: Array) -> tuple[Array, Array]:
        """Look up what the chosen and the rejected branches have."""
        return self.of_pairs(x_bs, self.batch.chosen_bp), self.of_pairs(x_bs, self.batch.rejected_bp)


def _counts(batch: PairTrees) -> Counts:
    branches = _Branches(batch)
    tokens_b = branches.of_pairs(branches.sums(jnp.zeros(batch.branch_bm.shape)).count_bk, batch.chosen_bp)
    return Counts(at_least_one(branches.real_b.sum()), at_least_one(tokens_b.sum()))


def tree_preference_objective(model: Llama, settings: PreferenceLoss, chunk: int | None = None) -> Objective:
    """Make `objectives.preference_objective` on `PairTrees`. The NLL counts the action tokens of the chosen rows (mask
    "turn")."""

    def loss(params: Mapping[str, Any], batch: PairTrees, counts: Counts) -> tuple[Array, Metrics]:
        branches, turns = _Branches(batch), settings.max_turns
        logp_bm = tree_logps(model, params, batch.trees, chunk=chunk)
        ratio_bm = logp_bm - batch.ref_bm
        sums_bsk = branches.turn_sums(ratio_bm, branches.group_bm(turns), turns)
        score_bs = aggregate_turns(sums_bsk, settings.aggregation).sum(axis=-1)
        logps, sizes = branches.sums(logp_bm), branches.sums(jnp.abs(ratio_bm))

        chosen_b, rejected_b = branches.sides(score_bs)
        logp_b, tokens_b = branches.sides(logps.sum_bk), branches.sides(logps.count_bk)
        chosen_nll = MeanMetric(-logp_b[0].sum(), tokens_b[0].sum())
        total, metrics = combine_sides(settings, chosen_b, rejected_b, branches.real_b, chosen_nll, counts)
        pairs = branches.filled_b.sum().astype(jnp.float32)
        metrics["logps/chosen"] = MeanMetric(logp_b[0].sum(), pairs)
        metrics["logps/rejected"] = MeanMetric(logp_b[1].sum(), pairs)
        metrics["log_ratios/abs"] = MeanMetric(
            sum(size_b.sum() for size_b in branches.sides(sizes.sum_bk)), sum(count_b.sum() for count_b in tokens_b)
        )
        return total, metrics

    return Objective(_counts, loss)


def tree_value_head_objective(model: Llama, settings: PreferenceLoss) -> Objective:
    """Make `critic.value_head_objective` on `PairTrees`."""
    require_no_nll(settings)

    def loss(params: Mapping[str, Any], batch: PairTrees, counts: Counts) -> tuple[Array, Metrics]:
        branches, turns = _Branches(batch), settings.max_turns
        _, value_bm = tree_values(model, params, batch.trees)
        sums_bsk = branches.turn_sums(value_bm, branches.group_bm(turns), turns)
        chosen_b, rejected_b = branches.sides(aggregate_turns(sums_bsk, "turn-mean").sum(axis=-1))
        loss_b = preference_loss(chosen_b, rejected_b, settings.beta, settings.label_smoothing)
        metrics = preference_metrics(chosen_b, rejected_b, branches.real_b, settings.beta)
        return jnp.where(branches.real_b, loss_b, 0.0).sum() / counts.pairs, metrics

    return Objective(_counts, loss)


def tree_prefix_value_objective(model: Llama, num_turns: int) -> Objective:
    """Make `critic.prefix_value_objective` on `PairTrees`."""

    def loss(params: Mapping[str, Any], batch: PairTrees, counts: Counts) -> tuple[Array, Metrics]:
        branches = _Branches(batch)
        before_bm, at_bm = tree_values(model, params, batch.trees)
        group_bm = branches.group_bm(num_turns)  # the tokens of a turn stand side by side
        first_bm = jnp.where(jnp.diff(group_bm, axis=1, prepend=0) != 0, group_bm, 0)
        last_bm = jnp.where(jnp.diff(group_bm, axis=1, append=0) != 0, group_bm, 0)
        before = branches.turn_sums(before_bm, first_bm, num_turns)
        after_bsk = branches.turn_sums(at_bm, last_bm, num_turns).sum_bk
        has_bsk = before.count_bk > 0
        turns_bs = jnp.maximum(has_bsk.sum(axis=-1), 1)

        def mean_loss(outcome: float) -> Array:
            loss_bsk = (outcome_loss(before.sum_bk, outcome) + outcome_loss(after_bsk, outcome)) / 2
            return jnp.where(has_bsk, loss_bsk, 0.0).sum(axis=-1) / turns_bs

        is_end_bsk = has_bsk & (has_bsk.cumsum(axis=-1) == has_bsk.sum(axis=-1, keepdims=True))
        chosen_b, rejected_b = branches.sides(jnp.where(is_end_bsk, after_bsk, 0.0).sum(axis=-1))
        loss_b = (branches.sides(mean_loss(1.0))[0] + branches.sides(mean_loss(0.0))[1]) / 2
        metrics = preference_metrics(chosen_b, rejected_b, branches.real_b, 1.0)
        return jnp.where(branches.real_b, loss_b, 0.0).sum() / counts.pairs, metrics

    return Objective(_counts, loss)
