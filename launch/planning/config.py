"""Everything that `launch.plan` can be told; imports no jax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from colbench_env.types import BadInput

LENGTHS = {"critic": 8192, "policy": 16_384, "score": 16_384, "sample": 4096}  # tokens of a row; of a prompt to sample


@dataclass(frozen=True)
class PlanConfig:
    """Compiles one stage of the pipeline for a TPU slice that need not be there, and says what it needs.

    model: a shape by name (llama-3.1-8b, llama-3.1-70b, llama-3.2-1b, llama-3.2-3b), a config.json or its directory.
    stage: "critic", "policy" (a training step), "score" (log-probs of a batch), "sample" (turns after prompts).
    topology: GENERATION:LAYOUT with v4, v5e, v5p, v6e or tpu7x, as v5e:4x4; h100:8 estimates eight 80 GB GPUs.
    mesh: DATAxTENSOR or data:4,sequence:2,tensor:2; its size is the slice's. search: try meshes and micro-batches
    instead, compiling at most `tries`, and name the best that fits.
    batch_size: pairs; a score batch has twice as many rows. max_length: tokens of a row (0: 8192 for the critic, 16,384
    for policy and score) or of a prompt (sample; 0: 4096). rows, samples, new_tokens: of the sampler's batch: dialogues
    side by side, how many of them share a prompt, and the longest turn.
    compute_dtype, remat, attention: as in launch.train; sampling reads its prompts with the same attention.
    moment_dtype: of Adam's moments. lora_rank: 0 trains all weights, more trains adapters of that rank on all matrices.
    json, markdown: print one JSON object, or one row of a table, instead of text.
    """

    model: str = "llama-3.1-8b"
    stage: Literal["critic", "policy", "score", "sample"] = "critic"
    topology: str = "v5e:4x4"
    mesh: str = "8x2"
    search: bool = False
    tries: int = 8
    batch_size: int = 8
    micro_batches: int = 1
    max_length: int = 0
    rows: int = 64
    samples: int = 1
    new_tokens: int = 1024
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    remat: Literal["none", "full", "attention", "dots"] = "full"
    attention: Literal["splash", "xla"] = "splash"
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    lora_rank: int = 0
    json: bool = False
    markdown: bool = False

    def __post_init__(self) -> None:
        for name in ("tries", "batch_size", "micro_batches", "rows", "samples", "new_tokens"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least 1")
        for name in ("max_length", "lora_rank"):
            if getattr(self, name) < 0:
                raise BadInput(f"{name} is {getattr(self, name)}, it must not be negative")
        if self.json and self.markdown:
            raise BadInput("--json and --markdown are two ways to print the same: give one of them")

    @property
    def tokens(self) -> int:
        """Of a row, or of a prompt."""
        return self.max_length or LENGTHS[self.stage]

    @property
    def trains(self) -> bool:
        return self.stage in ("critic", "policy")
