"""The preference loss on rows that share prefixes; on separate rows it is `sweet_jax.train.objectives`'."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from models.llama import Llama
from sweet_jax.data.pair_trees import PairTrees
from sweet_jax.logprobs import tree_logps
from sweet_jax.losses import MeanMetric, Metrics, TurnSums, aggregate_turns, turn_sums
from sweet_jax.train.objectives import Counts, PreferenceLoss, at_least_one, combine_sides
from sweet_jax.train.step import Objective


def tree_preference_objective(model: Llama, settings: PreferenceLoss, chunk: int | None = None) -> Objective:
    """Make the same loss on `PairTrees`, whose rows share prefixes: equal to that on separate rows, up to rounding.

    The NLL counts the action tokens of the chosen rows (mask "turn").
    """

    def rows_of(batch: PairTrees) -> tuple[Array, int]:
        """Of each wanted token the branch 1..S, 0 in the padding; and S."""
        return jnp.where(batch.turn_bm > 0, batch.branch_bm, 0), 2 * batch.chosen_bp.shape[1]

    def of_pairs(x_bs: Array, branch_bp: Array) -> Array:
        return jnp.take_along_axis(x_bs, jnp.maximum(branch_bp - 1, 0), axis=1).reshape(-1)

    def counts(batch: PairTrees) -> Counts:
        branch_bm, branches = rows_of(batch)
        tokens_bs = turn_sums(jnp.zeros(branch_bm.shape), branch_bm, branches).count_bk
        filled_b, real_b = pair_masks(batch)
        tokens_b = jnp.where(filled_b, of_pairs(tokens_bs, batch.chosen_bp), 0.0)
        return Counts(at_least_one(real_b.sum()), at_least_one(tokens_b.sum()))

    def pair_masks(batch: PairTrees) -> tuple[Array, Array]:
        """Mask the pairs that are there, and those of two different rows (see `real_pairs`)."""
        chosen_b, rejected_b = batch.chosen_bp.reshape(-1), batch.rejected_bp.reshape(-1)
        return chosen_b > 0, (chosen_b > 0) & (chosen_b != rejected_b)

    def loss(params: Mapping[str, Any], batch: PairTrees, counts: Counts) -> tuple[Array, Metrics]:
        logp_bm, (branch_bm, branches) = tree_logps(model, params, batch.trees, chunk=chunk), rows_of(batch)
        turns, ratio_bm = settings.max_turns, logp_bm - batch.ref_bm
        group_bm = jnp.where(branch_bm > 0, (branch_bm - 1) * turns + batch.turn_bm, 0)
        sums = turn_sums(ratio_bm, group_bm, branches * turns)
        sums_bsk = TurnSums(*(x.reshape(x.shape[0], branches, turns) for x in (sums.sum_bk, sums.count_bk)))
        score_bs = aggregate_turns(sums_bsk, settings.aggregation).sum(axis=-1)
        logps, sizes = turn_sums(logp_bm, branch_bm, branches), turn_sums(jnp.abs(ratio_bm), branch_bm, branches)

        filled_b, real_b = pair_masks(batch)

        def sides(x_bs: Array) -> list[Array]:
            both = (batch.chosen_bp, batch.rejected_bp)
            return [jnp.where(filled_b, of_pairs(x_bs, branch_bp), 0.0) for branch_bp in both]

        (chosen_b, rejected_b), logp_b, tokens_b = sides(score_bs), sides(logps.sum_bk), sides(logps.count_bk)
        chosen_nll = MeanMetric(-logp_b[0].sum(), tokens_b[0].sum())
        total, metrics = combine_sides(settings, chosen_b, rejected_b, real_b, chosen_nll, counts)
        pairs = filled_b.sum().astype(jnp.float32)
        metrics["logps/chosen"] = MeanMetric(logp_b[0].sum(), pairs)
        metrics["logps/rejected"] = MeanMetric(logp_b[1].sum(), pairs)
        metrics["log_ratios/abs"] = MeanMetric(
            sum(size_b.sum() for size_b in sides(sizes.sum_bk)), sum(count_b.sum() for count_b in tokens_b)
        )
        return total, metrics

    return Objective(counts, loss)
