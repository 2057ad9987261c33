"""Log-probabilities of tokens, computed over chunks of the vocabulary: no float32 [B, T, V] ever exists."""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from models.llama import Llama, LlamaOutput, variables
from models.sharding import activation_sharding
from sweet_jax.data.trees import TreeBatch

CHUNK_BYTES, CPU_CHUNK_BYTES = 2**27, 2**24
"""Bytes of float32 logits that a device holds at one time, a CPU in its caches; the backward pass holds about three
times as many."""

MASKED_LOGIT = -1e30  # finite: of a vocabulary entry that an earlier chunk has had


def token_logps(
    model: Llama,
    params: Mapping[str, Any],
    tokens_bt: Int[Array, "B T"],
    *,
    chunk: int | None = None,
    temperature: float = 1.0,
) -> Float[Array, "B T"]:
    """Compute log p(token t | tokens before t) in float32; column 0, which nothing predicts, is 0.

    Values at and after padding are meaningless but finite: the caller's masks leave them out. No row sees another.
    chunk: vocabulary entries whose logits a device holds at one time, at most half of the entries it owns; None: as
    many as CHUNK_BYTES allow. temperature: divides the logits, as in the sampler.
    """
    return hidden_logps(model, params, hidden_states(model, params, tokens_bt), tokens_bt, chunk, temperature)


def hidden_states(model: Llama, params: Mapping[str, Any], tokens_bt: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Run the network on rows that start at position 0: hidden states after the final norm, in the compute dtype."""
    positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
    return cast(LlamaOutput, model.apply(variables(params), tokens_bt, positions_bt)).hidden_btd


def hidden_logps(
    model: Llama,
    params: Mapping[str, Any],
    hidden_btd: Float[Array, "B T D"],
    tokens_bt: Int[Array, "B T"],
    chunk: int | None = None,
    temperature: float = 1.0,
) -> Float[Array, "B T"]:
    """Do as `token_logps` for rows whose hidden states are known."""
    target_bt = jnp.roll(tokens_bt, -1, axis=1)  # position t predicts token t+1; the last position predicts nothing
    logp_bt = target_logps(model, params, hidden_btd, target_bt, chunk, temperature)
    return jnp.pad(logp_bt[:, :-1], [(0, 0), (1, 0)])


def tree_logps(
    model: Llama,
    params: Mapping[str, Any],
    trees: TreeBatch,
    *,
    chunk: int | None = None,
    temperature: float = 1.0,
) -> Float[Array, "B M"]:
    """Compute, in float32, log p(wanted token | the tokens before it in its own rows) of every tree.

    Values of the padding are meaningless but finite. chunk, temperature: as for `token_logps`. Raises ModelError where
    trees share prefixes and the attention kernel cannot compute them.
    """
    hidden_btd = tree_hidden_states(model, params, trees)
    hidden_bmd = jnp.take_along_axis(hidden_btd, trees.before_bm[:, :, None], axis=1)
    return target_logps(model, params, hidden_bmd, trees.target_bm, chunk, temperature)


def tree_hidden_states(model: Llama, params: Mapping[str, Any], trees: TreeBatch) -> Float[Array, "B T D"]:
    """Run the network on trees: hidden states of every slot after the final norm, in the compute dtype."""
    output = model.apply(variables(params), trees.tokens_bt, trees.position_bt, ends_bt=trees.end_bt)
    return cast(LlamaOutput, output).hidden_btd


def target_logps(
    model: Llama,
    params: Mapping[str, Any],
    hidden_btd: Float[Array, "B T D"],
    target_bt: Int[Array, "B T"],
    chunk: int | None = None,
    temperature: float = 1.0,
) -> Float[Array, "B T"]:
    """Compute the log-prob of each target under the hidden state in its place, in float32.

    Forward: a loop over chunks of the vocabulary with a running log-sum-exp (arXiv:1805.02867). Backward: a second loop
    computes the logits again, with d logp / d logit = [entry is the target] - softmax.

    Every device works on the vocabulary entries that it owns. Only chunks of the unembedding matrix, gathered when they
    are needed, and sums over entries pass between devices. The loops are over the vocabulary and not over positions
    because the gradient of a chunk of the matrix is then complete when the chunk is done.
    """
    mesh, tied, dtype = model.mesh, model.config.tie_word_embeddings, hidden_btd.dtype
    matrix = params["embedding"] if tied else params["lm_head"]
    local_vocab = model.config.vocab_size // mesh.shape["tensor"]  # entries that a device owns
    chunk = min(chunk or _chunk_size(hidden_btd, model), math.ceil(local_vocab / 2))
    chunks = math.ceil(local_vocab / chunk)
    # The tied matrix stays [V, D] and is contracted along D: its transpose is never made.
    letters, vocab_axis, embed_axis = ("cd", 0, 1) if tied else ("dc", 1, 0)
    split = tuple(axis for axis in ("data", "sequence") if axis in mesh.shape)  # shard D of the matrix, and tokens
    matrix_spec = PartitionSpec("tensor", split) if tied else PartitionSpec(split, "tensor")
    tokens_spec = activation_sharding(mesh, target_bt.shape, "batch", "tokens").spec
    hidden_spec = PartitionSpec(*tokens_spec, None)

    def first_entry(number: Array) -> Array:
        return jnp.minimum(number * chunk, local_vocab - chunk)  # the last chunk overlaps the one before, masked below

    def part_of(matrix: Array, number: Array) -> Array:
        part = jax.lax.dynamic_slice_in_dim(matrix, first_entry(number), chunk, vocab_axis).astype(dtype)
        return jax.lax.all_gather(part, split, axis=embed_axis, tiled=True)

    def logits_of(part: Array, hidden_btd: Array, number: Array, target_bt: Array) -> tuple[Array, Array]:
        logits_btc = jnp.einsum(f"btd,{letters}->btc", hidden_btd, part, preferred_element_type=jnp.float32)
        entry_c = first_entry(number) + jnp.arange(chunk)
        is_new_c = entry_c >= number * chunk
        # A comparison, not a gather: every device owns other entries.
        is_target_btc = is_new_c & (jax.lax.axis_index("tensor") * local_vocab + entry_c == target_bt[:, :, None])
        return jnp.where(is_new_c, logits_btc / temperature, MASKED_LOGIT), is_target_btc

    def forward(matrix: Array, hidden_btd: Array, target_bt: Array) -> tuple[Array, Array]:
        def add(so_far: _Running, number: Array) -> tuple[_Running, None]:
            logits_btc, is_target_btc = logits_of(part_of(matrix, number), hidden_btd, number, target_bt)
            largest_bt = jnp.maximum(so_far.largest_bt, logits_btc.max(axis=-1))
            sum_bt = so_far.sum_bt * jnp.exp(so_far.largest_bt - largest_bt)
            sum_bt += jnp.exp(logits_btc - largest_bt[..., None]).sum(axis=-1)
            target_logit_bt = so_far.target_bt + jnp.where(is_target_btc, logits_btc, 0.0).sum(axis=-1)
            return _Running(largest_bt, sum_bt, target_logit_bt), None

        zeros_bt = jnp.zeros(target_bt.shape, jnp.float32)
        first = _Running(zeros_bt + MASKED_LOGIT, zeros_bt, zeros_bt)
        local, _ = jax.lax.scan(add, first, jnp.arange(chunks))
        largest_bt = jax.lax.pmax(local.largest_bt, "tensor")
        sum_bt = jax.lax.psum(local.sum_bt * jnp.exp(local.largest_bt - largest_bt), "tensor")
        logsumexp_bt = largest_bt + jnp.log(sum_bt)
        return jax.lax.psum(local.target_bt, "tensor") - logsumexp_bt, logsumexp_bt

    def backward(
        matrix: Array, hidden_btd: Array, target_bt: Array, logsumexp_bt: Array, grad_bt: Array
    ) -> tuple[Array, Array]:
        scaled_bt1 = (grad_bt / temperature)[:, :, None]

        def add(so_far: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], None]:
            matrix_grad, hidden_grad_btd = so_far
            part = part_of(matrix, number)
            logits_btc, is_target_btc = logits_of(part, hidden_btd, number, target_bt)
            logit_grad_btc = (scaled_bt1 * (is_target_btc - jnp.exp(logits_btc - logsumexp_bt[..., None]))).astype(
                dtype
            )
            exact = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
            hidden_grad_btd += exact(f"btc,{letters}->btd", logit_grad_btc, part)
            part_grad = exact(f"btd,btc->{letters}", hidden_btd, logit_grad_btc)
            part_grad = jax.lax.psum_scatter(part_grad, split, scatter_dimension=embed_axis, tiled=True)
            start = first_entry(number)
            part_grad += jax.lax.dynamic_slice_in_dim(matrix_grad, start, chunk, vocab_axis)
            matrix_grad = jax.lax.dynamic_update_slice_in_dim(matrix_grad, part_grad, start, vocab_axis)
            return (matrix_grad, hidden_grad_btd), None

        zeros = (jnp.zeros(matrix.shape, jnp.float32), jnp.zeros(hidden_btd.shape, jnp.float32))
        (matrix_grad, hidden_grad_btd), _ = jax.lax.scan(add, zeros, jnp.arange(chunks))
        return matrix_grad.astype(matrix.dtype), jax.lax.psum(hidden_grad_btd, "tensor").astype(dtype)

    inputs, summary = (matrix_spec, hidden_spec, tokens_spec), (tokens_spec, tokens_spec)
    sharded = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
    sharded_forward = sharded(forward, in_specs=inputs, out_specs=summary)
    sharded_backward = sharded(backward, in_specs=(*inputs, *summary), out_specs=(matrix_spec, hidden_spec))

    @jax.custom_vjp
    def logps(matrix: Array, hidden_btd: Array, target_bt: Array) -> Array:
        return sharded_forward(matrix, hidden_btd, target_bt)[0]

    def save(matrix: Array, hidden_btd: Array, target_bt: Array) -> tuple[Array, tuple[Array, ...]]:
        logp_bt, logsumexp_bt = sharded_forward(matrix, hidden_btd, target_bt)
        return logp_bt, (matrix, hidden_btd, target_bt, logsumexp_bt)

    logps.defvjp(save, lambda saved, grad_bt: (*sharded_backward(*saved, grad_bt), None))
    return logps(matrix, hidden_btd, target_bt)


class _Running(NamedTuple):
    """The log-sum-exp over the vocabulary entries so far, float32 [B, T] each.

    largest_bt: the largest logit.
    sum_bt: the sum of exp(logit - largest).
    target_bt: the target's logit if it is among them, else 0.
    """

    largest_bt: Any
    sum_bt: Any
    target_bt: Any


def _chunk_size(hidden_btd: Array, model: Llama) -> int:
    """Choose the vocabulary entries of a chunk, a multiple of 128: a device's logits take CHUNK_BYTES at most."""
    positions = math.ceil(hidden_btd.shape[0] * hidden_btd.shape[1] / (model.mesh.size // model.mesh.shape["tensor"]))
    size = CPU_CHUNK_BYTES if model.mesh.devices.flat[0].platform == "cpu" else CHUNK_BYTES
    return max(size // (4 * positions) // 128, 1) * 128
