"""The step-level critic: an advantage for every agent turn, [B, K], given the privileged information (section 4.2).

Rows carry the privileged prefix as tokens; nothing here knows where `c` is. Two parameterisations:

    log-ratio   the language model itself: A = mean over the turn's tokens of log pi_theta - log pi_ref (eq. 3)
    value head  the paper's ablation: A = head(mean over the turn's tokens of the last hidden state)

The reference term of the log-ratio may have been computed on rows without the prefix ("public", as in the released
code); `align_logps` moves such values to the places the same tokens have in the privileged row.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from colbench_env.types import BadInput
from models.llama import Llama
from sweet_jax.data.batch import PairBatch, TokenRow, TurnBatch
from sweet_jax.logprobs import hidden_states, token_logps
from sweet_jax.losses import Aggregation, Metrics, preference_loss, preference_metrics, turn_advantages
from sweet_jax.mesh import replicated
from sweet_jax.train.objectives import Counts, PreferenceLoss, pair_counts, present
from sweet_jax.train.step import Objective


def log_ratio_advantages(
    model: Llama,
    params: Mapping[str, Any],
    batch: TurnBatch,
    ref_bt: Float[Array, "B T"],
    num_turns: int,
    aggregation: Aggregation = "turn-mean",
    chunk: int | None = None,
) -> Float[Array, "B K"]:
    """Advantage of every turn as a log-ratio, eq. 3; 0 for a turn the row does not have.

    ref_bt: log-probs of the frozen start model for the same tokens.
    """
    logp_bt = token_logps(model, params, batch.tokens_bt, chunk=chunk)
    return turn_advantages(logp_bt, ref_bt, batch.turn_bt, num_turns, aggregation)


def value_head_advantages(
    model: Llama, params: Mapping[str, Any], batch: TurnBatch, num_turns: int
) -> Float[Array, "B K"]:
    """Advantage of every turn from the regression head; 0 for a turn the row does not have.

    params: {"llama": ..., "head": {"kernel": [D, 1], "bias": [1]}}. The last hidden state is averaged over the tokens
    of the turn, which see what came before them and nothing that follows: a later turn changes no earlier advantage.
    The head is linear, so averaging what it makes of each token is the same; float32 throughout.
    """
    hidden_btd = hidden_states(model, params["llama"], batch.tokens_bt).astype(jnp.float32)
    value_bt = (hidden_btd * params["head"]["kernel"][:, 0]).sum(axis=-1) + params["head"]["bias"][0]
    return turn_advantages(value_bt, jnp.zeros_like(value_bt), batch.turn_bt, num_turns, "turn-mean")


def add_value_head(trained: Mapping[str, Any], size: int, key: Array, mesh: Mesh) -> dict[str, Any]:
    """{"llama": trained, "head": ...} with a fresh head on hidden states of `size`: kernel normal with deviation
    1/size, bias 0, replicated."""
    head = {"kernel": jax.random.normal(key, (size, 1), jnp.float32) / size, "bias": jnp.zeros((1,), jnp.float32)}
    return {"llama": trained, "head": jax.device_put(head, replicated(mesh))}


def value_head_shapes(trained: Mapping[str, Any], size: int, mesh: Mesh) -> dict[str, Any]:
    """`add_value_head` for shapes: sharded jax.ShapeDtypeStruct of what is trained, the head among it."""
    head = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))
        for name, shape in (("kernel", (size, 1)), ("bias", (1,)))
    }
    return {"llama": trained, "head": head}


def value_head_objective(model: Llama, settings: PreferenceLoss) -> Objective:
    """The critic's loss, eq. 2, on `PairBatch` with the advantages of the value head: same score, no reference.

    BadInput unless `nll_coef` is 0: this critic does not use the LM head, so an NLL would train something else.
    """
    if settings.nll_coef:
        raise BadInput(f"nll_coef is {settings.nll_coef}, but a critic with a value head has no NLL: it must be 0")

    def loss(params: Mapping[str, Any], pairs: PairBatch, counts: Counts) -> tuple[Array, Metrics]:
        present_b = present(pairs)
        chosen_b, rejected_b = (
            value_head_advantages(model, params, rows, settings.max_turns).sum(axis=1)
            for rows in (pairs.chosen, pairs.rejected)
        )
        loss_b = preference_loss(chosen_b, rejected_b, settings.beta, settings.label_smoothing)
        metrics = preference_metrics(chosen_b, rejected_b, present_b, settings.beta)
        return jnp.where(present_b, loss_b, 0.0).sum() / counts.pairs, metrics

    return Objective(pair_counts, loss)


def make_log_ratio_critic(
    model: Llama, num_turns: int, aggregation: Aggregation = "turn-mean"
) -> Callable[[Any, TurnBatch, Any], Array]:
    """The jitted critic (params, batch, ref_bt) -> advantages [B, K], whole on every device."""

    def advantages(params: Mapping[str, Any], batch: TurnBatch, ref_bt: Array) -> Array:
        return log_ratio_advantages(model, params, batch, ref_bt, num_turns, aggregation)

    return jax.jit(advantages, out_shardings=replicated(model.mesh))


def make_value_head_critic(model: Llama, num_turns: int) -> Callable[[Any, TurnBatch], Array]:
    """The jitted critic (params, batch) -> advantages [B, K], whole on every device."""

    def advantages(params: Mapping[str, Any], batch: TurnBatch) -> Array:
        return value_head_advantages(model, params, batch, num_turns)

    return jax.jit(advantages, out_shardings=replicated(model.mesh))


def align_logps(source: TokenRow, values: np.ndarray, target: TokenRow) -> np.ndarray:
    """Per-token values of `source` at the places the same counted tokens have in `target`, 0 elsewhere; float32.

    BadInput where the two rows do not count the same tokens of the same turns (one of them was truncated).

    In:  source turns [0, 1, 1], values [.5, .6, .7], target turns [0, 0, 0, 1, 1]
    Out: [0, 0, 0, .6, .7]
    """
    here, there = source.turns > 0, target.turns > 0
    same = here.sum() == there.sum() and np.array_equal(source.ids[here], target.ids[there])
    if not (same and np.array_equal(source.turns[here], target.turns[there])):
        raise BadInput(f"two rows of one dialogue count different tokens: {here.sum()} and {there.sum()} of them")
    moved = np.zeros(len(target), np.float32)
    moved[there] = values[here]
    return moved
