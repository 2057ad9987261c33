"""`python -m benchmarks.peers.floor --model=DIR`: the least time that the other scripts' work can take on this machine.

Counted are products with weights (no attention, no optimiser), each prompt once, at the highest rate at which any of
XLA, numpy and torch multiplies float32 matrices of the model's shapes here; of a step that draws tokens, whichever is
longer: its products, or reading the weights and what the rows hold from memory once. A ratio that would need less
cannot be reached by computing the same in float32. Seconds are of the processor; the last line is JSON.

Needs `pip install torch`. Run it on a quiet machine, before or after the script that it stands beside.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from launch.planning.flops import layer_weights, logit_flops
from models.config import LlamaConfig
from models.hf_io import from_hf
from sweet_jax.mesh import MeshShape, start_devices

TOKENS = (16, 64, 256, 1024)
LEAST_SECONDS = 0.5  # of a measurement
READ = 2**29  # bytes that are read to see how fast memory is


@dataclass(frozen=True)
class Steps:
    """Steps that draw a token in each of `rows` rows, which hold `held` tokens each."""

    count: int
    rows: int
    held: int

    def seconds(self, config: LlamaConfig, rate: float, bandwidth: float) -> float:
        """Return the least time. rate: FLOPs a second; bandwidth: bytes a second."""
        weights = layer_weights(config) + config.hidden_size * config.vocab_size
        cache = 2 * config.num_layers * config.num_kv_heads * config.head_size * self.rows * self.held
        products = 2.0 * layer_weights(config) * self.rows + logit_flops(config, self.rows)
        return self.count * max(products / rate, 4.0 * (weights + cache) / bandwidth)


def work(config: LlamaConfig) -> Mapping[str, tuple[float, Steps]]:
    """Return each piece of work of `sampling`, `trees` and `training`: FLOPs of products of many tokens, and steps."""
    weights = 2.0 * layer_weights(config)
    prompts = np.linspace(64, 512, 32).astype(int)
    drawn, nothing = Steps(8 * 32, 1, 200 + 72 * 6), Steps(0, 0, 0)

    def forward(tokens: int, logits: int) -> float:
        return weights * tokens + logit_flops(config, logits)

    def update(tokens: int, logits: int, reference: bool) -> float:
        return (3 + reference) * forward(tokens, logits)

    def pairs(length: int, reference: bool) -> float:  # two, whose first half is shared
        return update(2 * 3 * length // 2, 4 * length // 2, reference)

    return {
        "dialogues": (forward(int(prompts.sum()), 32), Steps(64, 32, int(prompts.mean()) + 32)),
        "candidates": (forward(1000, 1), Steps(64, 16, 1000 + 32)),
        "turns": (forward(8 * 40, 8), drawn),
        "turns again": (forward(sum(200 + 72 * turn for turn in range(2, 10)), 8), drawn),
        "64 rows": (forward(64 * 16, 64), Steps(64, 64, 16 + 32)),
        "16 rows": (forward(64 * 16, 64), Steps(4 * 64, 16, 16 + 32)),
        "score": (forward(1000 + 8 * 16 * 64, 8 * 16 * 64), nothing),
        "policy": (update(1000 + 8 * 16 * 64, 8 * 16 * 64, True), nothing),
        "pairs_512": (pairs(512, True), nothing),
        "known_512": (pairs(512, False), nothing),
        "pairs_2048": (pairs(2048, True), nothing),
        "nll": (update(2 * 512, 2 * 512, False), nothing),
    }


def shapes(config: LlamaConfig) -> list[tuple[int, int]]:
    """List the products of a layer as we join them, inputs and outputs."""
    heads, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    hidden, inner = config.hidden_size, config.intermediate_size
    return [(hidden, heads + 2 * kv), (heads, hidden), (hidden, 2 * inner), (inner, hidden)]


def rate(multiply: Callable[[], Any], flops: float) -> float:
    """Return FLOPs a second of the processor."""
    multiply()
    started, count, spent = time.process_time(), 0, 0.0
    while spent < LEAST_SECONDS:
        multiply()
        count, spent = count + 1, time.process_time() - started
    return flops * count / spent


def rates(tokens: int, inputs: int, outputs: int) -> dict[str, float]:
    """Return each library's rate for [tokens, inputs] x [inputs, outputs]."""
    import torch

    random = np.random.default_rng(0)
    x, w = (random.standard_normal(shape, np.float32) for shape in ((tokens, inputs), (inputs, outputs)))
    on_device, torch_x, torch_w = (jnp.asarray(x), jnp.asarray(w)), torch.from_numpy(x), torch.from_numpy(w)
    plain, turned = jax.jit(jnp.matmul), jax.jit(lambda x, w: (w.T @ x.T).T)
    flops = 2.0 * tokens * inputs * outputs
    return {
        "XLA": max(rate(lambda f=f: f(*on_device).block_until_ready(), flops) for f in (plain, turned)),
        "numpy": rate(lambda: x @ w, flops),
        "torch": rate(lambda: torch_x @ torch_w, flops),
    }


def main() -> None:
    """Measure the rates, then print what the work takes at the highest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face directory of a Llama")
    told = parser.parse_args()
    start_devices(MeshShape(1, 1))
    config = from_hf(told.model / "config.json")
    best: dict[int, float] = {}
    for tokens in TOKENS:
        found = [rates(tokens, *shape) for shape in shapes(config)]
        means = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
        best[tokens] = max(means.values())
        print(
            f"{tokens:5} tokens  "
            + "  ".join(f"{name} {mean / 1e9:6.1f}" for name, mean in means.items())
            + "  GFLOP/s"
        )
    numbers = np.ones(READ // 4, np.float32)
    bandwidth = max(rate(numbers.sum, READ), rate(lambda: float(numbers @ numbers), READ))
    print(f"reading memory  {bandwidth / 1e9:6.1f} GB/s")
    many = max(best.values())
    floors = {}
    for name, (flops, steps) in work(config).items():
        at_rows = best[next(tokens for tokens in TOKENS if tokens >= steps.rows)]
        floors[name] = flops / many + steps.seconds(config, at_rows, bandwidth)
        print(f"{name:12} at least {floors[name]:7.1f} s")
    print(json.dumps({"flops_per_second": best, "bytes_per_second": bandwidth, "floor_s": floors}))


if __name__ == "__main__":
    main()
