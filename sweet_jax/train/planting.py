"""Whether the rows of pairs are computed as trees, and what makes the batches of an update then."""

from collections.abc import Callable, Sequence

import numpy as np

from models.attention import TREES
from models.llama import Llama
from sweet_jax.data.batch import RowPair, default_buckets
from sweet_jax.data.pair_trees import PairTrees, count_tokens, pair_capacity, plant_pairs
from sweet_jax.reference import WORTH_SHARING
from sweet_jax.train.settings import Training


def share_prefixes(model: Llama, pairs: Sequence[RowPair], training: Training, nll_mask: str = "turn") -> bool:
    """Whether the rows of pairs are computed as trees: where the kernel can, and it is less work than padded rows."""
    if model.attention not in TREES or nll_mask != "turn" or not pairs:
        return False
    trees, rows = count_tokens(pairs, default_buckets(training.max_length), training.group_by_prompt)
    return trees <= WORTH_SHARING * rows


def planting(
    model: Llama,
    pairs: Sequence[RowPair],
    training: Training,
    pad_id: int,
    references_of: Callable[[np.ndarray], list[np.ndarray] | None] = lambda indices: None,
) -> Callable[[np.ndarray, int], PairTrees]:
    """Return (numbers of pairs, longest) -> their trees. references_of: gives the log-probs of both sides of each."""
    parts = model.mesh.shape["data"] * training.micro_batches
    capacity = pair_capacity(pairs, training.batch_size // parts)

    def plant(indices: np.ndarray, longest: int) -> PairTrees:
        chosen = [pairs[index] for index in indices]
        return plant_pairs(chosen, references_of(indices), capacity=capacity, multiple=parts, pad_id=pad_id)

    return plant
