"""Pairs that are held out to choose the critic's beta by."""

import numpy as np
import pytest

from colbench_env.types import BadInput
from sweet_jax.data.batch import RowPair, TokenRow
from sweet_jax.train.scale import hold_out


def pair(prompt, number):
    rows = [
        TokenRow(np.array([1, prompt, 7, side], np.int32), np.array([0, 0, 1, 1], np.int32)) for side in (number, 99)
    ]
    return RowPair(*rows)


def test_pairs_after_one_prompt_are_on_the_same_side():
    pairs = [pair(10 + number % 10, number) for number in range(40)]
    trained, held = hold_out(pairs, seed=3)
    assert len(trained) + len(held) == 40 and len(held) == 8  # two of ten prompts
    prompts = [{one.chosen.ids[1] for one in side} for side in (trained, held)]
    assert not prompts[0] & prompts[1]
    assert {id(one) for one in hold_out(pairs, seed=3)[1]} == {id(one) for one in held}


def test_one_prompt_cannot_be_held_out():
    with pytest.raises(BadInput, match="2 pairs after 1 prompts: none can be held out to choose beta by"):
        hold_out([pair(10, 1), pair(10, 2)], seed=0)
