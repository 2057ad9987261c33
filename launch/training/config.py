"""Everything a training run can be told, as frozen dataclasses, and the presets that give their defaults."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.types import BadInput, BenchmarkName
from launch.common.flags import FLAT
from launch.common.settings import (
    EMBEDDED,
    EMBEDDED_FRONTEND,
    PROMPT_DATE,
    SCRATCH,
    Critic,
    Design,
    Evaluation,
    Hosts,
    Lora,
    Policy,
    Ranking,
    Rollouts,
    Start,
    check_date,
)
from launch.common.simulator import Simulator

Algorithm = Literal["sweet", "mtdpo", "rft", "zero-shot"]
STAGES = (
    "tasks",
    "start",
    "rollouts",
    "grading",
    "pairs",
    "critic",
    "candidates",
    "ranking",
    "turn-pairs",
    "policy",
    "evaluation",
)
"""In order. "start" makes the start policy with --model=scratch and is skipped for any other model."""

StageName = Literal[
    "all",
    "tasks",
    "start",
    "rollouts",
    "grading",
    "pairs",
    "critic",
    "candidates",
    "ranking",
    "turn-pairs",
    "policy",
    "evaluation",
]
PresetName = Literal["embedded", "paper-backend", "paper-frontend", "released-backend", "tiny"]
READS: Mapping[str, tuple[str, ...]] = {
    "rollouts": ("tasks",),
    "grading": ("rollouts",),
    "pairs": ("grading",),
    "critic": ("pairs",),
    "candidates": ("grading",),
    "ranking": ("critic", "candidates"),
    "turn-pairs": ("ranking",),
}
"""The stages whose files a stage reads; "policy" and "evaluation" read what the algorithm says."""

MINI_TASKS = 800  # of the miniature, to train on


@dataclass(frozen=True)
class TrainConfig:
    """SWEET-RL from dialogues to a trained policy; without flags the embedded miniature of ColBench.

    benchmark: "backend" (Python functions) or "frontend" (web pages).
    mesh: DATAxTENSOR devices, or data:2,sequence:2,tensor:2, which also splits the tokens of a row. run_dir: where
    everything goes; run again to continue.
    model: "embedded" or "embedded-frontend" (the small start policies that come with the package), "scratch" (train
    that start policy here), or a Hugging Face directory of a Llama model. preset: where the defaults below come from.
    stage: all of them, or one whose inputs are in the run directory.
    tasks, eval_tasks: JSON Lines of tasks; without them the miniature makes its own. num_tasks: how many of the tasks
    are used, 0 for all of the file. trajectories, pairs, candidates, turn_pairs: start from this file, in our layout or
    the released one, in place of the stage that would write it (rollouts, pairs, candidates, turn-pairs).
    simulator: who answers the agent.
    agent_prompt: "none", the name of a prompt in colbench_env/prompts, or a file with the system prompt. prompt_date:
    what chat templates show that ask for today's date; the same on every day, so that prompts are.
    compute_dtype: of activations; parameters and optimiser are float32. attention: the kernel in training, scoring and
    prefill; "auto" is splash on TPU, cudnn on GPU in bfloat16, else xla. remat: what the backward pass computes again:
    all of a layer ("full"), all but attention, all but products with weights ("dots"), nothing ("none").
    sampler_mesh: "same" samples on the training mesh with weights split over its tensor axis; "rows" gives every device
    the whole model and rows of its own (small models).
    grader_workers: answers graded side by side. unsafe: grade even where nothing isolates the answers.
    """

    benchmark: BenchmarkName = "backend"
    mesh: str = "1x1"
    run_dir: Path = Path("runs/default")
    model: str = EMBEDDED
    algorithm: Algorithm = "sweet"
    stage: StageName = "all"
    preset: PresetName = "embedded"
    seed: int = 42
    tasks: Path | None = None
    eval_tasks: Path | None = None
    trajectories: Path | None = None
    pairs: Path | None = None
    candidates: Path | None = None
    turn_pairs: Path | None = None
    num_tasks: int = 0
    simulator: Annotated[Simulator, FLAT] = field(default_factory=Simulator)
    agent_prompt: str = "none"
    prompt_date: str = PROMPT_DATE
    grader: Literal["strict", "official"] = "strict"
    grader_workers: int = 2
    unsafe: bool = False
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["auto", "xla", "splash", "cudnn"] = "auto"
    remat: Literal["none", "full", "attention", "dots"] = "full"
    sampler_mesh: Literal["same", "rows"] = "same"
    hosts: Hosts = field(default_factory=Hosts)
    lora: Lora = field(default_factory=Lora)
    start: Start = field(default_factory=Start)
    rollouts: Rollouts = field(default_factory=Rollouts)
    critic: Critic = field(default_factory=Critic)
    ranking: Ranking = field(default_factory=Ranking)
    policy: Policy = field(default_factory=Policy)
    evaluation: Evaluation = field(default_factory=Evaluation)
    design: Design = field(default_factory=Design)

    def __post_init__(self) -> None:
        if self.num_tasks < 0 or self.grader_workers < 1:
            raise BadInput(
                f"num_tasks is {self.num_tasks} and grader_workers {self.grader_workers}: at least 0 (all), and at "
                "least 1"
            )
        check_date("prompt_date", self.prompt_date)
        self.simulator.check_for(self.benchmark, self.rollouts.max_turns)
        if self.benchmark == "frontend" and self.preset in ("paper-backend", "released-backend"):
            raise BadInput(f"--preset={self.preset} is for backend tasks, frontend has --preset=paper-frontend")
        wrong, right = (EMBEDDED, EMBEDDED_FRONTEND) if self.benchmark == "frontend" else (EMBEDDED_FRONTEND, EMBEDDED)
        if self.model == wrong:
            raise BadInput(f"--model={wrong}: it plays the other benchmark, --benchmark={self.benchmark} has {right}")
        if self.rollouts.rows % self.ranking.candidates:
            raise BadInput(
                f"rollouts.rows is {self.rollouts.rows}, it must be a multiple of ranking.candidates "
                f"{self.ranking.candidates}"
            )
        for name, stage in (("pairs", "pairs"), ("candidates", "candidates"), ("turn_pairs", "turn-pairs")):
            used_by = ("sweet", "mtdpo") if name == "pairs" else ("sweet",)
            if self.given(stage) is not None and self.algorithm not in used_by:
                raise BadInput(f"{name} is {self.given(stage)}, which --algorithm={self.algorithm} does not read")
        if self.critic.parameterisation == "value-head" and self.critic.nll_coef:
            raise BadInput(
                f"critic.nll_coef is {self.critic.nll_coef}, a critic with a value head has no NLL: it must be 0"
            )

    def given(self, stage: str) -> Path | None:
        """The file that the user gave in place of what the stage would write."""
        files = {
            "rollouts": self.trajectories, "pairs": self.pairs, "candidates": self.candidates,
            "turn-pairs": self.turn_pairs,
        }  # fmt: skip
        return files.get(stage)

    def reads(self, stage: str) -> tuple[str, ...]:
        """The stages whose files this one reads; none where it takes a file of the user's."""
        if self.given(stage) is not None:
            return ()
        trains_on = {"sweet": "turn-pairs", "mtdpo": "pairs", "rft": "grading", "zero-shot": "tasks"}[self.algorithm]
        by_algorithm = {
            "policy": (trains_on,),
            "evaluation": ("tasks",) if self.algorithm == "zero-shot" else ("tasks", "policy"),
        }
        return by_algorithm[stage] if stage in by_algorithm else READS.get(stage, ())

    @property
    def embedded(self) -> bool:
        """Whether the model is the miniature's own."""
        return self.model in (EMBEDDED, EMBEDDED_FRONTEND, SCRATCH)


def settings_of(config: TrainConfig) -> dict[str, object]:
    """The configuration as plain JSON values, without what may differ between two starts of the same run."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    for name in ("run_dir", "stage", "grader_workers", "hosts"):
        del plain[name]
    plain["design"] |= {"chromium": None, "assets": None, "pages": Design().pages}
    del plain["critic"]["without_pairs"]  # changes nothing that is already there
    for name in ("human_key", "human_timeout", "human_retries", "attempts", "in_flight"):
        del plain["simulator"][name]
    return plain
