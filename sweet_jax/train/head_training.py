"""How a critic with a head is trained: on trees where rows share enough, else on padded rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.llama import Llama
from sweet_jax.critic import HeadKind, prefix_value_objective, value_head_objective
from sweet_jax.data.batch import PairBatch, RowPair, bucket, default_buckets, pad_pairs
from sweet_jax.train.objectives import PreferenceLoss
from sweet_jax.train.planting import planting, share_prefixes
from sweet_jax.train.settings import Training
from sweet_jax.train.step import Objective
from sweet_jax.train.tree_objective import tree_prefix_value_objective, tree_value_head_objective


def head_training(
    model: Llama, pairs: Sequence[RowPair], loss: PreferenceLoss, training: Training, pad_id: int, kind: HeadKind
) -> tuple[Objective, Callable[[np.ndarray, int], Any]]:
    """Choose how a critic with a head is trained: its objective, and what makes a batch of it, as `fit` takes them.

    Rows share prefixes where the kernel can and it is less work, as in `train_preference`; no reference is needed.
    """
    buckets = default_buckets(training.max_length)

    def make_batch(indices: np.ndarray, longest: int) -> PairBatch:
        return pad_pairs([pairs[index] for index in indices], bucket(longest, buckets), pad_id)

    if share_prefixes(model, pairs, training):
        if kind == "prefix-value":
            objective = tree_prefix_value_objective(model, loss.max_turns)
        else:
            objective = tree_value_head_objective(model, loss)
        return objective, planting(model, pairs, training, pad_id)
    if kind == "prefix-value":
        return prefix_value_objective(model, loss.max_turns), make_batch
    return value_head_objective(model, loss), make_batch
