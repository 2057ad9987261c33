"""Networks by name: published shapes, as in the `config.json` of their Hugging Face directories."""

from __future__ import annotations

from pathlib import Path

from colbench_env.types import BadInput
from models.config import Llama3RopeScaling, LlamaConfig, from_hf

_ROPE_31 = Llama3RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)
_ROPE_32 = Llama3RopeScaling(
    factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)


def _llama3(
    hidden: int, mlp: int, layers: int, heads: int, head_size: int, rope: Llama3RopeScaling, tied: bool
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=128_256, hidden_size=hidden, intermediate_size=mlp, num_layers=layers, num_heads=heads,
        num_kv_heads=8, head_size=head_size, max_position_embeddings=131_072, rope_theta=500_000.0, rope_scaling=rope,
        tie_word_embeddings=tied,
    )  # fmt: skip


def _qwen(
    family: str,
    hidden: int,
    mlp: int,
    layers: int,
    heads: int,
    kv: int,
    head_size: int,
    *,
    vocabulary: int,
    length: int,
    tied: bool,
) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=mlp, num_layers=layers, num_heads=heads,
        num_kv_heads=kv, head_size=head_size, max_position_embeddings=length,
        rms_norm_eps=1e-6, rope_theta=1_000_000.0, tie_word_embeddings=tied, family=family,
    )  # fmt: skip


SHAPES = {
    "llama-3.2-1b": _llama3(2048, 8192, 16, 32, 64, _ROPE_32, tied=True),
    "llama-3.2-3b": _llama3(3072, 8192, 28, 24, 128, _ROPE_32, tied=True),
    "llama-3.1-8b": _llama3(4096, 14_336, 32, 32, 128, _ROPE_31, tied=False),
    "llama-3.1-70b": _llama3(8192, 28_672, 80, 64, 128, _ROPE_31, tied=False),
    "qwen2.5-0.5b": _qwen("qwen2", 896, 4864, 24, 14, 2, 64, vocabulary=151_936, length=32_768, tied=True),
    "qwen2.5-7b": _qwen("qwen2", 3584, 18_944, 28, 28, 4, 128, vocabulary=152_064, length=32_768, tied=False),
    "qwen3-4b": _qwen("qwen3", 2560, 9728, 36, 32, 8, 128, vocabulary=151_936, length=40_960, tied=True),
    "qwen3-8b": _qwen("qwen3", 4096, 12_288, 36, 32, 8, 128, vocabulary=151_936, length=40_960, tied=False),
}


def network(name: str) -> LlamaConfig:
    """Return the shape of that name, or of a `config.json` or the directory that holds one.

    Raises BadInput for a name that is neither, ModelError for a file that describes no network that is computed here.
    """
    if name in SHAPES:
        return SHAPES[name]
    if not Path(name).exists():
        raise BadInput(
            f"--model={name}: no such file, and no shape of that name: expected {', '.join(SHAPES)}, "
            "a config.json, or a directory that holds one"
        )
    return from_hf(name)
