"""Sampled turns against full forward passes, literal distributions, and themselves in other company."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colbench_env.types import BadInput
from models.config import LlamaConfig
from models.inference import inference_params
from models.llama import Llama, logits
from models.parameters import init_params
from sweet_jax.generation import LockstepEngine, Request, Sampling
from sweet_jax.generation.sampling import MASKED_LOGIT, RowSampling, draw_rows, row_scores
from sweet_jax.logprobs import hidden_states, token_logps
from sweet_jax.mesh import MeshShape, make_mesh

pytestmark = pytest.mark.slow

ONE, MANY = MeshShape(1, 1), MeshShape(4, 2)
VOCAB, NEW = 40, 8
GREEDY, PLAIN = Sampling(temperature=0.0, max_new_tokens=NEW), Sampling(max_new_tokens=NEW)
FILTERED = Sampling(temperature=0.7, top_k=6, top_p=0.8, max_new_tokens=NEW)
NO_END = (VOCAB,)  # an id that no token has

PROMPTS = [np.random.default_rng(n).integers(0, VOCAB, n).tolist() for n in (3, 7, 1, 8, 6, 4)]
SEEDS = [11, 22, 33, 44, 2**32 - 1, 66]


@functools.cache
def setting(shape=ONE):
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=24, num_layers=2, num_heads=4, num_kv_heads=2, head_size=8,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    mesh = make_mesh(shape)
    return Llama(config, mesh, remat="none"), init_params(config, jax.random.key(0), mesh)


@functools.cache
def drawing(shape=ONE):
    """The network and its weights as an engine takes them."""
    model, params = setting(shape)
    return model, inference_params(params, model.config, model.mesh, jnp.float32)


@functools.cache
def engine(end_ids=NO_END, shape=ONE, rows=8):
    return LockstepEngine(*drawing(shape), end_ids, 0, rows, 64)


def one_each(sampling=PLAIN, prompts=PROMPTS, seeds=SEEDS, **made):
    return engine(**made).sample_all([Request(p, seed, sampling) for p, seed in zip(prompts, seeds, strict=True)])


def by_row(sampling, count):
    ones = np.ones(count)
    return RowSampling(
        jnp.float32(ones * sampling.temperature), jnp.int32(ones * sampling.top_k), jnp.float32(ones * sampling.top_p)
    )


def draw(logits_bv, key_b, step, sampling):
    rows = by_row(sampling, len(logits_bv))
    scores_bv = row_scores(logits_bv, rows)
    token_b, total_b = draw_rows(scores_bv, key_b, jnp.full(len(logits_bv), step), rows.temperature_b == 0)
    np.testing.assert_allclose(total_b, jax.nn.logsumexp(scores_bv, axis=-1), rtol=1e-6)
    return token_b, jnp.take_along_axis(jax.nn.log_softmax(scores_bv), token_b[:, None], axis=-1)[:, 0]


def padded(rows, length=16):
    tokens_bt = np.zeros((len(rows), length), np.int32)
    for index, row in enumerate(rows):
        tokens_bt[index, : len(row)] = row
    return tokens_bt


@jax.jit
def full_logits(tokens_bt):
    model, params = setting()
    return logits(hidden_states(model, params, tokens_bt), params, model.config, model.mesh)


def assert_same(found, expected, tolerance=1e-6):
    assert [turn.ids.tolist() for turn in found] == [turn.ids.tolist() for turn in expected]
    assert [turn.ended for turn in found] == [turn.ended for turn in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.logps, b.logps, atol=tolerance)


# --- against the full forward pass -----------------------------------------------------------------------------------


def test_log_probs_of_sampled_ids_are_those_of_a_full_forward_pass():
    model, params = setting()
    turns = one_each()
    rows = [[*prompt, *turn.ids.tolist()] for prompt, turn in zip(PROMPTS, turns, strict=True)]
    logp_bt = jax.jit(lambda tokens_bt: token_logps(model, params, tokens_bt, chunk=8))(padded(rows))
    for prompt, turn, logp_t in zip(PROMPTS, turns, np.asarray(logp_bt), strict=True):
        assert turn.ids.dtype == np.int32 and turn.logps.dtype == np.float32 and len(turn.ids) == NEW
        np.testing.assert_allclose(turn.logps, logp_t[len(prompt) : len(prompt) + NEW], atol=1e-4)


def test_log_probs_are_those_of_the_distribution_that_temperature_and_filters_leave():
    turns = one_each(FILTERED)
    rows = [[*prompt, *turn.ids.tolist()] for prompt, turn in zip(PROMPTS, turns, strict=True)]
    for prompt, turn, logits_tv in zip(PROMPTS, turns, np.asarray(full_logits(padded(rows))), strict=True):
        for step, (token, logp) in enumerate(zip(turn.ids, turn.logps, strict=True)):
            p_v = np.exp(logits_tv[len(prompt) + step - 1] / 0.7)
            p_v[np.argsort(-p_v)[6:]] = 0
            kept = np.argsort(-p_v)[: 1 + np.searchsorted(np.cumsum(np.sort(p_v / p_v.sum())[::-1]), 0.8)]
            assert token in kept
            assert logp == pytest.approx(np.log(p_v[token] / p_v[kept].sum()), abs=1e-4)


def test_greedy_decoding_takes_the_argmax_of_a_full_forward_pass_step_by_step():
    turns = one_each(GREEDY)
    rows, logps = [list(prompt) for prompt in PROMPTS], []
    for _ in range(NEW):
        logits_btv = np.asarray(full_logits(padded(rows)))
        last_bv = jax.nn.log_softmax(np.stack([logits_btv[i, len(row) - 1] for i, row in enumerate(rows)]))
        logps.append(np.asarray(last_bv.max(axis=1)))
        for row, token in zip(rows, np.argmax(last_bv, axis=1), strict=True):
            row.append(int(token))
    assert [turn.ids.tolist() for turn in turns] == [row[-NEW:] for row in rows]
    np.testing.assert_allclose([turn.logps for turn in turns], np.transpose(logps), atol=1e-4)


# --- the distribution ------------------------------------------------------------------------------------------------

OUT = MASKED_LOGIT
HALVES = [0.5, 0.125, 0.25, 0.125]


@pytest.mark.parametrize(
    ("sampling", "given", "expected"),
    [
        (Sampling(), [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]),
        (Sampling(temperature=0.5), [0.0, 1.0, 2.0, 3.0], [0.0, 2.0, 4.0, 6.0]),
        (Sampling(top_k=2), [0.0, 1.0, 2.0, 3.0], [OUT, OUT, 2.0, 3.0]),
        (Sampling(top_k=1), [0.0, 3.0, 2.0, -1.0], [OUT, 3.0, OUT, OUT]),
        (Sampling(top_k=9), [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]),
        (Sampling(temperature=2.0, top_k=3), [0.0, 4.0, 2.0, -1.0], [0.0, 2.0, 1.0, OUT]),
        (Sampling(top_p=0.3), np.log(HALVES), [np.log(0.5), OUT, OUT, OUT]),
        (Sampling(top_p=0.6), np.log(HALVES), [np.log(0.5), OUT, np.log(0.25), OUT]),
        (Sampling(top_p=0.01), np.log(HALVES), [np.log(0.5), OUT, OUT, OUT]),
        (Sampling(top_p=0.99), np.log(HALVES), np.log(HALVES)),
        # After top_k the shares are 2/3 and 1/3: 0.6 is reached by the first alone.
        (Sampling(top_k=2, top_p=0.6), np.log(HALVES), [np.log(0.5), OUT, OUT, OUT]),
        (Sampling(temperature=0.0, top_k=1, top_p=0.1), [0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]),
    ],
)
def test_scores_are_scaled_and_what_top_k_and_top_p_leave_out_is_hidden(sampling, given, expected):
    found = row_scores(jnp.array([given, np.roll(given, 1)], jnp.float32), by_row(sampling, 2))
    np.testing.assert_allclose(found, [expected, np.roll(expected, 1)], rtol=1e-6, atol=1e-6)


def sorted_filter(scores_v, top_k, top_p):
    """What stays of one row, by sorting it."""
    order = np.argsort(-scores_v, kind="stable")[: top_k or None]
    shares = np.exp(np.float64(scores_v[order]) - scores_v.max())
    before = np.cumsum(shares) - shares
    smallest = scores_v[order][(before < top_p * shares.sum()) | (top_p >= 1)].min()
    return np.where(scores_v < smallest, OUT, scores_v)


def test_filters_keep_what_they_keep_of_a_sorted_vocabulary():
    random = np.random.default_rng(0)
    scores_bv = np.float32(random.normal(size=(64, 500)) * random.choice([0.1, 1, 5], (64, 1)))
    scores_bv[::2] = np.round(scores_bv[::2])  # many are equally likely, some 0 and -0
    top_k_b = random.choice([0, 0, 1, 7, 499, 500], 64)
    top_p_b = np.float32(random.choice([1.0, 0.05, 0.5, 0.9, 0.999], 64))
    found = row_scores(jnp.asarray(scores_bv), RowSampling(jnp.ones(64), jnp.int32(top_k_b), jnp.asarray(top_p_b)))
    expected = [sorted_filter(*row) for row in zip(scores_bv, top_k_b, top_p_b, strict=True)]
    np.testing.assert_array_equal(found, np.float32(expected))


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), HALVES),
        (Sampling(temperature=0.5), np.square(HALVES) / np.square(HALVES).sum()),
        (Sampling(top_k=2), [2 / 3, 0, 1 / 3, 0]),
        (Sampling(top_p=0.6), [2 / 3, 0, 1 / 3, 0]),
        (Sampling(temperature=0.0), [1, 0, 0, 0]),
    ],
)
def test_tokens_are_drawn_as_often_as_they_should_and_told_with_their_log_prob(sampling, expected):
    count = 20_000
    logits_bv = jnp.broadcast_to(jnp.log(jnp.array(HALVES)), (count, 4))
    keys = jax.vmap(jax.random.key)(jnp.arange(count, dtype=jnp.uint32))
    token_b, logp_b = draw(logits_bv, keys, 5, sampling)
    shares = np.bincount(token_b, minlength=4) / count
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / np.sqrt(count))
    assert not shares[np.array(expected) == 0].any()
    told = HALVES if sampling.temperature == 0 else expected
    np.testing.assert_allclose(np.exp(logp_b), np.array(told)[token_b], atol=1e-6)


def test_every_step_of_a_row_is_drawn_anew():
    keys = jax.vmap(jax.random.key)(jnp.arange(50, dtype=jnp.uint32))
    flat_bv = jnp.zeros((50, 1000))
    first, again, second = (draw(flat_bv, keys, step, Sampling())[0].tolist() for step in (0, 0, 1))
    assert first == again
    assert len(set(first)) > 40 and sum(a == b for a, b in zip(first, second, strict=True)) < 5


# --- the end of a turn -----------------------------------------------------------------------------------------------


def test_each_of_several_end_ids_stops_its_row_and_is_kept():
    endless = one_each()
    last = next(turn for turn in endless[2:] if turn.ids[-1] not in turn.ids[:-1])  # ended by its last possible token
    ends = (int(endless[0].ids[2]), int(endless[1].ids[4]), int(last.ids[-1]))
    stopped = one_each(end_ids=tuple(sorted(ends)))
    lengths = [next((t + 1 for t, token in enumerate(turn.ids) if token in ends), None) for turn in endless]
    assert {turn.ids[length - 1] for turn, length in zip(endless, lengths, strict=True) if length} == set(ends)
    assert None in lengths and NEW in lengths  # some row is cut, some row ends just in time
    for turn, whole, length in zip(stopped, endless, lengths, strict=True):
        assert turn.ids.tolist() == whole.ids[:length].tolist()
        assert turn.ended == (length is not None)
        np.testing.assert_allclose(turn.logps, whole.logps[:length], atol=1e-6)


def test_a_turn_without_an_end_token_is_cut_and_says_so():
    for turn in one_each():
        assert (len(turn.ids), len(turn.logps), turn.ended) == (NEW, NEW, False)


# --- company, order, mesh --------------------------------------------------------------------------------------------


def test_a_prompt_has_the_same_result_alone_beside_others_and_in_another_order():
    expected = one_each()
    alone = [one_each(PLAIN, [prompt], [seed])[0] for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert_same(alone, expected)
    assert_same(one_each(PLAIN, PROMPTS[::-1], SEEDS[::-1])[::-1], expected)
    # Nine prompts more than there are rows, so that all stand in other rows.
    others = [[1 + n, 2, 3 * n % VOCAB] for n in range(9)]
    assert_same(one_each(PLAIN, others + PROMPTS, [*range(9), *SEEDS])[9:], expected)


def test_the_seed_alone_makes_the_samples_of_one_prompt_differ():
    turns = one_each(PLAIN, [PROMPTS[0]] * 4, [1, 2, 1, 3])
    ids = [tuple(turn.ids.tolist()) for turn in turns]
    assert ids[0] == ids[2] and len(set(ids)) == 3


def test_a_mesh_of_4x2_draws_the_ids_of_one_device():
    assert_same(one_each(shape=MANY), one_each(), tolerance=1e-5)


def test_samples_of_a_prompt_share_its_cache_and_differ_from_one_another():
    made = LockstepEngine(*drawing(), NO_END, 0, 16, 64)
    reads, programs = [], made._scheduler._programs

    def read(params, state, tiles):
        reads.append(int(tiles.length_a.sum()))
        return programs.read(params, state, tiles)

    made._scheduler._programs = dataclasses.replace(programs, read=read)
    wanted = [
        Request(prompt, seed, PLAIN, sample=n) for prompt, seed in zip(PROMPTS, SEEDS, strict=True) for n in range(4)
    ]
    drawn = made.sample_all(wanted)
    assert sum(reads) == sum(len(prompt) - 1 for prompt in PROMPTS)  # the last token of each begins the turn
    for first in range(0, len(drawn), 4):
        assert len({tuple(turn.ids.tolist()) for turn in drawn[first : first + 4]}) == 4
    # The first sample is the one that is drawn alone, by a program of another shape: hence the tolerance.
    assert_same(drawn[::4], one_each(), tolerance=1e-5)
    assert_same(made.sample_all(wanted[12:16]), drawn[12:16])
    assert_same(LockstepEngine(*drawing(MANY), NO_END, 0, 16, 64).sample_all(wanted), drawn, tolerance=1e-5)


def test_turns_come_as_soon_as_they_have_ended():
    turns = [Sampling(max_new_tokens=n) for n in (40, 1, 3)]
    came = list(engine().sample_each([Request([1], 0, sampling) for sampling in turns]))
    assert [place for place, _ in came][-1] == 0 and sorted(place for place, _ in came) == [0, 1, 2]
    assert [len(turn.ids) for _, turn in sorted(came, key=lambda pair: pair[0])] == [40, 1, 3]


def test_a_bfloat16_model_samples_with_float32_log_probs():
    model, params = setting()
    half = Llama(model.config, model.mesh, jnp.bfloat16, remat="none")
    params = inference_params(params, model.config, model.mesh, jnp.bfloat16)
    (turn,) = LockstepEngine(half, params, NO_END, 0, 1, 64).sample_all([Request(PROMPTS[0], 0, GREEDY)])
    assert turn.logps.dtype == np.float32 and len(turn.ids) == NEW
    assert turn.logps[0] == pytest.approx(one_each(GREEDY)[0].logps[0], abs=0.1)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"temperature": -0.5}, "temperature -0.5 and top_k 0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_k": -3}, "temperature 1.0 and top_k -3"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
    ],
)
def test_settings_that_describe_no_distribution_are_bad_input(settings, complaint):
    with pytest.raises(BadInput, match=complaint):
        Sampling(**settings)


def test_prompts_and_rows_that_cannot_be_sampled_are_bad_input():
    with pytest.raises(BadInput, match="a prompt of 57 tokens and a turn of up to 8 are 65 tokens, more than the 64"):
        engine().sample_all([Request([1], 0, PLAIN), Request([1] * 57, 0, PLAIN)])
    assert len(one_each()) == len(PROMPTS)  # what could not be taken has left nothing behind
    with pytest.raises(BadInput, match="a batch of 6 cannot be divided .* over a data axis of 4"):
        engine(shape=MANY, rows=6)
