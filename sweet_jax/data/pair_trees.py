"""Preference pairs whose rows share prefixes, planted in trees (`sweet_jax.data.trees`): one tree holds many pairs."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from sweet_jax.data.batch import Leaf, RowPair, TokenRow, bucket, default_buckets
from sweet_jax.data.trees import (
    Tree,
    TreeBatch,
    action_places,
    grow_trees,
    join_trees,
    pad_trees,
    row_slots,
    tree_capacity,
)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairTrees:
    """B trees and the P pairs that each holds. A branch is a different row of a tree; it has 2 P at most.

    trees: the M wanted tokens are the action tokens of every branch; one that two branches share is there twice.
    branch_bm, turn_bm: int32 [B, M]; branch 1..2P and turn 1..K of each wanted token, 0 in the padding.
    ref_bm: float32 [B, M]; the token's log-prob under the reference, 0 for a critic that needs none.
    chosen_bp, rejected_bp: int32 [B, P]; the branches of each pair, 0 in the padding.
    """

    trees: TreeBatch
    branch_bm: Leaf
    turn_bm: Leaf
    ref_bm: Leaf
    chosen_bp: Leaf
    rejected_bp: Leaf


def prompt_key(pair: RowPair) -> bytes:
    """Give what pairs after the same prompt have in common: the tokens before the first action token."""
    turns = pair.chosen.turns
    return pair.chosen.ids[: int(np.argmax(turns > 0)) if turns.any() else len(turns)].tobytes()


def pair_capacity(pairs: Sequence[RowPair], at_once: int = 1) -> int:
    """Choose the tokens of a tree, enough for both rows of the longest pair; at_once: pairs that come together."""
    longest = max(map(len, pairs), default=1)
    forest = _Forest(pairs, tree_capacity(longest))
    tokens = sum(len(tree) for part in forest.by_prompt() for tree in forest.grow([part]))
    return tree_capacity(longest, tokens * at_once // max(1, len(pairs)))


def count_tokens(pairs: Sequence[RowPair], buckets: Sequence[int], together: bool) -> tuple[int, int]:
    """Count the tokens that are computed for the pairs: as trees, and as padded rows.

    together: whether pairs after the same prompt come in the same update.
    """
    forest = _Forest(pairs, pair_capacity(pairs))
    parts = forest.by_prompt() if together else [[number] for number in range(len(pairs))]
    trees = sum(len(tree) for part in parts for tree in forest.grow([part]))
    return trees, sum(2 * bucket(len(pair), buckets) for pair in pairs)


def plant_pairs(
    pairs: Sequence[RowPair], references: Sequence[np.ndarray] | None, *, capacity: int, multiple: int, pad_id: int
) -> PairTrees:
    """Plant the pairs of an update in trees: those of one dialogue together where there is room, else those after the
    same prompt, else as many of these as there is room for.

    references: log-probs under the reference of the tokens of each row: chosen 0, rejected 0, chosen 1, ...; or None.
    capacity: tokens of a tree; at least `pair_capacity`. multiple: the number of trees is a multiple of it.
    """
    forest = _Forest(pairs, capacity)
    trees = join_trees(forest.grow(forest.by_prompt()), capacity)
    branches = [{number: branch for branch, number in enumerate(tree.slots, start=1)} for tree in trees]
    homes: dict[int, set[int]] = {}  # of each row; several where the pairs of a prompt did not fit one tree
    for place, tree in enumerate(trees):
        for number in tree.slots:
            homes.setdefault(number, set()).add(place)
    held: list[list[int]] = [[] for _ in trees]
    for number, (chosen, rejected) in enumerate(forest.sides):
        held[min(homes[chosen] & homes[rejected])].append(number)
    count = -(-_few(len(trees)) // multiple) * multiple
    wanted = [
        np.concatenate([row_slots(slots, forest.rows[number]) for number, slots in tree.slots.items()])
        for tree in trees
    ]
    batch = pad_trees(trees, wanted, count, capacity, pad_id)
    tokens, sides = batch.before_bm.shape, (count, _power_of_4(max(map(len, held))))
    planted = PairTrees(
        batch,
        *(np.zeros(tokens, dtype) for dtype in (np.int32, np.int32, np.float32)),
        *(np.zeros(sides, np.int32) for _ in range(2)),
    )
    for place, tree in enumerate(trees):
        start = 0
        for number in tree.slots:
            row = forest.rows[number]
            counted = action_places(row)
            here = slice(start, start + len(counted))
            planted.branch_bm[place, here] = branches[place][number]
            planted.turn_bm[place, here] = row.turns[counted]
            if references is not None:
                planted.ref_bm[place, here] = references[number][counted]
            start += len(counted)
        for index, number in enumerate(held[place]):
            chosen, rejected = forest.sides[number]
            planted.chosen_bp[place, index] = branches[place][chosen]
            planted.rejected_bp[place, index] = branches[place][rejected]
    return planted


class _Forest:
    """The different rows of some pairs: rows, and of each pair the numbers of its two."""

    def __init__(self, pairs: Sequence[RowPair], capacity: int):
        self.capacity, self.pairs = capacity, pairs
        self.rows: list[TokenRow] = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
        first: dict[tuple[bytes, bytes], int] = {}
        numbers = [first.setdefault((row.ids.tobytes(), row.turns.tobytes()), at) for at, row in enumerate(self.rows)]
        self.sides = list(zip(numbers[::2], numbers[1::2], strict=True))

    def by_prompt(self) -> list[list[int]]:
        """Group the numbers of the pairs by their prompts, those that begin alike beside one another."""
        groups: dict[bytes, list[int]] = {}
        for number, pair in enumerate(self.pairs):
            groups.setdefault(prompt_key(pair), []).append(number)
        return [groups[key] for key in sorted(groups, key=lambda key: np.frombuffer(key, np.int32).tolist())]

    def grow(self, groups: Sequence[list[int]]) -> list[Tree]:
        """Grow one tree of the pairs with these numbers; where it would be too long, one of each half of them."""
        pairs = [pair for group in groups for pair in group]
        numbers = sorted({number for pair in pairs for number in self.sides[pair]})
        trees = grow_trees(self.rows, self.capacity, numbers)
        if len(trees) <= 1:
            return trees
        if len(pairs) == 1:
            raise ValueError(f"a pair of {len(self.pairs[pairs[0]])} tokens does not fit a tree of {self.capacity}")
        if len(groups) == 1:
            return [tree for half in (pairs[::2], pairs[1::2]) for tree in self.grow([half])]
        half = len(groups) // 2
        return [tree for part in (groups[:half], groups[half:]) for tree in self.grow(part)]


def _few(number: int) -> int:
    """Round a number of trees up to one of few, so that few programs are compiled."""
    return min(size for size in default_buckets(2 * number, smallest=1) if size >= number)


def _power_of_4(number: int) -> int:
    """Round a number of pairs up, to fewer yet: they cost little."""
    return 4 ** max(1, ((number - 1).bit_length() + 1) // 2)
