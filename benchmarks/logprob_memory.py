"""Temporary memory of token log-probs, in chunks of the vocabulary against all logits at once, as XLA compiles them.

    python -m benchmarks.logprob_memory [--vocabulary=128256] [--tokens=4096] [--rows=1] [--mesh=1x1]

Nothing is run: both programs are compiled for this machine's devices from shapes, and the compiler's own count of
temporary bytes a device is printed, for the values and for their gradient by hidden states and output matrix.
"""

import argparse
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp

from models.config import LlamaConfig
from models.llama import Llama, logits
from models.parameters import flatten, param_shapes
from sweet_jax.logprobs import hidden_logps
from sweet_jax.mesh import make_mesh, parse_mesh, rows_sharding, start_devices


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=128_256)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--hidden-size", type=int, default=4096)
    parser.add_argument("--mesh", default="1x1")
    parser.add_argument("--dtype", default="float32", help="of hidden states and matrix in the product")
    arguments = parser.parse_args()
    shape, dtype = parse_mesh(arguments.mesh), jnp.dtype(arguments.dtype)
    start_devices(shape)
    mesh = make_mesh(shape)
    config = LlamaConfig(
        vocab_size=arguments.vocabulary, hidden_size=arguments.hidden_size, intermediate_size=128, num_layers=1,
        num_heads=8, num_kv_heads=8, head_size=16, max_position_embeddings=arguments.tokens,
    )  # fmt: skip
    model = Llama(config, mesh, dtype)
    weight = {"lm_head": flatten(param_shapes(config, mesh))["lm_head"]}
    size, rows = (arguments.rows, arguments.tokens), rows_sharding(mesh)
    hidden_btd = jax.ShapeDtypeStruct((*size, config.hidden_size), dtype, sharding=rows)
    tokens_bt = jax.ShapeDtypeStruct(size, jnp.int32, sharding=rows)

    def chunked(params, hidden_btd, tokens_bt):
        return hidden_logps(model, params, hidden_btd, tokens_bt)

    def whole(params, hidden_btd, tokens_bt):
        logp_btv = jax.nn.log_softmax(logits(hidden_btd, params, config, mesh))
        return jnp.take_along_axis(logp_btv[:, :-1], tokens_bt[:, 1:, None], axis=-1)[..., 0]

    def temporaries(function) -> float:
        compiled = jax.jit(function).lower(weight, hidden_btd, tokens_bt).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    def gradient(function):
        return jax.grad(lambda *given: function(*given).sum(), argnums=(0, 1))

    print(f"V={config.vocab_size} B={size[0]} T={size[1]} D={config.hidden_size} mesh {shape}, {dtype}")
    print(f"{'MiB of temporaries a device':<30}{'whole':>10}{'chunked':>10}{'share':>8}")
    for name, wrap in (("values", lambda function: function), ("values and gradient", gradient)):
        full, parts = temporaries(wrap(whole)), temporaries(wrap(chunked))
        print(f"{name:<30}{full:>10.0f}{parts:>10.0f}{parts / full:>8.3f}")


if __name__ == "__main__":
    main()
