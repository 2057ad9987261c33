"""Preference training of a network against its start: the critic on trajectory pairs, the policy on turn pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from models.llama import Llama
from models.parameters import param_shapes
from sweet_jax.data.batch import RowPair, TokenRow, bucket, default_buckets, pad_pairs
from sweet_jax.data.pair_trees import prompt_key
from sweet_jax.reference import ReferenceCache, pad_reference, reference_logps
from sweet_jax.train.loop import Reporter, fit, rows_in_use
from sweet_jax.train.objectives import PreferenceBatch, PreferenceLoss, preference_objective
from sweet_jax.train.planting import planting, share_prefixes
from sweet_jax.train.settings import Training
from sweet_jax.train.tree_objective import tree_preference_objective


def train_preference(
    model: Llama,
    pairs: Sequence[RowPair],
    *,
    reference: Callable[[], Any],
    loss: PreferenceLoss,
    training: Training,
    pad_id: int,
    directory: Path,
    nll_mask: str = "turn",
    first: Callable[[], Any] | None = None,
    shapes: Any = None,
    frozen: Any = None,
    seed: int = 0,
    stage: str = "policy",
    reporter: Reporter = Reporter(),  # noqa: B008
    scored: Callable[[int, int], None] = lambda done, total: None,
    keep: int = 2,
) -> Any:
    """Train; the parameters come on their shardings. Equations 2 and 3 of arXiv 2503.15478, or DPO, as `loss` says.

    Log-probs under the reference of the pairs that updates will see are computed once, before the first, and kept in
    `directory`/reference; checkpoints, metrics and TensorBoard are `sweet_jax.train.loop.fit`'s. Run again with the
    same arguments it goes on where it was, to the same bits.

    model: the network on its mesh. pairs: no longer than `training.max_length` tokens.
    reference: gives the parameters of the reference, sharded as `models.parameters` says; asked for where they are
    needed and not held on to, so that training has their room.
    first: gives the trained parameters before the first update and is donated what it gives; by default a copy of the
    reference's. shapes: of the trained parameters; by default all of the network's. frozen: what the network needs
    beside the trained ones, under adapters.
    nll_mask: which tokens of the chosen row the NLL term counts, "turn" or "all". scored: is told (rows done, rows in
    all) while the reference is computed. keep: checkpoints that stay.
    Raises what `fit` raises; BadInput where a row is too long or the mesh does not divide a batch.
    """
    buckets = default_buckets(training.max_length)
    groups = [prompt_key(pair) for pair in pairs] if training.group_by_prompt else None
    used = rows_in_use([len(pair) for pair in pairs], training, seed, groups)
    shared = share_prefixes(model, [pairs[index] for index in used], training, nll_mask)
    found = reference_logps(
        model,
        reference(),
        both_sides([pairs[index] for index in used]),
        batch_size=2 * training.batch_size,
        buckets=buckets,
        pad_id=pad_id,
        cache=ReferenceCache(directory / "reference"),
        progress=scored,
    )

    places = {index: place for place, index in enumerate(used)}

    def references_of(indices: np.ndarray) -> list[np.ndarray]:
        return [found[2 * places[int(index)] + side] for index in indices for side in (0, 1)]

    def make_batch(indices: np.ndarray, longest: int) -> PreferenceBatch:
        length = bucket(longest, buckets)
        return PreferenceBatch(
            pad_pairs([pairs[index] for index in indices], length, pad_id, nll_mask),  # type: ignore[arg-type]
            *(pad_reference(references_of(indices)[side::2], length) for side in (0, 1)),
        )

    return fit(
        stage,
        shapes=param_shapes(model.config, model.mesh) if shapes is None else shapes,
        first=first or (lambda: jax.tree.map(jnp.copy, reference())),
        mesh=model.mesh,
        objective=tree_preference_objective(model, loss) if shared else preference_objective(model, loss),
        lengths=[len(pair) for pair in pairs],
        make_batch=planting(model, pairs, training, pad_id, references_of) if shared else make_batch,
        groups=groups,
        settings=training,
        seed=seed,
        directory=directory,
        reporter=reporter,
        frozen=frozen,
        keep=keep,
    )


def both_sides(pairs: Sequence[RowPair]) -> list[TokenRow]:
    """chosen 0, rejected 0, chosen 1, ..."""
    return [row for pair in pairs for row in (pair.chosen, pair.rejected)]
