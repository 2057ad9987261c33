"""tunix's sampler for `benchmarks.peers.sampling`: a process of its own, asked over stdin.

A line of JSON asks for a turn after each prompt, all in one batch; a line answers with the ids and with seconds of the
clock and of the processor. Nothing of this project is imported; `benchmarks/peers/tunix.txt` is what it needs.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path


class Numbers:
    """A tokenizer whose texts are ids with spaces between them. No prompt has id 0."""

    def encode(self, text: str) -> list[int]:
        return [int(number) for number in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0

    def eos_id(self) -> int:
        return -1  # nothing ends a turn

    def pad_id(self) -> int:
        return 0


def main() -> None:
    """Answer until stdin ends. Arguments: the model's directory, slots of a row."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print
    import jax
    import jax.numpy as jnp
    from tunix.generate.sampler import CacheConfig, Sampler
    from tunix.models.llama3 import model as llama
    from tunix.models.llama3.params import create_model_from_safe_tensors

    directory, room = sys.argv[1], int(sys.argv[2])
    told = json.loads((Path(directory) / "config.json").read_text())
    # Version 0.1.7 rotates by a base of 1,000,000 whatever the configuration says.
    llama.apply_rope = functools.partial(llama.apply_rope, rope_theta=int(told["rope_theta"]))
    config = llama.ModelConfig(
        num_layers=told["num_hidden_layers"], vocab_size=told["vocab_size"], embed_dim=told["hidden_size"],
        hidden_dim=told["intermediate_size"], num_heads=told["num_attention_heads"], head_dim=told["head_dim"],
        num_kv_heads=told["num_key_value_heads"], rope_theta=int(told["rope_theta"]), norm_eps=told["rms_norm_eps"],
        weight_tying=told["tie_word_embeddings"],
    )  # fmt: skip
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    model = create_model_from_safe_tensors(directory, config, mesh, dtype=jnp.float32)
    cache = CacheConfig(room, config.num_layers, config.num_kv_heads, config.head_dim)
    sampler = Sampler(model, Numbers(), cache)
    for line in sys.stdin:
        asked = json.loads(line)
        texts = [" ".join(map(str, prompt)) for prompt in asked["prompts"]]
        clock, processor = time.perf_counter(), time.process_time()
        drawn = sampler(texts, asked["new"], max_prompt_length=max(map(len, asked["prompts"])), eos_tokens=[-1])
        times = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
        print(json.dumps({**times, "ids": [ids.tolist() for ids in drawn.tokens]}), file=out, flush=True)


if __name__ == "__main__":
    main()
