import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colbench_env.types import BadInput
from sweet_jax.data.batch import (
    RowPair,
    TokenRow,
    action_tokens_without_loss,
    bucket,
    default_buckets,
    fit_pairs,
    most_turns,
    pad_pairs,
    pad_rows,
    rows_without_action_tokens,
    truncate,
)


def row(ids: list[int], turns: list[int], prefix: int = 0) -> TokenRow:
    return TokenRow(np.array(ids, np.int32), np.array(turns, np.int32), prefix)


LONG = row([1, 9, 5, 6, 7, 2], [0, 0, 1, 1, 2, 2], prefix=1)
SHORT = row([1, 8, 2], [0, 0, 1], prefix=1)


@st.composite
def token_rows(draw) -> TokenRow:
    """Rows with a prefix, then spans of action tokens and others; every id may be the pad id."""
    prefix = draw(st.integers(0, 4))
    turns, turn = [0] * prefix, 0
    for gap, counted in draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=4)):
        turn += 1
        turns += [0] * gap + [turn] * counted
    ids = draw(st.lists(st.integers(0, 5), min_size=len(turns), max_size=len(turns)))
    return row(ids, turns, prefix)


def test_rows_are_padded_on_the_right_and_the_pad_may_be_the_end_of_turn_id():
    batch = pad_rows([row([1, 8, 5, 2], [0, 0, 1, 1]), row([1, 2], [0, 1])], length=5, pad_id=2)
    assert batch.tokens_bt.tolist() == [[1, 8, 5, 2, 2], [1, 2, 2, 2, 2]]
    assert batch.turn_bt.tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]
    assert batch.nll_bt.tolist() == [[False, False, True, True, False], [False, True, False, False, False]]
    assert batch.length_b.tolist() == [4, 2]
    assert [x.dtype for x in (batch.tokens_bt, batch.turn_bt, batch.nll_bt, batch.length_b)] == [
        np.int32,
        np.int32,
        np.bool_,
        np.int32,
    ]


def test_the_nll_may_cover_every_real_token_but_the_first():
    batch = pad_rows([row([1, 8, 5, 2], [0, 0, 1, 1]), row([1, 2], [0, 1])], length=5, pad_id=2, nll="all")
    assert batch.nll_bt.tolist() == [[False, True, True, True, False], [False, True, False, False, False]]
    assert batch.turn_bt.tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 0]]
    with pytest.raises((BadInput, TypeError), match="some"):  # a TypeError where the annotations are checked
        pad_rows([SHORT], 5, 2, nll="some")


def test_a_row_longer_than_the_batch_is_bad_input_that_names_it():
    with pytest.raises(BadInput, match="row 1 has 6 tokens, more than the limit of 5"):
        pad_rows([SHORT, LONG], length=5, pad_id=0)


@given(rows=st.lists(token_rows(), min_size=1, max_size=4), more=st.integers(0, 7), pad_id=st.integers(0, 5))
def test_padding_changes_nothing(rows, more, pad_id):
    length = max(len(r) for r in rows) + more
    for nll in ("turn", "all"):
        batch = pad_rows(rows, length, pad_id, nll)
        for b, r in enumerate(rows):
            real = slice(0, int(batch.length_b[b]))
            assert batch.tokens_bt[b, real].tolist() == r.ids.tolist()
            assert batch.turn_bt[b, real].tolist() == r.turns.tolist()
            assert set(batch.tokens_bt[b, len(r) :].tolist()) <= {pad_id}
            assert not batch.turn_bt[b, len(r) :].any() and not batch.nll_bt[b, len(r) :].any()
            expected = [t >= 1 for t in range(len(r))] if nll == "all" else [k > 0 for k in r.turns.tolist()]
            assert batch.nll_bt[b, real].tolist() == expected


def test_both_sides_of_a_pair_have_one_width_and_batches_are_pytrees():
    batch = pad_pairs([RowPair(LONG, SHORT), RowPair(SHORT, SHORT)], length=6, pad_id=0)
    assert batch.chosen.tokens_bt.tolist() == [[1, 9, 5, 6, 7, 2], [1, 8, 2, 0, 0, 0]]
    assert batch.rejected.turn_bt.tolist() == [[0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0]]
    assert len(RowPair(SHORT, LONG)) == 6
    assert [leaf.shape for leaf in jax.tree.leaves(batch)] == [(2, 6), (2, 6), (2, 6), (2,)] * 2
    shapes = jax.tree.map(lambda leaf: leaf.shape, batch)
    assert shapes.rejected.length_b == (2,)


def test_over_long_rows_raise_by_default_and_name_row_length_and_limit():
    with pytest.raises(BadInput, match="row 3 has 6 tokens, more than the limit of 5"):
        truncate(LONG, 5, index=3)
    assert truncate(LONG, 6) is LONG
    assert truncate(LONG, 5, "drop-pair") is None
    with pytest.raises((BadInput, TypeError), match="right"):  # a TypeError where the annotations are checked
        truncate(LONG, 5, "right")


def test_left_truncation_keeps_the_prefix_and_the_newest_tokens():
    cut = truncate(LONG, 4, "left")
    assert cut.ids.tolist() == [1, 6, 7, 2] and cut.turns.tolist() == [0, 1, 2, 2] and cut.prefix == 1
    told = row([1, 30, 31, 9, 5, 6, 2], [0, 0, 0, 0, 1, 1, 1], prefix=3)
    assert truncate(told, 5, "left").ids.tolist() == [1, 30, 31, 6, 2]
    with pytest.raises(BadInput, match="row 7 has a prefix of 3 tokens, which fills the limit of 3"):
        truncate(told, 3, "left", index=7)


@given(whole=token_rows(), max_length=st.integers(1, 24))
def test_left_truncation_never_cuts_the_end_off(whole, max_length):
    if len(whole) > max_length <= whole.prefix:
        with pytest.raises(BadInput, match="fills the limit"):
            truncate(whole, max_length, "left")
        return
    cut = truncate(whole, max_length, "left")
    newest = len(cut) - whole.prefix
    assert len(cut) == min(len(whole), max_length) and cut.prefix == whole.prefix
    assert cut.ids.tolist() == whole.ids[: whole.prefix].tolist() + whole.ids[len(whole) - newest :].tolist()
    kept = [0] * whole.prefix + whole.turns[len(whole) - newest :].tolist()
    first = kept[:1] if len(cut) == len(whole) else [0]  # nothing is left that could predict it
    assert cut.turns.tolist() == first + kept[1:]


def test_the_number_of_turns_comes_from_the_rows_and_no_action_token_is_dropped():
    rows = [row([1, 2, 3, 4, 5, 6], [0, 1, 2, 2, 0, 9]), row([1, 2], [1, 1]), row([1, 2], [0, 0])]
    assert [most_turns(rows), most_turns(rows[1:]), most_turns(rows[2:]), most_turns([])] == [9, 1, 1, 1]
    assert action_tokens_without_loss(rows, 9) == 1  # the first token of the second row
    assert action_tokens_without_loss(rows[:1], 8) == 1 and action_tokens_without_loss(rows[:1], 1) == 3
    assert action_tokens_without_loss(rows[:1], 9) == 0
    cut = truncate(row([7, 8, 9, 2], [0, 1, 1, 1]), 2, "left")
    assert cut.turns.tolist() == [0, 1] and action_tokens_without_loss([cut], 1) == 0


def test_pairs_over_the_limit_are_dropped_or_cut_and_named():
    pairs = [RowPair(SHORT, SHORT), RowPair(SHORT, LONG), RowPair(LONG, SHORT)]
    dropped = fit_pairs(pairs, 4, "drop-pair")
    assert dropped.pairs[0].chosen is SHORT and (len(dropped.pairs), dropped.dropped, dropped.cut) == (1, (1, 2), ())
    cut = fit_pairs(pairs, 4, "left")
    assert (len(cut.pairs), cut.dropped, cut.cut) == (3, (), (1, 2))
    assert [len(pair) for pair in cut.pairs] == [3, 4, 4]
    with pytest.raises(BadInput, match="row 1 has 6 tokens, more than the limit of 4"):
        fit_pairs(pairs, 4)


def test_rows_without_counted_tokens_are_reported():
    assert rows_without_action_tokens([LONG, row([1, 2], [0, 0]), SHORT, row([], [])]) == (1, 3)
    assert row([1, 2], [0, 0]).num_turns == 0 and LONG.num_turns == 2


def test_a_row_whose_columns_disagree_cannot_be_made():
    with pytest.raises(ValueError, match="the first 2 tokens are kept as a prefix, but some of them are action tokens"):
        row([1, 5, 2], [0, 1, 1], prefix=2)
    with pytest.raises((ValueError, TypeError)):  # a TypeError where the annotations are checked
        row([1, 5, 2], [0, 1])


def test_buckets_have_two_lengths_for_each_doubling_and_end_at_the_limit():
    assert default_buckets(700) == (64, 96, 128, 192, 256, 384, 512, 700)
    assert default_buckets(512) == (64, 96, 128, 192, 256, 384, 512)
    assert default_buckets(40) == (40,)
    assert default_buckets()[-3:] == (8192, 12288, 16384)
    with pytest.raises(BadInput, match="limit of 0 holds no token"):
        default_buckets(0)


def test_a_row_goes_into_the_smallest_bucket_that_holds_it():
    assert [bucket(length, (128, 64, 96)) for length in (0, 64, 65, 96, 128)] == [64, 64, 96, 96, 128]
    with pytest.raises(BadInput, match="a row of 129 tokens is longer than the largest bucket of 128"):
        bucket(129, (64, 96, 128))
