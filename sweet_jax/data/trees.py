"""Rows that share prefixes as trees: every prefix that several rows have stands once, and is computed once.

A tree is written down in depth-first order, so the tokens after a token t that continue it are those up to its end:

    rows [7 8 1 2], [7 8 1 3], [7 9]     slot      0 1 2 3 4 5
                                         ids       7 8 1 2 3 9
                                         position  0 1 2 3 3 1     the number of tokens before it
                                         end       6 5 5 4 5 6     a token sees slot s where s <= slot < end[s]

Any set of rows is such a forest: several trees stand one after another in one row of a batch, and see nothing of each
other. Log-probs, losses and gradients are those of separate rows, up to rounding (tests/sweet_jax/test_trees.py).
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Int32

from colbench_env.types import BadInput
from models.attention import SHORT
from sweet_jax.data.batch import Leaf, TokenRow, default_buckets


@dataclass(frozen=True, eq=False)
class Tree:
    """Rows that stand in one row of a batch.

    ids, positions, ends: int32 [T], see the top of this file.
    slots: of each row, by its number, where its tokens stand, int32 [len(row)].
    """

    ids: Int32[np.ndarray, " T"]
    positions: Int32[np.ndarray, " T"]
    ends: Int32[np.ndarray, " T"]
    slots: dict[int, Int32[np.ndarray, " L"]]

    def __len__(self) -> int:
        return self.ids.size


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TreeBatch:
    """B trees padded to T tokens, and the M tokens of each whose log-probs or values are wanted.

    tokens_bt, position_bt: int32 [B, T]. end_bt: int32 [B, T]; None where every tree is a single row.
    before_bm: int32 [B, M]; the slot of the token before each wanted one, whose hidden state predicts it.
    slot_bm: int32 [B, M]; the slot of the wanted token itself. target_bm: int32 [B, M]; the wanted tokens.
    The three are 0 in the padding.
    """

    tokens_bt: Leaf
    position_bt: Leaf
    end_bt: Leaf
    before_bm: Leaf
    slot_bm: Leaf
    target_bm: Leaf


def grow_trees(rows: Sequence[TokenRow], capacity: int, numbers: Iterable[int] | None = None) -> list[Tree]:
    """Grow trees of at most `capacity` tokens that hold the rows, or those with the given numbers.

    Rows are taken so that neighbours share most; a tree that is full ends, and the next one begins with a whole row.
    BadInput for a row that is longer than `capacity`.
    """
    order = _depth_first(rows, range(len(rows)) if numbers is None else numbers)
    trees: list[Tree] = []
    growing = _Growing(capacity)
    for number in order:
        ids = rows[number].ids
        if len(ids) > capacity:
            raise BadInput(f"a row of {len(ids)} tokens is longer than a tree of {capacity}")
        if not growing.add(number, ids):
            trees.append(growing.finish())
            growing = _Growing(capacity)
            growing.add(number, ids)
    return [*trees, growing.finish()] if order else trees


def _depth_first(rows: Sequence[TokenRow], numbers: Iterable[int]) -> list[int]:
    """Order the rows as a tree has them, of each branching first the branch with the longest row.

    So the dialogue that candidates branch off from stands in one piece, and they see few blocks of it.
    """
    order = sorted(numbers, key=lambda number: rows[number].ids.astype(">i4").tobytes())
    shared = np.array([0, *(_common(rows[a].ids, rows[b].ids) for a, b in itertools.pairwise(order))])
    found, open_ranges = [], [(0, len(order))]
    while open_ranges:
        start, end = open_ranges.pop()
        if end - start <= 1:
            found += order[start:end]
            continue
        inner = shared[start + 1 : end]
        ends = [start, *(start + 1 + np.flatnonzero(inner == inner.min())).tolist(), end]
        branches = list(itertools.pairwise(ends))
        branches.sort(key=lambda branch: max(len(rows[number]) for number in order[slice(*branch)]))
        open_ranges += branches  # the longest is taken next
    return found


def _common(one: np.ndarray, other: np.ndarray) -> int:
    """Count the tokens that both begin with."""
    limit = min(len(one), len(other))
    differs = np.flatnonzero(one[:limit] != other[:limit])
    return int(differs[0]) if differs.size else limit


class _Growing:
    """A tree to which rows are added depth first."""

    def __init__(self, capacity: int):
        self.capacity, self.size = capacity, 0
        self.ids, self.positions, self.ends = (np.zeros(capacity, np.int32) for _ in range(3))
        self.last, self.path = np.zeros(0, np.int32), np.zeros(0, np.int32)  # ids and slots of the newest row
        self.slots: dict[int, np.ndarray] = {}

    def add(self, number: int, ids: np.ndarray) -> bool:
        """Add a row, or return False where there is no room for it."""
        common = _common(ids, self.last)
        new = len(ids) - common
        if self.size + new > self.capacity:
            return False
        here = np.arange(self.size, self.size + new, dtype=np.int32)
        self.ends[self.path[common:]] = self.size  # the branch that this row leaves is complete
        self.ids[here], self.positions[here] = ids[common:], np.arange(common, len(ids))
        self.path, self.last = np.concatenate([self.path[:common], here]), ids
        self.slots[number] = self.path
        self.size += new
        return True

    def finish(self) -> Tree:
        self.ends[self.path] = self.size
        size = self.size
        return Tree(self.ids[:size], self.positions[:size], self.ends[:size], self.slots)


def join_trees(trees: Sequence[Tree], capacity: int) -> list[Tree]:
    """Put trees behind one another into as few as possible of at most `capacity` tokens (first fit, longest first)."""
    bins: list[list[Tree]] = []
    room: list[int] = []
    for tree in sorted(trees, key=len, reverse=True):
        place = next((index for index, left in enumerate(room) if len(tree) <= left), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(tree)
        room[place] -= len(tree)
    return [_behind_one_another(parts) for parts in bins]


def _behind_one_another(trees: Sequence[Tree]) -> Tree:
    starts = np.cumsum([0, *(len(tree) for tree in trees)])
    slots = {
        number: own + np.int32(start)
        for tree, start in zip(trees, starts, strict=False)
        for number, own in tree.slots.items()
    }
    return Tree(
        np.concatenate([tree.ids for tree in trees]),
        np.concatenate([tree.positions for tree in trees]),
        np.concatenate([tree.ends + np.int32(start) for tree, start in zip(trees, starts, strict=False)]),
        slots,
    )


MOST_ROWS = 16  # in length, of a tree


def tree_capacity(longest: int, wanted: int = 0) -> int:
    """Choose the tokens of a tree for rows of at most `longest` tokens: room for two, as one of `default_buckets`.

    wanted: what would share all that can be shared. Long rows, whose attention costs what their tokens see
    (`models.attention.SHORT`), are given so much, up to MOST_ROWS rows, and an eighth more at most. In a tree of short
    ones each token is compared with every other.
    """
    least = 2 * longest
    size = min(max(least, wanted), MOST_ROWS * longest)
    if least <= SHORT or size == least:
        return min(bucket for bucket in default_buckets(2 * least) if bucket >= least)
    step = 2 ** max(0, size.bit_length() - 4)
    return -(-size // step) * step


def pad_trees(
    trees: Sequence[Tree], wanted: Sequence[np.ndarray], count: int, length: int, pad_id: int, shared: bool = True
) -> TreeBatch:
    """Pad trees to one batch of `count`, each to `length` tokens.

    wanted: of each tree the (token before, token) slots of the wanted tokens, int32 [n, 2]; M is `wanted_size` of
    the most of them. shared: False where every tree is one row, which needs no ends.
    """
    tokens_bt = np.full((count, length), pad_id, np.int32)
    position_bt = np.tile(np.arange(length, dtype=np.int32), (count, 1))
    end_bt = position_bt + 1  # padding sees itself
    size = wanted_size(max((len(slots) for slots in wanted), default=1))
    before_bm, slot_bm, target_bm = (np.zeros((count, size), np.int32) for _ in range(3))
    for place, (tree, slots) in enumerate(zip(trees, wanted, strict=True)):
        tokens_bt[place, : len(tree)] = tree.ids
        position_bt[place, : len(tree)] = tree.positions
        end_bt[place, : len(tree)] = tree.ends
        here = slice(len(slots))
        before_bm[place, here], slot_bm[place, here], target_bm[place, here] = *slots.T, tree.ids[slots[:, 1]]
    return TreeBatch(tokens_bt, position_bt, end_bt if shared else None, before_bm, slot_bm, target_bm)


def wanted_size(most: int) -> int:
    """Round the number of wanted tokens of a tree up to a power of 2, so that few programs are compiled."""
    return max(64, 1 << (most - 1).bit_length())


def action_slots(tree: Tree, rows: Sequence[TokenRow]) -> Int32[np.ndarray, "n 2"]:
    """Find the action tokens of a tree's rows, each once: slots of (token before, token), in order."""
    pairs = [row_slots(slots, rows[number]) for number, slots in tree.slots.items()]
    return np.unique(np.concatenate(pairs), axis=0).astype(np.int32)


def action_places(row: TokenRow) -> np.ndarray:
    """Find the places of a row's action tokens, the first token excepted, which nothing predicts."""
    return np.flatnonzero(row.turns[1:] > 0) + 1


def row_slots(slots: np.ndarray, row: TokenRow) -> Int32[np.ndarray, "n 2"]:
    """Find the action tokens of one row, the first token excepted: slots of (token before, token), in order."""
    places = action_places(row)
    return np.stack([slots[places - 1], slots[places]], axis=1).astype(np.int32)
