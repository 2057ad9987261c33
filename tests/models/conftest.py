"""Tiny models, meshes and Hugging Face oracles shared by the tests of `models`."""

import functools
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from next_token import next_token_loss

from models.config import Llama3RopeScaling, LlamaConfig
from models.inference import inference_params, next_logits
from models.kv_cache import KVCache, init_cache
from models.llama import Llama, logits
from models.parameters import Params, flatten, init_params, nest, param_shardings

TINY = LlamaConfig(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=40,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_size=8,
    max_position_embeddings=64,
    rope_scaling=Llama3RopeScaling(8.0, 1.0, 4.0, 16),
    # Larger than a real network's, so that attention is far from uniform and every weight matters.
    initializer_range=0.15,
)


@pytest.fixture(scope="session")
def tiny() -> LlamaConfig:
    return TINY


@pytest.fixture(scope="session")
def mesh_of() -> Callable[..., Mesh]:
    """A mesh of the first data x tensor devices, or of data x sequence x tensor."""

    def make(data: int, tensor: int, sequence: int = 1) -> Mesh:
        sizes = {"data": data, "sequence": sequence, "tensor": tensor}
        if sequence == 1:
            del sizes["sequence"]
        types, devices = (AxisType.Auto,) * len(sizes), jax.devices()[: data * sequence * tensor]
        return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices)

    return make


@pytest.fixture(scope="session")
def random_params() -> Callable[..., Params]:
    """Random parameters, the norms' scales and the biases among them."""

    def make(config: LlamaConfig, mesh: Mesh, seed: int = 0) -> Params:
        flat = flatten(init_params(config, jax.random.key(seed), mesh))
        noise = np.random.default_rng(seed)
        for path, value in flat.items():
            if path.endswith("norm"):
                scale = noise.uniform(0.5, 1.5, value.shape).astype(np.float32)
                flat[path] = jax.device_put(scale, value.sharding)
            if path.endswith("bias"):
                bias = noise.normal(0.0, 0.5, value.shape).astype(np.float32)
                flat[path] = jax.device_put(bias, value.sharding)
        return nest(flat)

    return make


@pytest.fixture(scope="session")
def logits_of() -> Callable[..., np.ndarray]:
    """Logits [B, T, V] of whole rows, in one forward pass from position 0."""

    @functools.partial(jax.jit, static_argnums=0)
    def forward(model: Llama, params: Params, tokens_bt: jax.Array) -> jax.Array:
        positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        hidden_btd = model.apply({"params": params}, tokens_bt, positions_bt).hidden_btd
        return logits(hidden_btd, params, model.config, model.mesh)

    def compute(config: LlamaConfig, mesh: Mesh, params: Params, tokens_bt: np.ndarray, **options) -> np.ndarray:
        return np.asarray(forward(Llama(config, mesh, **options), params, jnp.asarray(tokens_bt)))

    return compute


@pytest.fixture(scope="session")
def save_hf_model() -> Callable[..., object]:
    """A random torch network of a family, saved by transformers into a directory; returns the torch model."""

    def save(directory: Path, family: str = "Llama", **settings) -> object:
        import torch
        import transformers

        torch.manual_seed(0)
        scaling = {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        }
        sizes = {
            "vocab_size": 48,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "initializer_range": 0.15,
            "rope_parameters": scaling,
        }
        config = getattr(transformers, f"{family}Config")(**{**sizes, **settings})
        model = getattr(transformers, f"{family}ForCausalLM")(config).to(torch.float32).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                torch.nn.init.uniform_(parameter, 0.5, 1.5)
        model.save_pretrained(directory)
        return model

    return save


@pytest.fixture(scope="session")
def torch_logits() -> Callable[..., np.ndarray]:
    """Logits [B, T, V] of a torch model."""

    def compute(model: object, tokens_bt: np.ndarray) -> np.ndarray:
        import torch

        with torch.no_grad():
            return model(torch.tensor(tokens_bt, dtype=torch.long)).logits.numpy()

    return compute


@pytest.fixture(scope="session")
def decode_from() -> Callable[..., tuple[np.ndarray, KVCache]]:
    """Logits of every row's tokens and the cache: prefill of right-padded rows, then one token a row at a time.

    lengths: of the prompts, which are the first tokens of tokens_bt. total: tokens of a row in the end.
    """

    def decode(
        model: Llama, params: Params, tokens_bt: np.ndarray, lengths: list[int], slots: int
    ) -> tuple[np.ndarray, KVCache]:
        config, mesh = model.config, model.mesh

        @jax.jit
        def step(params, tokens_bt, positions_bt, cache):
            params = inference_params(params, config, mesh, jnp.float32)
            output = model.apply({"params": params}, tokens_bt, positions_bt, cache)
            hidden_md = output.hidden_btd.reshape(-1, config.hidden_size)
            return next_logits(hidden_md, params, config, mesh).reshape(*tokens_bt.shape, -1), output.cache

        (rows, total), longest = tokens_bt.shape, max(lengths)
        collected = np.zeros((rows, total, config.vocab_size), np.float32)
        inside = np.arange(longest)[None] < np.array(lengths)[:, None]
        # 47 stands for padding: it must neither be seen nor survive in the cache.
        prompt_bt = np.where(inside, tokens_bt[:, :longest], 47)
        positions_bt = np.broadcast_to(np.arange(longest), prompt_bt.shape)
        first, cache = step(params, prompt_bt, positions_bt, init_cache(config, rows, slots, mesh, block=4))
        for row, length in enumerate(lengths):
            collected[row, :length] = first[row, :length]
        at = np.array(lengths)
        while (at < total).any():
            # Rows that are done write beyond the last slot, where entries are dropped.
            writable = np.where(at < total, at, slots)[:, None]
            now_bt = tokens_bt[np.arange(rows), np.minimum(at, total - 1)][:, None]
            out, cache = step(params, now_bt, writable, cache)
            for row in np.flatnonzero(at < total):
                collected[row, at[row]] = out[row, 0]
            at = at + 1
        return collected, cache

    return decode


@pytest.fixture(scope="session")
def loss_and_gradients() -> Callable[..., tuple[float, dict[str, np.ndarray]]]:
    """Mean log-probability of the next token, and its gradients as numpy arrays by path."""

    def compute(config: LlamaConfig, mesh: Mesh, params: Params, tokens_bt: np.ndarray, **options):
        model, shardings = Llama(config, mesh, **options), param_shardings(config, mesh)

        value, gradients = jax.jit(jax.value_and_grad(next_token_loss(model)), out_shardings=(None, shardings))(
            params, tokens_bt
        )
        return float(value), {path: np.asarray(gradient) for path, gradient in flatten(gradients).items()}

    return compute
