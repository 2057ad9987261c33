"""A real checkpoint against torch; runs where SWEET_JAX_SMOLLM2 names the directory of SmolLM2-135M-Instruct."""

import os

import numpy as np
import pytest

from models.hf_io import load_llama

DIRECTORY = os.environ.get("SWEET_JAX_SMOLLM2")
TEXT = "In 1969, people walked on the Moon for the first time. def add(a, b):\n    return a + b\n"

pytestmark = pytest.mark.skipif(not DIRECTORY, reason="SWEET_JAX_SMOLLM2 does not name a directory of SmolLM2-135M")


@pytest.mark.parametrize("mesh_shape", [(1, 1), (4, 2)])
def test_logits_of_smollm2_are_those_of_torch(mesh_shape, mesh_of, logits_of, torch_logits):
    torch = pytest.importorskip("torch")
    import transformers

    tokens_bt = np.array([transformers.AutoTokenizer.from_pretrained(DIRECTORY)(TEXT).input_ids] * mesh_shape[0])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32)
    mesh = mesh_of(*mesh_shape)
    loaded = load_llama(DIRECTORY, mesh)
    ours = logits_of(loaded.config, mesh, loaded.params, tokens_bt, remat="none")
    np.testing.assert_allclose(ours, torch_logits(theirs, tokens_bt), rtol=0, atol=5e-4)
