"""A model family: ByteDance's Seed-OSS, which is Llama with biases of queries, keys and values.

    python -m launch.train --plugin=examples/plugins/my_family.py --model=DIR --tasks=tasks.jsonl --human=rules

A family that computes something new needs lines in `models/`; docs/families.md goes through them.
"""

from models.families import COMMON, Family
from sweet_jax.plugins import Plugin

SEED_OSS = Family(
    architecture="SeedOssForCausalLM",  # written into the config.json of a trained policy
    defaults={**COMMON, "head_dim": 128, "num_key_value_heads": 8},  # what transformers takes where a file says nothing
    constant={"attention_bias": True, "attention_out_bias": False, "mlp_bias": False},  # refused with another value
    saved_as="seed_oss",
    qkv_bias=True,
)

plugin = Plugin(families={"seed_oss": SEED_OSS})
