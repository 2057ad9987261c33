"""Everything that `launch.rank` can be told; imports no jax."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.types import BadInput
from launch.common.flags import ADVANCED
from launch.common.settings import Hosts, check_drawing


@dataclass(frozen=True)
class RankConfig:
    """Sample candidates for each turn of graded dialogues, score them by the critic, pair better and worse turns."""

    critic: Path
    """Run directory of launch.train with a trained critic, its stage (runs/x/critic), or a Hugging Face directory."""
    output: Path
    """Directory that will hold candidates/, ranking/ and turn-pairs/; run again to continue."""
    model: str = ""
    """Hugging Face directory of the base policy, which samples and is the reference; empty: the critic's run's."""
    trajectories: Path | None = None
    """Graded dialogues."""
    candidates: Path | None = None
    """A file of candidates instead, in our layout or the released one."""
    samples: int = 16
    """Candidates of each turn."""
    pairs: int = 4
    """Pairs drawn among the candidates of a turn."""
    data_fraction: float = 1.0
    """Fraction of the dialogues, the first ones, whose turns are used."""
    aggregation: Literal["", "turn-mean", "token-mean", "sum"] = ""
    """How log-ratios become an advantage, for a critic in a Hugging Face directory; empty: as its run or turn-mean."""
    privileged: Literal["", "yes", "no"] = ""
    """Whether such a critic sees the reference solution; empty: as in its run, else yes."""
    max_length: int = 0
    """Tokens of a row at most, for such a critic; 0: as in its run, else 8192."""
    reference_context: Literal["privileged", "public"] = "privileged"
    """Whether the reference sees the reference solution, too."""
    agent_prompt: str = "none"
    """System prompt of the agent: none, a name in colbench_env/prompts, or a file."""
    mesh: str = "1x1"
    """DATAxTENSOR devices."""
    max_new_tokens: int = 0
    """Tokens of a candidate at most; 0: as in the critic's run, else 1024."""
    rows: int = 32
    """Candidates that are sampled side by side."""
    temperature: float = 1.0
    """Sampling temperature; 0: greedy."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations."""
    seed: int = 42
    """Seed of sampling and of the pairs."""
    plugin: Annotated[str | None, ADVANCED] = None
    """Modules (FILE.py, module, entry point) that bring families of models: docs/plugins.md."""
    hosts: Annotated[Hosts, ADVANCED] = field(default_factory=Hosts)

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
