"""Everything that `launch.convert` can be told; imports no jax."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from launch.common.settings import Hosts


@dataclass(frozen=True)
class ConvertConfig:
    """Writes a checkpoint as a Hugging Face directory for transformers and vLLM, or such a directory as a checkpoint.

    source: a run directory (its trained policy), one of its stages (runs/x/policy, runs/x/critic), or a Hugging Face
    directory. to: the directory to make; there must be none. dtype: of the weights written; "same" as they are (a
    checkpoint made from a Hugging Face directory is float32, as in training). mesh: the devices that hold the weights,
    DATAxTENSOR; one device is enough, as parameters are read one after another. lora: of a stage that trained adapters,
    the network with the adapters added to its weights ("merged"; "same" dtype is that of its files), or the adapters
    alone in PEFT's layout ("adapter"). hosts: as in launch.train, where one host cannot hold a parameter.
    """

    source: Annotated[Path, tyro.conf.arg(name="from")]
    to: Path
    dtype: Literal["same", "float32", "bfloat16"] = "same"
    mesh: str = "1x1"
    lora: Literal["merged", "adapter"] = "merged"
    hosts: Hosts = field(default_factory=Hosts)
