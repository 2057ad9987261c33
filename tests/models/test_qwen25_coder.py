"""A real Qwen against torch; runs where SWEET_JAX_QWEN25_CODER names a directory of Qwen2.5-Coder-0.5B-Instruct."""

import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from models.hf_io import load_llama
from models.inference import inference_params
from models.llama import Llama
from sweet_jax.generation import LockstepEngine, Request, Sampling

DIRECTORY = os.environ.get("SWEET_JAX_QWEN25_CODER")
TEXT, LENGTH, NEW = Path(__file__).parents[2] / "sweet_jax" / "losses.py", 512, 64
PROMPTS = [
    "Write a Python function that reverses a string.",
    "What is a list comprehension?",
    "def fib(n):",
    "Explain recursion in one sentence.",
    "Sort a dict by value in Python.",
    "How do I read a file line by line?",
    "Write quicksort.",
    "What does *args mean?",
    "Check whether a string is a palindrome.",
    "Give an example of a decorator.",
]

pytestmark = pytest.mark.skipif(not DIRECTORY, reason="SWEET_JAX_QWEN25_CODER does not name a Qwen2.5-Coder-0.5B")


@pytest.fixture(scope="module")
def tokenizer():
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(DIRECTORY)


@pytest.fixture(scope="module")
def theirs():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def loaded(mesh_of):
    return load_llama(DIRECTORY, mesh_of(1, 1))


def test_logits_over_512_tokens_are_those_of_torch(tokenizer, theirs, loaded, mesh_of, torch_logits, logits_of):
    tokens_bt = np.array([tokenizer(TEXT.read_text(), verbose=False).input_ids[:LENGTH]])
    assert tokens_bt.shape == (1, LENGTH)
    ours = logits_of(loaded.config, mesh_of(1, 1), loaded.params, tokens_bt, remat="none")
    np.testing.assert_allclose(ours, torch_logits(theirs, tokens_bt), rtol=0, atol=1e-3)


def test_ten_greedy_texts_are_those_of_torch(tokenizer, theirs, loaded, mesh_of, optimised):
    import torch

    turns = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    prompts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"] for turn in turns]
    greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None, "repetition_penalty": 1.0}
    expected = []
    for ids in prompts:
        with torch.no_grad():
            whole = theirs.generate(torch.tensor([ids]), max_new_tokens=NEW, **greedy)
        expected.append(whole[0, len(ids) :].tolist())
    mesh = mesh_of(1, 1)
    params = inference_params(loaded.params, loaded.config, mesh, jnp.float32)
    engine = LockstepEngine(
        Llama(loaded.config, mesh), params, loaded.config.eos_token_ids, tokenizer.pad_token_id, rows=10, max_length=256
    )
    sampling = Sampling(temperature=0.0, max_new_tokens=NEW)
    ours = engine.sample_all([Request(ids, seed=0, sampling=sampling) for ids in prompts])
    assert [sample.ids.tolist() for sample in ours] == expected
