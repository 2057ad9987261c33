"""Greedy text of a real model equals that of Hugging Face torch; needs SmolLM2-135M-Instruct on disk."""

import os
from pathlib import Path

import jax.numpy as jnp
import pytest

from models.hf_io import load_llama
from models.llama import Llama
from sweet_jax.chat import Chat
from sweet_jax.mesh import MeshShape, make_mesh
from sweet_jax.sampler import Sampler, Sampling

DIRECTORY = os.environ.get("SWEET_JAX_SMOLLM2")
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


@pytest.mark.filterwarnings("ignore")
def test_ten_greedy_continuations_of_32_tokens_are_those_of_torch():
    import torch
    import transformers

    chat, mesh = Chat.load(DIRECTORY), make_mesh(MeshShape(1, 1))
    loaded = load_llama(Path(DIRECTORY), mesh, jnp.float32)
    prompts = [chat.prompt_ids([{"role": "user", "content": question}]) for question in QUESTIONS]
    greedy = Sampling(temperature=0.0, max_new_tokens=32)
    model = Llama(loaded.config, mesh, remat="none")
    sampler = Sampler(model, loaded.params, chat.end_ids, chat.pad_id, greedy, rows=5, prompt_buckets=(64, 128))
    ours = [samples[0].ids.tolist() for samples in sampler.sample(prompts, [0] * len(prompts))]
    oracle = transformers.AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32).eval()
    for prompt, got in zip(prompts, ours, strict=True):
        with torch.no_grad():
            told = oracle.generate(
                torch.tensor([prompt]), max_new_tokens=32, do_sample=False, eos_token_id=list(chat.end_ids)
            )
        assert got == told[0, len(prompt) :].tolist()
