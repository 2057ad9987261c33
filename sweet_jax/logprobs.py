"""Log-probabilities of tokens, computed over chunks of the vocabulary: no float32 [B, T, V] ever exists.

Those of the frozen reference are computed once and cached on disk.
"""

import functools
import hashlib
import json
import logging
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from colbench_env.replace_file import replace_file
from colbench_env.types import BadInput
from models.llama import Llama, LlamaOutput, variables
from models.sharding import activation_sharding
from sweet_jax import processes
from sweet_jax.data.batch import TokenRow, bucket, pad_rows
from sweet_jax.mesh import put_rows, replicated

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**27
"""Bytes of float32 logits that a device holds at one time; the backward pass holds about three times as many."""

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
    """Do as `token_logps` for rows whose hidden states are known.

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
    tokens_spec = activation_sharding(mesh, tokens_bt.shape, "batch", "tokens").spec
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
    target_bt = jnp.roll(tokens_bt, -1, axis=1)  # position t predicts token t+1; the last position predicts nothing
    return jnp.pad(logps(matrix, hidden_btd, target_bt)[:, :-1], [(0, 0), (1, 0)])


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
    return max(CHUNK_BYTES // (4 * positions) // 128, 1) * 128


def fingerprint(params: Any) -> str:
    """Hash the parameters on their devices: 16 hex digits that change with any bit and not with the mesh.

    Names, shapes and dtypes are hashed, too. It tells checkpoints apart and is not cryptographic.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    sums = jax.device_get(_bit_sums([x for _, x in leaves]))
    digest = hashlib.sha256()
    for (path, leaf), number in zip(leaves, sums, strict=True):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype} {int(number)}\n".encode())
    return digest.hexdigest()[:16]


@jax.jit
def _bit_sums(leaves: list[Array]) -> list[Array]:
    return [_bit_sum(leaf) for leaf in leaves]


def _bit_sum(x: Array) -> Array:
    # A sum modulo 2^32 of mixed (bits, index) pairs: integer addition does not round, so neither the order of the sum
    # nor the number of devices matters. The odd constants are those of murmur3's finaliser and of xxhash.
    bits = jax.lax.bitcast_convert_type(x, {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]).astype(jnp.uint32)
    for axis in range(x.ndim):
        bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
        bits = bits + (jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) + 1) * jnp.uint32(0x9E3779B1)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(bits ^ (bits >> 16), dtype=jnp.uint32)


@dataclass(frozen=True)
class ReferenceCache:
    """Log-probs on disk: `directory/IDENTITY/00000.npz`, one file for each scored batch.

    IDENTITY is a hash of parameters, rows and settings, so nothing stale can be read. A killed run leaves complete
    files only, and the next run continues after them.
    """

    directory: Path

    def load(self, identity: str, part: int) -> list[np.ndarray] | None:
        """Read the arrays of a part; None where there is no file, or a damaged one, which is reported.

        Every process has to call this; process 0 decides whether there is one. BadInput where another cannot read it.
        """
        path = self._path(identity, part)
        found = self._read(path)
        if not processes.broadcast_from_process_0(lambda: found is not None):
            return None
        if found is None:
            raise BadInput(f"{path}: {processes.name(0)} can read it and {processes.name()} cannot")
        return found

    def _read(self, path: Path) -> list[np.ndarray] | None:
        if not path.exists():
            return None
        try:
            with path.open("rb") as file, np.load(file) as stored:
                return [stored[str(index)] for index in range(len(stored.files))]
        except (zipfile.BadZipFile, EOFError, KeyError, ValueError):
            log.warning("%s is damaged and is computed again", path)
            return None

    def save(self, identity: str, part: int, arrays: Sequence[np.ndarray]) -> None:
        """Write the arrays of a part, whole or not at all; only process 0 does. OSError if the disk refuses."""
        if not processes.is_process_0():
            return
        path = self._path(identity, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(path) as file:
            np.savez(file, allow_pickle=False, **{str(index): array for index, array in enumerate(arrays)})

    def _path(self, identity: str, part: int) -> Path:
        return self.directory / identity / f"{part:05d}.npz"


@dataclass(frozen=True)
class _Batch:
    """The numbers of the rows that are scored together, and the length they are padded to."""

    rows: tuple[int, ...]
    length: int


def reference_logps(
    model: Llama,
    params: Mapping[str, Any],
    rows: Sequence[TokenRow],
    *,
    batch_size: int,
    buckets: Sequence[int],
    pad_id: int,
    cache: ReferenceCache | None = None,
    temperature: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[np.ndarray]:
    """Compute the log-probs of every row's tokens under the reference: float32 [T] each, unpadded, in the given order.

    batch_size: rows of like length that are scored together. Batches depend on the rows alone, so a run continued from
    the cache gives the same bits. buckets: the lengths to pad to. temperature: divides the logits.
    progress: called with (rows done, rows in all) after every batch.
    BadInput where a row is longer than the largest bucket or the mesh does not divide the batch.
    """
    batches = _plan(rows, batch_size, buckets)
    identity = _identity(model, params, rows, (batch_size, tuple(buckets), temperature)) if cache else ""
    found: list[np.ndarray | None] = [None] * len(rows)
    done = 0
    for part, batch in enumerate(batches):
        arrays = cache.load(identity, part) if cache else None
        if arrays is None:
            filled = [rows[index] for index in batch.rows] + [_EMPTY] * (batch_size - len(batch.rows))
            tokens_bt = put_rows(pad_rows(filled, batch.length, pad_id).tokens_bt, model.mesh)
            scored_bt = jax.device_get(score(model, params, tokens_bt, temperature))
            arrays = [scored_bt[place, : len(rows[index])].copy() for place, index in enumerate(batch.rows)]
            if cache:
                cache.save(identity, part, arrays)
        for index, array in zip(batch.rows, arrays, strict=True):
            found[index] = array
        done += len(batch.rows)
        progress(done, len(rows))
    return [array for array in found if array is not None]


@functools.partial(jax.jit, static_argnames=("model", "temperature"))
def score(model: Llama, params: Any, tokens_bt: Array, temperature: float) -> Array:
    """Compute the `token_logps` of a batch [B, T] for `reference_logps`: jitted, replicated."""
    logp_bt = token_logps(model, params, tokens_bt, temperature=temperature)
    return jax.lax.with_sharding_constraint(logp_bt, replicated(model.mesh))  # every process reads every row


_EMPTY = TokenRow(np.zeros(0, np.int32), np.zeros(0, np.int32))


def _plan(rows: Sequence[TokenRow], batch_size: int, buckets: Sequence[int]) -> list[_Batch]:
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(bucket(len(row), buckets), []).append(index)
    return [
        _Batch(tuple(indices[start : start + batch_size]), length)
        for length, indices in sorted(by_length.items())
        for start in range(0, len(indices), batch_size)
    ]


def _identity(model: Llama, params: Any, rows: Sequence[TokenRow], settings: tuple) -> str:
    digest = hashlib.sha256(fingerprint(params).encode())
    # The mesh counts: another one rounds differently, and a continued run must not mix the two.
    shape = (model.config, model.compute_dtype, sorted(model.mesh.shape.items()))
    digest.update(json.dumps([repr(shape), repr(settings), [len(row) for row in rows]]).encode())
    for row in rows:
        digest.update(np.ascontiguousarray(row.ids, dtype=np.int32).tobytes())
    return digest.hexdigest()[:16]


def pad_reference(arrays: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Pad the log-probs of rows to float32 [B, length], 0 in the padding, as `batch.pad_rows` pads their tokens."""
    ref_bt = np.zeros((len(arrays), length), np.float32)
    for index, array in enumerate(arrays):
        ref_bt[index, : len(array)] = array
    return ref_bt
