"""examples/sweet.py computes what the product computes, is short, and runs."""

import ast
import functools
import importlib.util
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from colbench_env.mini import make_tasks
from models.config import LlamaConfig
from models.llama import Llama
from models.parameters import flatten, init_params
from sweet_jax.data.batch import RowPair, TokenRow, pad_pairs
from sweet_jax.logprobs import token_logps
from sweet_jax.losses import preference_loss, turn_advantages
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.pairs import trajectory_pairs, turn_pairs
from sweet_jax.train.objectives import PreferenceBatch, PreferenceLoss, pair_logps, preference_objective

FILE = Path(__file__).parents[1] / "examples" / "sweet.py"
CONFIG = LlamaConfig(
    vocab_size=97, hidden_size=16, intermediate_size=24, num_layers=2, num_heads=2, num_kv_heads=1, head_size=8,
    max_position_embeddings=128, tie_word_embeddings=True, initializer_range=0.2,
)  # fmt: skip
PAIRS, TURNS, LENGTH, PAD = 4, 3, 64, 0


def load_example():
    spec = importlib.util.spec_from_file_location("example_sweet", FILE)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sweet = load_example()
CRITIC = (functools.partial(sweet.critic_score, num_turns=TURNS), PreferenceLoss("turn-mean", 0.1, 0.01, 0.0, TURNS))
POLICY = (sweet.policy_score, PreferenceLoss("sum", 0.1, 0.01, 0.0, 1))


@functools.cache
def tiny():
    """A network, parameters to train, and those of a reference."""
    mesh = make_mesh(MeshShape(1, 1))
    return Llama(CONFIG, mesh, remat="none"), *(init_params(CONFIG, jax.random.key(seed), mesh) for seed in (0, 1))


def random_pairs(num_turns):
    """Pairs of rows of different lengths, each of 1 to `num_turns` turns of 1 to 6 tokens."""
    rng = np.random.default_rng(num_turns)

    def row():
        turns = [0] * 4
        for turn in range(1, int(rng.integers(1, num_turns + 1)) + 1):
            turns += [turn] * int(rng.integers(1, 7)) + [0] * int(rng.integers(1, 5))
        return TokenRow(rng.integers(1, CONFIG.vocab_size, len(turns)).astype(np.int32), np.int32(turns))

    return [RowPair(row(), row()) for _ in range(PAIRS)]


@functools.cache
def product(preference):
    """The product's loss of random pairs and its gradients."""
    model, params, reference = tiny()
    objective = preference_objective(model, preference)

    @jax.jit
    def compute(params, reference, pairs):
        batch = PreferenceBatch(pairs, *pair_logps(model, reference, pairs))
        return jax.value_and_grad(lambda params: objective.loss(params, batch, objective.counts(batch))[0])(params)

    loss, grads = compute(params, reference, pad_pairs(random_pairs(preference.max_turns), LENGTH, PAD))
    return loss, flatten(grads)


def example(score, preference, token_logps):
    """The example's loss of the same pairs and its gradients, from log-probs of the given function."""
    model, params, reference = tiny()
    rows = [row for pair in random_pairs(preference.max_turns) for row in (pair.chosen, pair.rejected)]
    tokens_bt, turn_bt = sweet.pad_rows(rows, PAD)
    assert tokens_bt.shape == (2 * PAIRS, LENGTH)

    @jax.jit
    def compute(params, reference, tokens_bt, turn_bt):
        ref_bt = token_logps(model, reference, tokens_bt)

        def loss(params):
            logp_bt = token_logps(model, params, tokens_bt)
            return sweet.preference_loss(logp_bt, ref_bt, turn_bt, score, preference.beta, preference.nll_coef)[0]

        return jax.value_and_grad(loss)(params)

    loss, grads = compute(params, reference, tokens_bt, turn_bt)
    return loss, flatten(grads)


@pytest.mark.slow
@pytest.mark.parametrize(("score", "preference"), [CRITIC, POLICY], ids=["critic", "policy"])
def test_loss_and_gradients_on_the_product_s_log_probs_are_the_product_s_to_the_last_bit(score, preference):
    expected, expected_grads = product(preference)
    loss, grads = example(score, preference, token_logps)
    assert abs(expected - np.log(2)) > 1e-3  # the two networks differ, so the loss says something
    assert loss == expected
    for path, grad in grads.items():
        np.testing.assert_array_equal(grad, expected_grads[path], err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize(("score", "preference"), [CRITIC, POLICY], ids=["critic", "policy"])
def test_loss_and_gradients_on_the_example_s_own_log_probs_are_the_product_s_within_rounding(score, preference):
    expected, expected_grads = product(preference)
    loss, grads = example(score, preference, sweet.token_logps)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    for path, grad in grads.items():
        np.testing.assert_allclose(grad, expected_grads[path], rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.slow
def test_advantages_and_preference_loss_are_those_of_the_product_to_the_last_bit():
    rng = np.random.default_rng(0)
    logp_bt, ref_bt = (jnp.float32(-rng.uniform(0, 5, (2 * PAIRS, 40))) for _ in range(2))
    turn_bt = jnp.int32(
        np.minimum(rng.integers(0, 2, (2 * PAIRS, 40)).cumsum(axis=1) // 5, TURNS) * (np.arange(40) % 4 > 0)
    )
    expected_bk = turn_advantages(logp_bt, ref_bt, turn_bt, TURNS, "turn-mean")
    np.testing.assert_array_equal(sweet.turn_advantages(logp_bt - ref_bt, turn_bt, TURNS), expected_bk)
    one_bt = jnp.int32(turn_bt == 2)
    one_b = turn_advantages(logp_bt, ref_bt, one_bt, 1, "sum").sum(axis=1)
    for score, mask_bt, score_b in ((CRITIC[0], turn_bt, expected_bk.sum(axis=1)), (POLICY[0], one_bt, one_b)):
        loss, accuracy = sweet.preference_loss(logp_bt, ref_bt, mask_bt, score, beta=0.1, nll_coef=0.0)
        np.testing.assert_array_equal(loss, preference_loss(score_b[0::2], score_b[1::2], 0.1).mean())
        assert accuracy == (score_b[0::2] > score_b[1::2]).mean()


def test_pairs_are_those_of_the_product():
    for rewards in ([0.3, 1.0, 1.0, 0.9], [0.3, 0.9], [1.0, 1.0], [0.0, 0.0, 1.0]):
        task = SimpleNamespace(task_id="a")
        episode = SimpleNamespace(task=task)
        dialogues = [SimpleNamespace(episode=episode, number=n, reward=reward) for n, reward in enumerate(rewards)]
        found = [(better.number, worse.number) for better, worse in sweet.pair_dialogues(dialogues)]
        assert found == [(pair.chosen, pair.rejected) for pair in trajectory_pairs(rewards)]
    for scores in ([0.1, 0.9, 0.5, -0.3], [5.0, 1.0, 3.0, 2.0, 4.0], [0.5, 0.5, 0.5, 0.5]):
        expected = turn_pairs(scores, range(len(scores)), 9, random.Random(1))
        assert sweet.draw_pairs(scores, 9, random.Random(1)) == [(p.chosen, p.rejected) for p in expected]


def test_a_dialogue_keeps_the_ids_that_were_sampled_and_only_the_critic_is_shown_the_solution(monkeypatch):
    lab = sweet.open_lab(sweet.Settings(max_turns=2))
    sampled = [lab.chat.text_turn_ids(text) for text in ("What about duplicates?", "I WANT TO ANSWER:\nx = 1")]
    turns = iter(sampled)
    monkeypatch.setattr(sweet, "sample_turns", lambda lab, params, prompts, seed: [[next(turns)] for _ in prompts])
    (dialogue,) = sweet.play(lab, lab.start, make_tasks("train", 1, 0), seed=0)
    assert (dialogue.episode.answer, dialogue.reward) == ("x = 1", 0.0)
    row = sweet.show_solution(lab, dialogue, lab.chat.row_from_turns(dialogue.prompt_ids, dialogue.turns))
    assert [row.ids[row.turns == turn].tolist() for turn in (1, 2)] == sampled
    assert lab.chat.decode(row.ids).startswith("<|bos|>In light that the final answer is: def ")
    public = lab.chat.decode(dialogue.ids_before(1))
    assert public.startswith("<|bos|><|user|>") and public.endswith("<|assistant|>")


def test_it_is_one_short_file_that_imports_neither_the_commands_nor_the_algorithm_that_it_teaches():
    source = FILE.read_text(encoding="utf-8")
    assert 300 <= len(source.splitlines()) <= 450
    tree = ast.walk(ast.parse(source))
    names = {node.module for node in tree if isinstance(node, ast.ImportFrom)}
    ours = {name for name in names if name.split(".")[0] in ("launch", "sweet_jax", "benchmarks", "tests")}
    assert ours == {"sweet_jax.data.batch", "sweet_jax.data.chat"}
    assert "import launch" not in source


@pytest.mark.slow
def test_it_runs_to_its_end(capsys):
    settings = sweet.Settings(
        num_tasks=8, samples=4, rows=32, critic_epochs=2, candidates=4, policy_steps=2, batch_size=8, num_eval_tasks=4
    )
    before, after = sweet.main(settings)
    assert len(before) == len(after) == 4 and {*before, *after} <= {0.0, 1.0}
    printed = capsys.readouterr().out
    for line in ("start policy: success", "critic: update 2 of", "policy: update 2 of 2", "trained policy: success"):
        assert line in printed
