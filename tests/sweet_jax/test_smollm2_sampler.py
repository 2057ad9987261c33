"""Greedy text and log-probs of a real model are those of Hugging Face torch; needs SmolLM2-135M-Instruct on disk."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.hf_io import load_llama
from models.inference import inference_params
from models.llama import Llama
from sweet_jax.data.chat import Chat
from sweet_jax.generation import LockstepEngine, Request, Sampling
from sweet_jax.logprobs import token_logps
from sweet_jax.mesh import MeshShape, make_mesh

DIRECTORY = os.environ.get("SWEET_JAX_SMOLLM2")
TOKENS = 64
QUESTIONS = (
    "What is the capital of France?",
    "Write a Python function that adds two numbers.",
    "Name three colours.",
    "Why is the sky blue?",
    "Translate 'good morning' into Spanish.",
    "What is 7 times 8?",
    "Give me a short poem about rain.",
    "Who wrote Hamlet?",
    "List the planets of the solar system.",
    "How do I boil an egg?",
)

pytestmark = pytest.mark.skipif(
    not DIRECTORY or not Path(DIRECTORY).is_dir(), reason="SWEET_JAX_SMOLLM2 does not name a SmolLM2 directory"
)


@pytest.fixture(scope="module")
def prompts():
    return [Chat.load(DIRECTORY).prompt_ids([{"role": "user", "content": question}]) for question in QUESTIONS]


@pytest.fixture(scope="module")
def theirs(prompts):
    torch = pytest.importorskip("torch")
    import transformers

    oracle = transformers.AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32).eval()
    ends, texts = list(Chat.load(DIRECTORY).end_ids), []
    for prompt in prompts:
        with torch.no_grad():
            told = oracle.generate(torch.tensor([prompt]), max_new_tokens=TOKENS, do_sample=False, eos_token_id=ends)
        texts.append(told[0, len(prompt) :].tolist())
    return texts


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shape", [MeshShape(1, 1), MeshShape(4, 2)], ids=str)
def test_ten_greedy_continuations_of_64_tokens_are_those_of_torch(shape, prompts, theirs):
    chat, mesh = Chat.load(DIRECTORY), make_mesh(shape)
    loaded = load_llama(Path(DIRECTORY), mesh, jnp.float32)
    greedy = Sampling(temperature=0.0, max_new_tokens=TOKENS)
    model = Llama(loaded.config, mesh, remat="none")
    params = inference_params(loaded.params, loaded.config, mesh, jnp.float32)
    engine = LockstepEngine(model, params, chat.end_ids, chat.pad_id, rows=12, max_length=64 + TOKENS)
    drawn = engine.sample_all([Request(prompt, 0, greedy) for prompt in prompts])
    assert [sample.ids.tolist() for sample in drawn] == theirs
    assert max(map(len, theirs)) == TOKENS


@pytest.mark.parametrize("shape", [MeshShape(1, 1), MeshShape(4, 2), MeshShape(2, 2, 2)], ids=str)
def test_log_probs_of_tokens_are_those_of_torch(shape, prompts, theirs):
    torch = pytest.importorskip("torch")
    import transformers

    rows = [np.array(prompt + text) for prompt, text in zip(prompts, theirs, strict=True)][:4]
    length = -(-max(map(len, rows)) // 2) * 2
    tokens_bt = np.stack([np.pad(row, (0, length - len(row))) for row in rows])
    mesh = make_mesh(shape)
    loaded = load_llama(Path(DIRECTORY), mesh, jnp.float32)
    found = jax.jit(lambda params, tokens: token_logps(Llama(loaded.config, mesh), params, tokens))(
        loaded.params, tokens_bt
    )
    oracle = transformers.AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32).eval()
    for logp_t, row in zip(np.asarray(found), rows, strict=True):
        with torch.no_grad():
            told = torch.log_softmax(oracle(torch.tensor(row[None])).logits[0, :-1], dim=-1)
        told = told.gather(1, torch.tensor(row[1:, None]))[:, 0].numpy()
        np.testing.assert_allclose(logp_t[1 : len(row)], told, rtol=0, atol=1e-4)
