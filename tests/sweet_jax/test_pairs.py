import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweet_jax.pairs import IndexPair, score_pairs, ties, trajectory_pairs, turn_pairs


class Scripted(random.Random):
    """Draws the given places of the sequences it is shown, and remembers the sequences."""

    def __init__(self, *places):
        super().__init__(0)
        self.places, self.shown = list(places), []

    def choice(self, seq):
        self.shown.append(list(seq))
        return seq[self.places.pop(0)]


def numbers(pairs):
    return [(pair.chosen, pair.rejected) for pair in pairs]


def test_the_first_full_success_is_preferred_to_every_strictly_worse_sample():
    assert numbers(trajectory_pairs([0.3, 1.0, 1.0, 0.9])) == [(1, 0), (1, 3)]
    assert numbers(trajectory_pairs([1.0, 0.0, 0.5])) == [(0, 1), (0, 2)]
    assert numbers(trajectory_pairs([0.0, 0.0, 1.0])) == [(2, 0), (2, 1)]


def test_a_task_without_success_or_without_failure_gives_no_trajectory_pair():
    assert trajectory_pairs([]) == []
    assert trajectory_pairs([0.3, 0.9, 0.0]) == []
    assert trajectory_pairs([1.0, 1.0]) == []
    assert trajectory_pairs([1.0]) == []


def test_what_counts_as_success_can_be_set():
    assert numbers(trajectory_pairs([0.3, 0.9, 0.9, 0.0], success=0.9)) == [(1, 0), (1, 3)]


def test_turn_pairs_are_drawn_from_the_upper_and_the_lower_half():
    scores = [0.1, 0.9, 0.5, -0.3]  # ranked 1, 2, 0, 3
    rng = Scripted(0, 0, 1, 1, 0, 1)
    assert numbers(turn_pairs(scores, "abcd", 3, rng)) == [(1, 0), (2, 3), (1, 3)]
    assert rng.shown == [[1, 2], [0, 3]] * 3


def test_the_middle_one_of_an_odd_number_of_candidates_is_in_neither_half():
    rng = Scripted(1, 0)
    assert numbers(turn_pairs([5.0, 1.0, 3.0, 2.0, 4.0], "abcde", 1, rng)) == [(4, 3)]
    assert rng.shown == [[0, 4], [3, 1]]
    assert numbers(turn_pairs([1.0, 3.0, 2.0], "abc", 2, Scripted(0, 0, 0, 0))) == [(1, 0), (1, 0)]


def test_equal_scores_keep_the_order_of_the_candidates():
    rng = Scripted(0, 0)
    assert numbers(turn_pairs([0.5, 0.7, 0.5, 0.5], "abcd", 1, rng)) == [(1, 2)]
    assert rng.shown == [[1, 0], [2, 3]]


def test_a_pair_of_equal_texts_is_left_out_and_not_drawn_again():
    texts = [(7, 2), (5, 2), (7, 2), (9, 2)]  # candidates 0 and 2 are the same turn
    assert numbers(turn_pairs([4.0, 3.0, 2.0, 1.0], texts, 3, Scripted(0, 0, 0, 1, 1, 0))) == [(0, 3), (1, 2)]
    assert turn_pairs([2.0, 1.0], ["same", "same"], 4, random.Random(0)) == []


def test_fewer_than_two_candidates_make_no_pair():
    assert turn_pairs([], [], 4, random.Random(0)) == []
    assert turn_pairs([1.0], ["a"], 4, random.Random(0)) == []


@pytest.mark.slow
def test_turn_pairs_are_drawn_evenly_and_the_seed_alone_decides_them():
    scores, texts = [0.4, 0.1, 0.3, 0.2], "abcd"
    assert turn_pairs(scores, texts, 9, random.Random("3 1")) == turn_pairs(scores, texts, 9, random.Random("3 1"))
    counts = Counter(numbers(turn_pairs(scores, texts, 4000, random.Random(0))))
    assert set(counts) == {(0, 3), (0, 1), (2, 3), (2, 1)}
    assert min(counts.values()) > 880 and max(counts.values()) < 1120  # 1000 each, 4 standard deviations are 110


@settings(deadline=None, max_examples=100)
@given(scores=st.lists(st.floats(-1, 1), min_size=2, max_size=9), num_pairs=st.integers(0, 5), seed=st.integers(0, 99))
def test_the_chosen_turn_never_scores_below_the_rejected_one(scores, num_pairs, seed):
    pairs = turn_pairs(scores, range(len(scores)), num_pairs, random.Random(seed))
    assert len(pairs) == num_pairs
    assert all(scores[pair.chosen] >= scores[pair.rejected] and pair.chosen != pair.rejected for pair in pairs)


def test_with_a_least_gap_only_clear_pairs_are_drawn_each_at_most_once():
    scores, texts = [0.9, 0.8, 0.85, -0.1, 0.0, 0.75], "abcdbf"
    drawn = turn_pairs(scores, texts, 20, random.Random(0), min_gap=0.9)
    assert sorted((pair.chosen, pair.rejected) for pair in drawn) == [(0, 3), (0, 4), (1, 3), (2, 3)]
    assert len(turn_pairs(scores, texts, 2, random.Random(0), min_gap=0.9)) == 2
    assert turn_pairs(scores, texts, 2, random.Random(0), min_gap=1.1) == []
    assert turn_pairs([0.9, -0.9], "aa", 2, random.Random(0), min_gap=0.5) == []  # equal texts


def test_ties_are_the_best_different_candidates_each_with_itself():
    assert ties([0.1, 0.9, 0.5, 0.9], "abcb", 2) == [IndexPair(1, 1), IndexPair(2, 2)]
    assert len(ties([0.0, 0.0], "aa", 4)) == 1


def test_every_two_pages_whose_scores_differ_by_a_tenth_make_a_pair():
    found = [(pair.chosen, pair.rejected) for pair in score_pairs([0.70, 0.85, 0.65, 0.74])]
    assert found == [(1, 0), (1, 2), (1, 3)]
    assert [(pair.chosen, pair.rejected) for pair in score_pairs([0.8, 0.9])] == [(1, 0)]  # 0.9 - 0.8 < 0.1 in floats
    assert score_pairs([0.8, 0.8999]) == score_pairs([0.5]) == []
