"""Everything that `launch.plan` can be told; imports no jax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from colbench_env.types import BadInput
from launch.common.flags import Only

LENGTHS = {"critic": 8192, "policy": 16_384, "score": 16_384, "sample": 4096}  # tokens of a row; of a prompt to sample


@dataclass(frozen=True)
class PlanConfig:
    """Compile one stage of the pipeline for TPUs or GPUs that need not be there, and say what it needs."""

    model: str = "llama-3.1-8b"
    """llama-3.1-8b, qwen2.5-7b, qwen3-4b or another (a wrong name lists all), a config.json, or its directory."""
    plugin: str | None = None
    """Modules (FILE.py, module, entry point) that bring families of models: docs/plugins.md."""
    stage: Literal["critic", "policy", "score", "sample"] = "critic"
    """A training step, log-probs of a batch, or turns after prompts."""
    topology: str = "v5e:4x4"
    """GENERATION:LAYOUT with v4, v5e, v5p, v6e or tpu7x; h100:8 is eight 80 GB GPUs."""
    mesh: str = "8x2"
    """DATAxTENSOR or data:4,sequence:2,tensor:2; its size is the slice's."""
    search: bool = False
    """Try meshes and micro-batches instead, and name the best that fits."""
    tries: int = 8
    """Programs that a search compiles at most."""
    batch_size: int = 8
    """Pairs in a batch; a batch to score has twice as many rows."""
    micro_batches: int = 1
    """Parts that a batch is computed in."""
    max_length: int = 0
    """Tokens of a row (0: 8192 for the critic, 16,384 for policy and score) or of a prompt to sample (0: 4096)."""
    rows: Annotated[int, Only(stage="sample")] = 64
    """Dialogues that are sampled side by side."""
    samples: Annotated[int, Only(stage="sample")] = 1
    """Dialogues that share a prompt."""
    new_tokens: Annotated[int, Only(stage="sample")] = 1024
    """Tokens of a turn at most."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of activations."""
    remat: Literal["none", "full", "attention", "dots"] = "full"
    """What the backward pass computes again: nothing, all, all but attention, all but products with weights."""
    attention: Literal["auto", "splash", "cudnn", "xla"] = "auto"
    """Attention kernel (auto: splash for TPUs, cuDNN's for GPUs)."""
    moment_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of Adam's moments."""
    lora_rank: int = 0
    """Rank of adapters on all matrices; 0: all weights are trained."""
    steps: int = 0
    """Times that the program runs: the plan gives hours, too. For turns a batch of them is one."""
    utilisation: float = 0.4
    """For the hours: useful FLOPs over the chips' peak, an assumption of yours."""
    chip_hour_price: float = 0.0
    """Of one chip for an hour, in whatever you pay: the plan gives the cost, too."""
    json: bool = False
    """Print one JSON object instead of text."""
    markdown: bool = False
    """Print one row of a table instead of text."""

    def __post_init__(self) -> None:
        for name in ("tries", "batch_size", "micro_batches", "rows", "samples", "new_tokens"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least 1")
        for name in ("max_length", "lora_rank", "steps", "chip_hour_price"):
            if not getattr(self, name) >= 0:
                raise BadInput(f"{name} is {getattr(self, name)}, it must not be negative")
        if not 0 < self.utilisation <= 1:
            raise BadInput(f"utilisation is {self.utilisation}, it must be above 0 and at most 1")
        if self.chip_hour_price and not self.steps:
            raise BadInput("--chip-hour-price needs --steps: there is no cost of a single step")
        if self.json and self.markdown:
            raise BadInput("--json and --markdown are two ways to print the same: give one of them")

    @property
    def tokens(self) -> int:
        """Of a row, or of a prompt."""
        return self.max_length or LENGTHS[self.stage]

    @property
    def trains(self) -> bool:
        return self.stage in ("critic", "policy")
