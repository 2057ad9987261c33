"""The turn-level critic of SWEET-RL (arXiv 2503.15478, section 4.2): an advantage for every agent turn, [B, K].

It sees the privileged information c, which rows carry as a prefix of tokens: nothing here treats it apart. It has two
parameterisations in the paper:

    log-ratio   the language model itself: A = mean over the turn's tokens of log pi_theta - log pi_ref (eq. 3)
    value head  the paper's ablation: A = head(mean over the turn's tokens of the last hidden state)

A third one learns more from the same pairs: a value of every prefix, of which a turn's advantage is the difference.

The reference term of the log-ratio may come from rows without the prefix ("public", as in the released code);
`align_logps` moves such values to the positions of the same tokens in the row with the prefix.

Read on: `sweet_jax.train.objectives` makes a loss of these scores, `sweet_jax.losses` has the formulas.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from colbench_env.types import BadInput
from models.llama import Llama
from sweet_jax.data.batch import PairBatch, TokenRow, TurnBatch
from sweet_jax.data.trees import TreeBatch
from sweet_jax.logprobs import hidden_states, token_logps, tree_hidden_states
from sweet_jax.losses import (
    Aggregation,
    Metrics,
    outcome_loss,
    preference_loss,
    preference_metrics,
    turn_advantages,
    turn_sums,
)
from sweet_jax.mesh import replicated
from sweet_jax.train.objectives import Counts, PreferenceLoss, count_pairs, real_pairs
from sweet_jax.train.step import Objective

HeadKind = Literal["value-head", "prefix-value"]


def log_ratio_advantages(
    model: Llama,
    params: Mapping[str, Any],
    batch: TurnBatch,
    ref_bt: Float[Array, "B T"],
    num_turns: int,
    aggregation: Aggregation = "turn-mean",
    chunk: int | None = None,
) -> Float[Array, "B K"]:
    """Score every turn with its log-ratio, eq. 3; 0 for a turn that the row does not have.

    ref_bt: log-probs of the same tokens under the reference, the frozen model that training started from.
    num_turns: K. chunk: see `logprobs.token_logps`.
    """
    logp_bt = token_logps(model, params, batch.tokens_bt, chunk=chunk)
    return turn_advantages(logp_bt, ref_bt, batch.turn_bt, num_turns, aggregation)


def value_head_advantages(
    model: Llama, params: Mapping[str, Any], batch: TurnBatch, num_turns: int
) -> Float[Array, "B K"]:
    """Score every turn with the regression head; 0 for a turn that the row does not have.

    params: {"llama": ..., "head": {"kernel": [D, 1], "bias": [1]}}. The head reads the mean of the last hidden states
    of the turn's tokens. Attention is causal, so a later turn changes no earlier advantage. The head is linear, so we
    average its values instead of the hidden states; float32 throughout.
    """
    value_bt = _head_values(model, params, batch)
    return turn_advantages(value_bt, jnp.zeros_like(value_bt), batch.turn_bt, num_turns, "turn-mean")


def _head_values(model: Llama, params: Mapping[str, Any], batch: TurnBatch) -> Float[Array, "B T"]:
    return _apply_head(params["head"], hidden_states(model, params["llama"], batch.tokens_bt))


def _apply_head(head: Mapping[str, Any], hidden_btd: Float[Array, "B T D"]) -> Float[Array, "B T"]:
    return (hidden_btd.astype(jnp.float32) * head["kernel"][:, 0]).sum(axis=-1) + head["bias"][0]


def tree_values(
    model: Llama, params: Mapping[str, Any], trees: TreeBatch
) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
    """Read the head on rows that share prefixes: at the token before each wanted token, and at the token itself.

    params: as for `value_head_advantages`. Values of the padding are meaningless but finite.
    """
    value_bt = _apply_head(params["head"], tree_hidden_states(model, params["llama"], trees))
    return tuple(jnp.take_along_axis(value_bt, slot_bm, axis=1) for slot_bm in (trees.before_bm, trees.slot_bm))  # type: ignore[return-value]


def add_value_head(trained: Mapping[str, Any], size: int, key: Array, mesh: Mesh) -> dict[str, Any]:
    """Add a fresh head: {"llama": trained, "head": {"kernel": [size, 1], "bias": [1]}}.

    size: D of the hidden states. The kernel is normal with standard deviation 1/size, the bias 0; both are replicated.
    """
    head = {"kernel": jax.random.normal(key, (size, 1), jnp.float32) / size, "bias": jnp.zeros((1,), jnp.float32)}
    return {"llama": trained, "head": jax.device_put(head, replicated(mesh))}


def value_head_shapes(trained: Mapping[str, Any], size: int, mesh: Mesh) -> dict[str, Any]:
    """Do as `add_value_head` for shapes: sharded jax.ShapeDtypeStruct of all trained parameters."""
    head = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))
        for name, shape in (("kernel", (size, 1)), ("bias", (1,)))
    }
    return {"llama": trained, "head": head}


def value_head_objective(model: Llama, settings: PreferenceLoss) -> Objective:
    """Make the critic's loss, eq. 2, on `PairBatch`: a row's score is the sum of its value-head advantages.

    No reference is needed. BadInput unless `nll_coef` is 0: this critic does not use the LM head, so an NLL would train
    something else.
    """
    require_no_nll(settings)

    def loss(params: Mapping[str, Any], pairs: PairBatch, counts: Counts) -> tuple[Array, Metrics]:
        real_b = real_pairs(pairs)
        chosen_b, rejected_b = (
            value_head_advantages(model, params, rows, settings.max_turns).sum(axis=1)
            for rows in (pairs.chosen, pairs.rejected)
        )
        loss_b = preference_loss(chosen_b, rejected_b, settings.beta, settings.label_smoothing)
        metrics = preference_metrics(chosen_b, rejected_b, real_b, settings.beta)
        return jnp.where(real_b, loss_b, 0.0).sum() / counts.pairs, metrics

    return Objective(count_pairs, loss)


def require_no_nll(settings: PreferenceLoss) -> None:
    """Raise BadInput for settings with which a critic with a value head cannot be trained."""
    if settings.nll_coef:
        raise BadInput(f"nll_coef is {settings.nll_coef}, but a critic with a value head has no NLL: it must be 0")


def prefix_values(
    model: Llama, params: Mapping[str, Any], batch: TurnBatch, num_turns: int
) -> tuple[Float[Array, "B K"], Float[Array, "B K"]]:
    """Estimate, as a logit, whether the dialogue will succeed: before every turn, and after it.

    params: as for `value_head_advantages`. The head reads the last hidden state of the token before the turn, and of
    the turn's last token. 0 for a turn that the row does not have.
    """
    value_bt = _head_values(model, params, batch)
    turn_bt, next_bt = batch.turn_bt, jnp.pad(batch.turn_bt[:, 1:], [(0, 0), (0, 1)])
    is_end_bt = (turn_bt > 0) & (next_bt != turn_bt)
    is_before_bt = (next_bt > 0) & (next_bt != turn_bt)
    before_bk = turn_sums(value_bt, jnp.where(is_before_bt, next_bt, 0), num_turns).sum_bk
    return before_bk, turn_sums(value_bt, jnp.where(is_end_bt, turn_bt, 0), num_turns).sum_bk


def prefix_value_advantages(
    model: Llama, params: Mapping[str, Any], batch: TurnBatch, num_turns: int
) -> Float[Array, "B K"]:
    """Score every turn with the difference that it makes to the value: after it less before it (temporal difference).

    What the user says between two turns counts for neither. 0 for a turn that the row does not have.
    """
    before_bk, after_bk = prefix_values(model, params, batch, num_turns)
    return after_bk - before_bk


def prefix_value_objective(model: Llama, num_turns: int) -> Objective:
    """Make the loss of a value of every prefix on `PairBatch`: cross-entropy with the outcome of the whole dialogue.

    The outcome is 1 for every prefix of a chosen row and 0 for those of a rejected one: Monte Carlo estimates, or
    temporal differences without bootstrapping. The mean is over the prefixes of a row, then over rows.
    """

    def loss(params: Mapping[str, Any], pairs: PairBatch, counts: Counts) -> tuple[Array, Metrics]:
        real_b = real_pairs(pairs)
        total, last = jnp.zeros_like(real_b, jnp.float32), []
        for rows, outcome in ((pairs.chosen, 1.0), (pairs.rejected, 0.0)):
            before_bk, after_bk = prefix_values(model, params, rows, num_turns)
            has_bk = (rows.turn_bt[:, :, None] == jnp.arange(1, num_turns + 1)).any(axis=1)
            loss_bk = sum(outcome_loss(value_bk, outcome) for value_bk in (before_bk, after_bk)) / 2
            total += jnp.where(has_bk, loss_bk, 0.0).sum(axis=1) / jnp.maximum(has_bk.sum(axis=1), 1) / 2
            is_last_bk = has_bk & (has_bk.cumsum(axis=1) == has_bk.sum(axis=1, keepdims=True))
            last.append(jnp.where(is_last_bk, after_bk, 0.0).sum(axis=1))
        return jnp.where(real_b, total, 0.0).sum() / counts.pairs, preference_metrics(last[0], last[1], real_b, 1.0)

    return Objective(count_pairs, loss)


def make_log_ratio_critic(
    model: Llama, num_turns: int, aggregation: Aggregation = "turn-mean"
) -> Callable[[Any, TurnBatch, Any], Array]:
    """Jit the log-ratio critic: (params, batch, ref_bt) -> advantages [B, K], replicated."""

    def advantages(params: Mapping[str, Any], batch: TurnBatch, ref_bt: Array) -> Array:
        return log_ratio_advantages(model, params, batch, ref_bt, num_turns, aggregation)

    return jax.jit(advantages, out_shardings=replicated(model.mesh))


def make_head_critic(model: Llama, num_turns: int, kind: HeadKind = "value-head") -> Callable[[Any, TurnBatch], Array]:
    """Jit a critic with a head: (params, batch) -> advantages [B, K], replicated."""
    score = prefix_value_advantages if kind == "prefix-value" else value_head_advantages

    def advantages(params: Mapping[str, Any], batch: TurnBatch) -> Array:
        return score(model, params, batch, num_turns)

    return jax.jit(advantages, out_shardings=replicated(model.mesh))


def align_logps(source: TokenRow, values: np.ndarray, target: TokenRow) -> np.ndarray:
    """Move the values of the action tokens of `source` to the same tokens of `target`; 0 elsewhere, float32 [T].

    values: one for each token of `source`. BadInput unless the rows have the same action tokens in the same turns (one
    of them may have been truncated).

    In:  source turns [0, 1, 1], values [.5, .6, .7], target turns [0, 0, 0, 1, 1]
    Out: [0, 0, 0, .6, .7]
    """
    source_mask, target_mask = source.turns > 0, target.turns > 0
    same_ids = np.array_equal(source.ids[source_mask], target.ids[target_mask])
    if not (same_ids and np.array_equal(source.turns[source_mask], target.turns[target_mask])):
        raise BadInput(
            f"two rows of one dialogue have different action tokens: {source_mask.sum()} and {target_mask.sum()}"
        )
    aligned = np.zeros(len(target), np.float32)
    aligned[target_mask] = values[source_mask]
    return aligned
