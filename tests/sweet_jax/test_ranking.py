"""Scores of turns with and without their parts, on a tiny random model."""

import dataclasses

import jax
import numpy as np
import pytest
from chats import chatml

from colbench_env.types import Candidates
from models.config import LlamaConfig
from models.llama import Llama
from models.parameters import init_params
from sweet_jax.data.chat import Chat, privileged_prefix
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.ranking import Turn, TurnScorer

TURNS = ("Which type does it have?", "Return a list.", "I WANT TO ANSWER:\ndef f(x): return x")


@pytest.fixture(scope="module")
def scene():
    """(scorer, parameters of critic and reference, a row of one position, its turns)."""
    chat = Chat(chatml())
    config = LlamaConfig(
        vocab_size=len(chat.tokenizer), hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2,
        num_kv_heads=2, head_size=8, max_position_embeddings=256, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    mesh = make_mesh(MeshShape(1, 1))
    critic, reference = (init_params(config, jax.random.key(seed), mesh) for seed in (0, 1))
    ids = chat.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Write a function."}], add_generation_prompt=True, return_dict=False
    )
    text, truth = chat.decode(ids), "def f(x): return sorted(x)"
    place = {"prompt_ids": ids, "output_ids": [], "prefix_length": 0}
    row = Candidates(text, privileged_prefix(truth) + text, "", 0.0, truth, (), (), (), (), place)
    turns = [Turn(0, tuple(chat.tokenizer.encode(turn, add_special_tokens=False))) for turn in TURNS]
    return TurnScorer(Llama(config, mesh), chat, max_length=256, batch_size=4), critic, reference, row, turns


def score(scene, limit, **settings):
    """Scores, and the passes that were made for them with the rows of each."""
    scorer, critic, reference, row, turns = scene
    passes = {}
    scorer = dataclasses.replace(
        scorer, max_length=limit, progress=lambda what, done, total: passes.__setitem__(what, total)
    )
    found = scorer.score([row], turns, critic=lambda: critic, reference=lambda: reference, **settings)
    return found, passes


@pytest.mark.parametrize("aggregation", ["turn-mean", "sum"])
@pytest.mark.parametrize("limit", [256, 64, 48])  # 64: the solution loses its beginning; 48: it is there for one turn
def test_without_its_parts_a_score_is_their_sum_and_takes_a_pass_less(scene, aggregation, limit):
    settings = {"aggregation": aggregation, "public_reference": True}
    with_parts, all_passes = score(scene, limit, **settings)
    alone, passes = score(scene, limit, parts=False, **settings)
    assert [one.advantage for one in alone] == pytest.approx([one.advantage for one in with_parts], abs=1e-5)
    assert len({round(one.advantage, 4) for one in alone}) == len(TURNS)
    if limit == 256:
        assert list(all_passes) == ["critic", "reference", "public"] and list(passes) == ["critic", "public"]
        for one, bare in zip(with_parts, alone, strict=True):
            assert one.advantage == pytest.approx(one.learned + one.pmi)
            assert bare.parts() == {} and bare.log_ratios is None


def test_with_the_paper_s_reference_the_parts_make_no_difference(scene):
    with_parts, all_passes = score(scene, 256)
    alone, passes = score(scene, 256, parts=False)
    assert alone == with_parts and passes == all_passes
    assert np.ptp([one.advantage for one in alone]) > 0.01
