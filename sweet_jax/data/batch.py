"""Rows and batches of tokens: ids with the turn of every action token, padded on the right to a few fixed lengths.

Action tokens are those of the agent: the content of its turn, and the turn's end-of-turn token. Everything is numpy on
the host. Turn numbers and masks are made together with the tokens (`chat.py`); no code compares a token with the pad
id, so the pad id may equal an end-of-turn id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Int32

from colbench_env.types import BadInput

NllMask = Literal["turn", "all"]
Truncation = Literal["raise", "drop-pair", "left"]
Leaf = Any  # an array, or what a tree map replaces it by: a sharding, a shape, a tracer


@dataclass(frozen=True, eq=False)
class TokenRow:
    """One dialogue as tokens.

    ids: token ids, int32 [T].
    turns: k >= 1 for the action tokens of agent turn k, 0 for all others, int32 [T].
    prefix: number of leading tokens that left truncation keeps: the begin-of-text token and the privileged text. None
    of them is an action token.
    """

    ids: Int32[np.ndarray, " T"]
    turns: Int32[np.ndarray, " T"]
    prefix: int = 0

    def __post_init__(self):
        if self.ids.shape != self.turns.shape:
            raise ValueError(f"{self.ids.size} token ids but {self.turns.size} turn numbers")
        if self.turns[: self.prefix].any():
            raise ValueError(f"the first {self.prefix} tokens are kept as a prefix, but some of them are action tokens")

    def __len__(self) -> int:
        return self.ids.size

    @property
    def num_turns(self) -> int:
        """The largest turn number, 0 for a row without action tokens."""
        return int(self.turns.max(initial=0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TurnBatch:
    """B rows padded on the right to T tokens.

    tokens_bt: int32 [B, T]; the pad id after the end of a row.
    turn_bt: int32 [B, T]; k >= 1 for the action tokens of agent turn k, 0 for all others and for padding.
    nll_bt: bool [B, T]; the loss mask of the negative log-likelihood.
    length_b: int32 [B]; tokens of the row before padding.
    """

    tokens_bt: Leaf
    turn_bt: Leaf
    nll_bt: Leaf
    length_b: Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PairBatch:
    """B preference pairs; both batches have the same B and T."""

    chosen: TurnBatch
    rejected: TurnBatch


@dataclass(frozen=True, eq=False)
class RowPair:
    """The two rows of a preference pair; its length is that of the longer one."""

    chosen: TokenRow
    rejected: TokenRow

    def __len__(self) -> int:
        return max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, eq=False)
class FittedPairs:
    """Pairs within a length limit.

    pairs: those that remain, in their order.
    dropped: numbers of the pairs that were dropped.
    cut: numbers of the pairs of which a row was truncated.
    """

    pairs: tuple[RowPair, ...]
    dropped: tuple[int, ...]
    cut: tuple[int, ...]


def default_buckets(max_length: int = 16384, smallest: int = 64) -> tuple[int, ...]:
    """List the row lengths to pad to: 64, 96, 128, 192, 256, 384, ... and last `max_length` itself.

    There are two for each doubling: the longest row of a batch is padded by at most half its length, and few programs
    are compiled. BadInput for a `max_length` below 1.
    """
    if max_length < 1:
        raise BadInput(f"a row length limit of {max_length} holds no token; expected 1 or more")
    lengths, size = [], smallest
    while size < max_length:
        lengths += [size, size * 3 // 2]
        size *= 2
    return (*(length for length in lengths if length < max_length), max_length)


def bucket(length: int, buckets: Sequence[int]) -> int:
    """Choose the smallest bucket that holds `length` tokens; BadInput when none does."""
    fitting = [size for size in buckets if size >= length]
    if not fitting:
        raise BadInput(f"a row of {length} tokens is longer than the largest bucket of {max(buckets)}")
    return min(fitting)


def truncate(row: TokenRow, max_length: int, policy: Truncation = "raise", index: int | None = None) -> TokenRow | None:
    """Truncate a row to `max_length` tokens; a shorter one is returned as it is.

    policy, for a longer row:
    "raise"      BadInput naming row, length and limit.
    "drop-pair"  None.
    "left"       keep the first `row.prefix` tokens (begin-of-text and privileged text) and the newest ones: the answer
                 stands at the end. Turn numbers stay, so an early turn may keep fewer action tokens or none. If the
                 result begins in the middle of a turn, its first token is no action token: nothing predicts it.
    index: the row's number in an error.

        In:  ids [1, 9, 5, 6, 7, 2], turns [0, 0, 1, 1, 2, 2], prefix 1, max_length 4, "left"
        Out: ids [1, 6, 7, 2],       turns [0, 1, 2, 2],       prefix 1
    """
    if len(row) <= max_length:
        return row
    name = "a row" if index is None else f"row {index}"
    match policy:
        case "raise":
            raise BadInput(f"{name} has {len(row)} tokens, more than the limit of {max_length}")
        case "drop-pair":
            return None
        case "left":
            newest = max_length - row.prefix
            if newest < 1:
                raise BadInput(f"{name} has a prefix of {row.prefix} tokens, which fills the limit of {max_length}")
            keep = np.r_[0 : row.prefix, len(row) - newest : len(row)]
            turns = row.turns[keep]
            turns[:1] = 0
            return TokenRow(row.ids[keep], turns, row.prefix)
    raise BadInput(f"unknown truncation policy {policy!r}; expected 'raise', 'drop-pair' or 'left'")


def fit_pairs(pairs: Sequence[RowPair], max_length: int, policy: Truncation = "raise") -> FittedPairs:
    """Truncate or drop the pairs with a row above `max_length` tokens (see `truncate`)."""
    fitted: list[RowPair] = []
    dropped: list[int] = []
    cut: list[int] = []
    for index, pair in enumerate(pairs):
        chosen = truncate(pair.chosen, max_length, policy, index)
        rejected = truncate(pair.rejected, max_length, policy, index)
        if chosen is None or rejected is None:
            dropped.append(index)
            continue
        if len(pair) > max_length:
            cut.append(index)
        fitted.append(RowPair(chosen, rejected))
    return FittedPairs(tuple(fitted), tuple(dropped), tuple(cut))


def rows_without_action_tokens(rows: Sequence[TokenRow]) -> tuple[int, ...]:
    """Find the rows without any action token, by number: they teach nothing, and the caller reports them."""
    return tuple(index for index, row in enumerate(rows) if not row.turns.any())


def most_turns(rows: Sequence[TokenRow]) -> int:
    """Find K, the largest turn number of any row, at least 1."""
    return max([1, *(row.num_turns for row in rows)])


def action_tokens_without_loss(rows: Sequence[TokenRow], num_turns: int) -> int:
    """Count the action tokens that no loss over `num_turns` turns would reach: those of later turns, and first tokens.

    In:  rows of turns [0, 1, 2, 2, 0, 3] and [1, 1]; num_turns 2
    Out: 2 (the only token of turn 3, and the second row's first)
    """
    return sum(int((row.turns > num_turns).sum()) + int(row.turns[:1].any()) for row in rows)


def pad_rows(rows: Sequence[TokenRow], length: int, pad_id: int, nll: NllMask = "turn") -> TurnBatch:
    """Pad rows on the right to one batch [B, length]; BadInput when a row is longer.

    nll: the loss mask `nll_bt`: "turn" the action tokens, "all" every real token but the first, which nothing predicts.

        In:  rows (ids [1, 8, 5, 2], turns [0, 0, 1, 1]) and (ids [1, 2], turns [0, 1]); length 5, pad_id 2
        Out: tokens_bt [[1, 8, 5, 2, 2], [1, 2, 2, 2, 2]]   turn_bt [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]
             nll_bt "turn": turn_bt > 0   "all": [[F, T, T, T, F], [F, T, F, F, F]]   length_b [4, 2]
    """
    if nll not in ("turn", "all"):
        raise BadInput(f"unknown NLL mask {nll!r}; expected 'turn' or 'all'")
    tokens_bt = np.full((len(rows), length), pad_id, np.int32)
    turn_bt = np.zeros((len(rows), length), np.int32)
    length_b = np.array([len(row) for row in rows], np.int32)
    for index, row in enumerate(rows):
        truncate(row, length, "raise", index)
        tokens_bt[index, : len(row)], turn_bt[index, : len(row)] = row.ids, row.turns
    position_t = np.arange(length)
    nll_bt = turn_bt > 0 if nll == "turn" else (position_t >= 1) & (position_t < length_b[:, None])
    return TurnBatch(tokens_bt, turn_bt, nll_bt, length_b)


def pad_pairs(pairs: Sequence[RowPair], length: int, pad_id: int, nll: NllMask = "turn") -> PairBatch:
    """Pad pairs to one batch, both sides [B, length] (see `pad_rows`)."""
    return PairBatch(
        chosen=pad_rows([pair.chosen for pair in pairs], length, pad_id, nll),
        rejected=pad_rows([pair.rejected for pair in pairs], length, pad_id, nll),
    )
