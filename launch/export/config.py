"""Everything that `launch.convert` can be told; imports no jax."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from launch.common.flags import ADVANCED
from launch.common.settings import Hosts


@dataclass(frozen=True)
class ConvertConfig:
    """Write a checkpoint as a Hugging Face directory for transformers and vLLM, or such a directory as a checkpoint."""

    source: Annotated[Path, tyro.conf.arg(name="from")]
    """Run directory (its trained policy), one of its stages (runs/x/policy, runs/x/critic), or Hugging Face one."""
    to: Path
    """Directory to make; there must be none."""
    dtype: Literal["same", "float32", "bfloat16"] = "same"
    """Type of the weights written; same: as they are (a checkpoint of a Hugging Face directory is float32)."""
    mesh: str = "1x1"
    """DATAxTENSOR devices that hold the weights; one is enough, as parameters are read one after another."""
    lora: Literal["merged", "adapter"] = "merged"
    """Of a stage that trained adapters: the network with them added to its weights, or they alone in PEFT's layout."""
    plugin: Annotated[str | None, ADVANCED] = None
    """Modules (FILE.py, module, entry point) that bring families of models: docs/plugins.md."""
    hosts: Annotated[Hosts, ADVANCED] = field(default_factory=Hosts)
