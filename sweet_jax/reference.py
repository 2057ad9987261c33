"""Log-probabilities of rows, and values of a head: computed once, prefixes shared, and cached on disk."""

import functools
import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from colbench_env.replace_file import replace_file
from colbench_env.types import BadInput
from models.attention import TREES
from models.llama import Llama
from sweet_jax import processes
from sweet_jax.critic import tree_values
from sweet_jax.data.batch import TokenRow, bucket
from sweet_jax.data.trees import Tree, TreeBatch, action_slots, grow_trees, pad_trees, tree_capacity
from sweet_jax.logprobs import tree_logps
from sweet_jax.mesh import put_rows, replicated

log = logging.getLogger(__name__)


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
    """Trees that are scored together, padded to `count` of `length` tokens; shared: whether rows share prefixes."""

    trees: tuple[Tree, ...]
    count: int
    length: int
    shared: bool


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
    """Compute the log-probs of every row's action tokens under the reference: float32 [T] each, 0 for other tokens.

    Prefixes that rows share are computed once (`sweet_jax.data.trees`) where that is less work and the attention kernel
    can. Batches depend on the rows alone, so a run continued from the cache gives the same bits.
    batch_size: rows of like length that are scored together; of trees as many as have as many tokens. buckets: the
    lengths to pad rows to. temperature: divides the logits.
    progress: called with (rows done, rows in all) after every batch.
    BadInput where a row is longer than the largest bucket or the mesh does not divide the batch.
    """
    settings = (batch_size, tuple(buckets), temperature)
    return _score_rows(
        model, params, rows, lambda trees: score(model, params, trees, temperature), (),
        settings=settings, pad_id=pad_id, cache=cache, progress=progress,
    )  # fmt: skip


def row_values(
    model: Llama,
    params: Mapping[str, Any],
    rows: Sequence[TokenRow],
    *,
    batch_size: int,
    buckets: Sequence[int],
    pad_id: int,
    cache: ReferenceCache | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[np.ndarray]:
    """Read a critic's head at every action token of each row: float32 [T, 2], the value at the token before it and at
    the token itself; 0 for other tokens. params: with "llama" and "head"; all else as for `reference_logps`."""
    return _score_rows(
        model, params, rows, lambda trees: read_values(model, params, trees), (2,),
        settings=(batch_size, tuple(buckets), "values"), pad_id=pad_id, cache=cache, progress=progress,
    )  # fmt: skip


def _score_rows(
    model: Llama,
    params: Mapping[str, Any],
    rows: Sequence[TokenRow],
    compute: Callable[[TreeBatch], Array],
    shape: tuple[int, ...],
    *,
    settings: tuple,
    pad_id: int,
    cache: ReferenceCache | None,
    progress: Callable[[int, int], None],
) -> list[np.ndarray]:
    """Compute something of every row's action tokens: float32 [T, *shape] each, 0 for other tokens.

    compute: gives it for the wanted tokens of a batch, [B, M, *shape]. settings: what it depends on beside parameters
    and rows, first the size of a batch and the lengths to pad to.
    """
    batches = _plan(rows, settings[0], settings[1], model)
    identity = _identity(model, params, rows, settings) if cache else ""
    found = [np.zeros((len(row), *shape), np.float32) for row in rows]
    done = 0
    for part, batch in enumerate(batches):
        wanted = [action_slots(tree, rows) for tree in batch.trees]
        arrays = cache.load(identity, part) if cache else None
        if arrays is None:
            padded = pad_trees(batch.trees, wanted, batch.count, batch.length, pad_id, batch.shared)
            computed_bm = jax.device_get(compute(put_rows(padded, model.mesh)))
            arrays = [computed_bm[place, : len(slots)].copy() for place, slots in enumerate(wanted)]
            if cache:
                cache.save(identity, part, arrays)
        for tree, slots, array in zip(batch.trees, wanted, arrays, strict=True):
            by_slot = np.zeros((len(tree), *shape), np.float32)
            by_slot[slots[:, 1]] = array
            for number, own in tree.slots.items():
                counted = rows[number].turns > 0
                found[number][counted] = by_slot[own[counted]]
            done += len(tree.slots)
        progress(done, len(rows))
    return found


@functools.partial(jax.jit, static_argnames=("model", "temperature"))
def score(model: Llama, params: Any, trees: TreeBatch, temperature: float) -> Array:
    """Compute the `tree_logps` of a batch for `reference_logps`: jitted, replicated."""
    logp_bm = tree_logps(model, params, trees, temperature=temperature)
    return jax.lax.with_sharding_constraint(logp_bm, replicated(model.mesh))  # every process reads every row


@functools.partial(jax.jit, static_argnames="model")
def read_values(model: Llama, params: Any, trees: TreeBatch) -> Array:
    """Compute the `critic.tree_values` of a batch for `row_values`, [B, M, 2]: jitted, replicated."""
    value_bm2 = jnp.stack(tree_values(model, params, trees), axis=-1)
    return jax.lax.with_sharding_constraint(value_bm2, replicated(model.mesh))


WORTH_SHARING = 0.8
"""Trees are computed where they have at most that share of the padded tokens of separate rows: attention within a tree
also compares tokens that do not see each other."""


def _plan(rows: Sequence[TokenRow], batch_size: int, buckets: Sequence[int], model: Llama) -> list[_Batch]:
    """Decide how rows are scored: as trees where that is less work, else in batches of rows of like length."""
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(bucket(len(row), buckets), []).append(index)
    if model.attention in TREES and rows:
        devices = model.mesh.shape["data"]
        (whole,) = grow_trees(rows, sum(map(len, rows)))
        capacity = tree_capacity(max(map(len, rows)), min(len(whole), batch_size * max(by_length)) // devices)
        trees = grow_trees(rows, capacity)
        separate = sum(length * -(-len(indices) // batch_size) * batch_size for length, indices in by_length.items())
        if len(trees) * capacity <= WORTH_SHARING * separate:
            most = max(1, batch_size * max(by_length) // capacity)
            size = -(-len(trees) // -(-len(trees) // most))  # batches of equal size
            size = -(-size // devices) * devices
            return [_Batch(tuple(trees[at : at + size]), size, capacity, True) for at in range(0, len(trees), size)]
    single = [grow_trees(rows, len(row), [index])[0] for index, row in enumerate(rows)]
    return [
        _Batch(tuple(single[index] for index in indices[start : start + batch_size]), batch_size, length, False)
        for length, indices in sorted(by_length.items())
        for start in range(0, len(indices), batch_size)
    ]


def _identity(model: Llama, params: Any, rows: Sequence[TokenRow], settings: tuple) -> str:
    digest = hashlib.sha256(fingerprint(params).encode())
    # The mesh counts: another one rounds differently, and a continued run must not mix the two.
    shape = (model.config, model.compute_dtype, sorted(model.mesh.shape.items()))
    digest.update(json.dumps([repr(shape), repr(settings), [len(row) for row in rows]]).encode())
    for row in rows:
        digest.update(np.stack([row.ids, row.turns > 0]).astype(np.int32).tobytes())
    return digest.hexdigest()[:16]


def pad_reference(arrays: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Pad the log-probs of rows to float32 [B, length], 0 in the padding, as `batch.pad_rows` pads their tokens."""
    ref_bt = np.zeros((len(arrays), length), np.float32)
    for index, array in enumerate(arrays):
        ref_bt[index, : len(array)] = array
    return ref_bt
