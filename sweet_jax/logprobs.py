"""Log-probabilities of tokens, in chunks so that no float32 [B, T, V] exists; the reference's are cached on disk."""

import functools
import hashlib
import json
import logging
import math
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from colbench_env.types import BadInput
from models.llama import Llama, variables
from models.sharding import constrain
from sweet_jax import hosts
from sweet_jax.batch import TokenRow, bucket, pad_rows
from sweet_jax.mesh import put_rows, replicated

log = logging.getLogger(__name__)

CHUNK = 128
"""Positions whose logits exist at one time. Peak memory of a chunk on one device, forward or backward, is about
3 x rows x CHUNK x vocabulary x 4 bytes over the sizes of the two mesh axes: 0.8 GiB for 4 rows and 131,072 words."""


def token_logps(
    model: Llama,
    params: Mapping[str, Any],
    tokens_bt: Int[Array, "B T"],
    *,
    chunk: int = CHUNK,
    temperature: float = 1.0,
) -> Float[Array, "B T"]:
    """log p(token t | tokens before t) in float32; column 0, which nothing predicts, is 0.

    Values at and after padding are meaningless but finite: the caller's masks leave them out. `temperature` divides the
    logits, as in the sampler. No row sees another.
    """
    return hidden_logps(model, params, hidden_states(model, params, tokens_bt), tokens_bt, chunk, temperature)


def hidden_states(model: Llama, params: Mapping[str, Any], tokens_bt: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """The hidden states after the final norm of whole rows that start at position 0, in the model's compute dtype."""
    positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
    return model.apply(variables(params), tokens_bt, positions_bt).hidden_btd


def hidden_logps(
    model: Llama,
    params: Mapping[str, Any],
    hidden_btd: Float[Array, "B T D"],
    tokens_bt: Int[Array, "B T"],
    chunk: int = CHUNK,
    temperature: float = 1.0,
) -> Float[Array, "B T"]:
    """`token_logps` of rows whose hidden states are known.

    A loop over chunks of T positions, at least two; each is a checkpoint, so its logits are computed again in the
    backward pass. Where the tokens of a row are split over devices, each device goes through its own part.
    """
    rows, length = tokens_bt.shape
    parts = model.mesh.shape.get("sequence", 1)
    own = length // parts  # positions of a part; the model has seen to it that they divide
    chunk = min(chunk, math.ceil(own / 2))
    chunks = math.ceil(own / chunk)
    # The tied matrix stays [V, D] and is contracted along D: its transpose is never made, least of all once a chunk.
    tied = model.config.tie_word_embeddings
    weight, equation = (params["embedding"], "bpcd,vd->bpcv") if tied else (params["lm_head"], "bpcd,dv->bpcv")
    weight = weight.astype(hidden_btd.dtype)

    @jax.checkpoint
    def chunk_logps(hidden_bpcd: Array, target_bpc: Array) -> Array:
        logits_bpcv = jnp.einsum(equation, hidden_bpcd, weight, preferred_element_type=jnp.float32) / temperature
        logits_bpcv = constrain(logits_bpcv, model.mesh, "batch", "tokens", None, "vocab")
        # A masked sum, not a gather: a gather from a sharded vocabulary would collect it on every device.
        is_target_bpcv = jnp.arange(logits_bpcv.shape[-1]) == target_bpc[..., None]
        target_logit_bpc = jnp.where(is_target_bpcv, logits_bpcv, 0.0).sum(axis=-1)
        return target_logit_bpc - jax.nn.logsumexp(logits_bpcv, axis=-1)

    def in_chunks(x_bt: Array) -> Array:
        parted = x_bt.reshape(rows, parts, own, *x_bt.shape[2:])
        padded = jnp.pad(parted, [(0, 0), (0, 0), (0, chunks * chunk - own)] + [(0, 0)] * (x_bt.ndim - 2))
        return jnp.moveaxis(padded.reshape(rows, parts, chunks, chunk, *x_bt.shape[2:]), 2, 0)

    next_bt = jnp.roll(tokens_bt, -1, axis=1)  # position t predicts token t+1; what the last one gives is dropped below
    logp_nbpc = jax.lax.map(lambda xs: chunk_logps(*xs), (in_chunks(hidden_btd), in_chunks(next_bt)))
    logp_bpt = jnp.moveaxis(logp_nbpc, 0, 2).reshape(rows, parts, chunks * chunk)[:, :, :own]
    return jnp.pad(logp_bpt.reshape(rows, length)[:, : length - 1], [(0, 0), (1, 0)])


def fingerprint(params: Any) -> str:
    """16 hex digits that change with any bit of any parameter and not with the mesh; computed where the parameters lie.

    Not cryptographic: it tells checkpoints apart. Names, shapes and dtypes count too.
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
    # A sum modulo 2^32 of well mixed (bits, index) pairs: integer addition has no rounding, so neither the order of the
    # sum nor the number of devices matters. The odd constants are those of murmur3's finaliser and of xxhash.
    bits = jax.lax.bitcast_convert_type(x, {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]).astype(jnp.uint32)
    for axis in range(x.ndim):
        bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
        bits = bits + (jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) + 1) * jnp.uint32(0x9E3779B1)
    bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
    return jnp.sum(bits ^ (bits >> 16), dtype=jnp.uint32)


@dataclass(frozen=True)
class ReferenceCache:
    """Log-probs on disk: `directory/IDENTITY/00000.npz`, one file for each scored batch.

    The identity covers parameters, rows and settings, so that nothing stale can be read. Every file is written beside
    its place and renamed, so that a killed run leaves whole files only, and the next run goes on behind them.
    """

    directory: Path

    def load(self, identity: str, part: int) -> list[np.ndarray] | None:
        """The arrays of that part, None where there is none; a damaged file is reported and computed again.

        Of several processes all find it or none does: what the first one finds counts.
        """
        path = self._path(identity, part)
        found = self._read(path)
        if not hosts.from_first(lambda: found is not None):
            return None
        if found is None:
            raise BadInput(f"{path}: {hosts.name(0)} can read it and {hosts.name()} cannot")
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
        """Writes that part whole or not at all; OSError if the disk refuses. The first process writes."""
        if not hosts.is_first():
            return
        path = self._path(identity, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.stem}.{os.getpid()}.tmp")
        try:
            with beside.open("wb") as file:
                np.savez(file, **{str(index): array for index, array in enumerate(arrays)})
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def _path(self, identity: str, part: int) -> Path:
        return self.directory / identity / f"{part:05d}.npz"


@dataclass(frozen=True)
class _Batch:
    """Which rows are scored together, and the length they are padded to."""

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
    """float32 [T] for every row, in the order given: log-probs of its tokens, unpadded.

    Rows of like length are scored together in batches of `batch_size`. The batches depend on the rows alone, so a run
    continued from the cache gives the same bits. `progress` is called with rows done and rows in all. BadInput where a
    row is longer than the largest bucket or the mesh does not divide the batch.
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
            scored_bt = jax.device_get(_score(model, params, tokens_bt, temperature))
            arrays = [scored_bt[place, : len(rows[index])].copy() for place, index in enumerate(batch.rows)]
            if cache:
                cache.save(identity, part, arrays)
        for index, array in zip(batch.rows, arrays, strict=True):
            found[index] = array
        done += len(batch.rows)
        progress(done, len(rows))
    return [array for array in found if array is not None]


@functools.partial(jax.jit, static_argnames=("model", "temperature"))
def _score(model: Llama, params: Any, tokens_bt: Array, temperature: float) -> Array:
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
    """The per-row log-probs as float32 [B, length], 0 in the padding; the twin of `batch.pad_rows`."""
    ref_bt = np.zeros((len(arrays), length), np.float32)
    for index, array in enumerate(arrays):
        ref_bt[index, : len(array)] = array
    return ref_bt
