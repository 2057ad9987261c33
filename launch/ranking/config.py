"""Everything that `launch.rank` can be told; imports no jax."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from colbench_env.types import BadInput
from launch.common.settings import Hosts, check_drawing


@dataclass(frozen=True)
class RankConfig:
    """Candidates for each agent turn of graded dialogues, the critic's scores, and pairs of a better and a worse turn.

    critic: a run directory of launch.train with a trained critic, its stage (runs/x/critic), or a Hugging Face
    directory. model: the Hugging Face directory of the start policy, which samples candidates and is the reference;
    a critic of a run knows its own.
    trajectories: graded dialogues; candidates: a file of candidates instead, in our layout or the released one.
    output: a directory that will hold candidates/, ranking/ and turn-pairs/; run again to continue.
    samples: candidates of each turn; pairs: drawn among them. data_fraction: share of the trajectories, from the first
    on, whose turns are used.
    aggregation, privileged, max_length: of a critic in a Hugging Face directory ("" and 0: as the run was told, else
    turn-mean, with the reference solution, 8192 tokens). reference_context: whether the reference sees the reference
    solution, too. max_new_tokens, rows, temperature: of the sampler; 0 new tokens is as the critic's run had it, else
    1024.
    """

    critic: Path
    output: Path
    model: str = ""
    trajectories: Path | None = None
    candidates: Path | None = None
    samples: int = 16
    pairs: int = 4
    data_fraction: float = 1.0
    aggregation: Literal["", "turn-mean", "token-mean", "sum"] = ""
    privileged: Literal["", "yes", "no"] = ""
    max_length: int = 0
    reference_context: Literal["privileged", "public"] = "privileged"
    agent_prompt: str = "none"
    mesh: str = "1x1"
    max_new_tokens: int = 0
    rows: int = 32
    temperature: float = 1.0
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 42
    hosts: Hosts = field(default_factory=Hosts)

    def __post_init__(self) -> None:
        if (self.trajectories is None) == (self.candidates is None):
            given = "neither" if self.trajectories is None else "both"
            raise BadInput(f"--trajectories or --candidates is wanted, and {given} of them was given")
        for least, names in ((1, ("pairs", "rows")), (2, ("samples",)), (0, ("max_length", "max_new_tokens"))):
            for name in names:
                if getattr(self, name) < least:
                    raise BadInput(f"{name} is {getattr(self, name)}, it must be at least {least}")
        if self.rows % self.samples:
            raise BadInput(f"rows is {self.rows}, it must be a multiple of samples {self.samples}")
        if not 0 < self.data_fraction <= 1:
            raise BadInput(f"data_fraction is {self.data_fraction}, it must be above 0 and at most 1")
        check_drawing("", self.temperature)
