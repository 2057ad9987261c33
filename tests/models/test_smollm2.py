"""A real checkpoint against torch; runs where SWEET_JAX_SMOLLM2 names the directory of SmolLM2-135M-Instruct."""

import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.hf_io import load_llama
from models.inference import inference_params, next_logits
from models.kv_cache import init_cache
from models.llama import Llama, variables

DIRECTORY = os.environ.get("SWEET_JAX_SMOLLM2")
TEXT = Path(__file__).parents[2] / "LICENSE"
LENGTH, PREFILLED = 512, 480

pytestmark = pytest.mark.skipif(not DIRECTORY, reason="SWEET_JAX_SMOLLM2 does not name a directory of SmolLM2-135M")


@pytest.fixture(scope="module")
def tokens_bt():
    import transformers

    ids = transformers.AutoTokenizer.from_pretrained(DIRECTORY)(TEXT.read_text(), verbose=False).input_ids
    return np.array([ids[start : start + LENGTH] for start in range(0, 4 * 300, 300)])


@pytest.fixture(scope="module")
def theirs(tokens_bt, torch_logits):
    torch = pytest.importorskip("torch")
    import transformers

    return torch_logits(transformers.AutoModelForCausalLM.from_pretrained(DIRECTORY, dtype=torch.float32), tokens_bt)


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("mesh_shape", [(1, 1), (4, 2)])
def test_logits_and_log_probs_over_512_tokens_are_those_of_torch(
    mesh_shape, scan, mesh_of, logits_of, tokens_bt, theirs
):
    mesh, rows = mesh_of(*mesh_shape), mesh_shape[0]
    loaded = load_llama(DIRECTORY, mesh)
    ours = logits_of(loaded.config, mesh, loaded.params, tokens_bt[:rows], remat="none", scan=scan)
    np.testing.assert_allclose(ours, theirs[:rows], rtol=0, atol=5e-4)
    np.testing.assert_allclose(
        next_logps(ours, tokens_bt[:rows]), next_logps(theirs[:rows], tokens_bt[:rows]), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("mesh_shape", [(1, 1), (4, 2)])
def test_prefilled_and_decoded_tokens_have_the_log_probs_of_torch(mesh_shape, mesh_of, tokens_bt, theirs):
    mesh, rows = mesh_of(*mesh_shape), mesh_shape[0]
    loaded = load_llama(DIRECTORY, mesh)
    params = inference_params(loaded.params, loaded.config, mesh, jnp.float32)
    model = Llama(loaded.config, mesh, remat="none")

    @functools.partial(jax.jit, donate_argnums=3)
    def step(params, tokens_bt, positions_bt, cache):
        output = model.apply(variables(params), tokens_bt, positions_bt, cache)
        hidden_md = output.hidden_btd.reshape(-1, loaded.config.hidden_size)
        return next_logits(hidden_md, params, loaded.config, mesh).reshape(*tokens_bt.shape, -1), output.cache

    cache = init_cache(loaded.config, rows, LENGTH, mesh)
    position_bt = np.broadcast_to(np.arange(LENGTH), (rows, LENGTH))
    first, cache = step(params, tokens_bt[:rows, :PREFILLED], position_bt[:, :PREFILLED], cache)
    collected = [np.asarray(first)]
    for at in range(PREFILLED, LENGTH):
        one, cache = step(params, tokens_bt[:rows, at : at + 1], position_bt[:, at : at + 1], cache)
        collected.append(np.asarray(one))
    found = np.concatenate(collected, axis=1)
    np.testing.assert_allclose(found, theirs[:rows], rtol=0, atol=5e-4)
    np.testing.assert_allclose(
        next_logps(found, tokens_bt[:rows]), next_logps(theirs[:rows], tokens_bt[:rows]), rtol=0, atol=1e-4
    )


def next_logps(logits_btv, tokens_bt):
    """log p(token t+1 | tokens up to t), [B, T-1], in float64."""
    wide = logits_btv[:, :-1].astype(np.float64)
    largest = wide.max(axis=-1, keepdims=True)
    logsumexp = np.log(np.exp(wide - largest).sum(axis=-1)) + largest[..., 0]
    return np.take_along_axis(wide, tokens_bt[:, 1:, None], axis=-1)[..., 0] - logsumexp
