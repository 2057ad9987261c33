"""Everything a training run can be told, as frozen dataclasses, and the presets that give their defaults."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.types import BadInput, BenchmarkName
from launch.common.flags import ADVANCED, FILE_ONLY, FLAT, Only, Unless
from launch.common.settings import (
    EMBEDDED,
    EMBEDDED_DIRECTORIES,
    EMBEDDED_FRONTEND,
    EMBEDDED_SCENES,
    PROMPT_DATE,
    SCRATCH_SCENES,
    TRAINED_HERE,
    Critic,
    Design,
    Evaluation,
    Hosts,
    Lora,
    Policy,
    Ranking,
    Rollouts,
    Start,
    ToyName,
    Truth,
    check_date,
    toy_of,
)
from launch.common.simulator import Simulator
from launch.common.tracker_names import DEFAULT_PROJECT, NO_TRACKER, tracker_names

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
    "truth",
    "turn-pairs",
    "policy",
    "selection",
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
    "truth",
    "turn-pairs",
    "policy",
    "selection",
    "evaluation",
]
PresetName = Literal["embedded", "scenes", "paper-backend", "paper-frontend", "released-backend", "tiny"]
READS: Mapping[str, tuple[str, ...]] = {
    "rollouts": ("tasks",),
    "grading": ("rollouts",),
    "pairs": ("grading",),
    "critic": ("pairs",),
    "candidates": ("grading",),
    "truth": ("grading", "ranking"),
    "turn-pairs": ("ranking",),
}
"""The stages whose files a stage reads; "policy" and "evaluation" read what the algorithm says."""

GIVEN: Mapping[str, str] = {
    "rollouts": "trajectories",
    "pairs": "pairs",
    "candidates": "candidates",
    "turn-pairs": "turn_pairs",
}
"""Stage -> the setting that names a file of the user's in place of what the stage would write."""

MINI_TASKS = 800  # of the miniature, to train on
AUTO = "auto"


@dataclass(frozen=True)
class TrainConfig:
    """Train by SWEET-RL, from dialogues to a policy; without flags the embedded miniature of ColBench."""

    benchmark: BenchmarkName = "backend"
    """Python functions, or web pages."""
    mesh: str = AUTO
    """DATAxTENSOR devices, or data:2,sequence:2,tensor:2, which splits a row's tokens; auto: all, of a CPU two."""
    run_dir: Path = Path("runs/default")
    """Directory of the run; the same command again goes on where it was."""
    model: str = EMBEDDED
    """embedded, embedded-scenes, embedded-frontend (in the package), scratch, scratch-scenes (made here), or a path."""
    algorithm: Algorithm = "sweet"
    """SWEET-RL, multi-turn DPO, rejection fine-tuning, or the base policy alone."""
    stage: StageName = "all"
    """All stages, or one whose inputs are in the run directory."""
    iterations: int = 1
    """Times that dialogues are played and a policy is trained, each time from the policy of the time before."""
    preset: PresetName = "embedded"
    """Where the defaults of all other settings come from."""
    seed: int = 42
    """Seed of tasks, sampling and batches."""
    tasks: Path | None = None
    """JSON Lines of tasks to train on; none: the miniature makes its own."""
    eval_tasks: Path | None = None
    """JSON Lines of held-out tasks; none: the rows of the tasks after the first num_tasks."""
    validation_tasks: Annotated[Path | None, ADVANCED] = None
    """JSON Lines of tasks on which checkpoints are compared (policy.select); none: the miniature makes its own."""
    trajectories: Path | None = None
    """Dialogues to start from in place of own ones, in our layout or the released one."""
    pairs: Annotated[Path | None, ADVANCED, Only(algorithm=("sweet", "mtdpo"))] = None
    """Pairs of dialogues to start from, in our layout or the released one."""
    candidates: Annotated[Path | None, ADVANCED, Only(algorithm="sweet")] = None
    """Candidates of turns to start from, in our layout or the released one."""
    turn_pairs: Annotated[Path | None, ADVANCED, Only(algorithm="sweet")] = None
    """Pairs of turns to start from, in our layout or the released one."""
    toy: Annotated[ToyName, ADVANCED] = "auto"
    """Toy benchmark whose tasks are played where none are given: the one the model was made for, or another."""
    num_tasks: int = 0
    """Tasks to train on; 0: all of the file."""
    plugin: Annotated[str | None, ADVANCED] = None
    """Modules (FILE.py, module, entry point) with tasks, user simulator, reward, critic, family: docs/plugins.md."""
    simulator: Annotated[Simulator, FLAT] = field(default_factory=Simulator)
    agent_prompt: str = "none"
    """System prompt of the agent: none, a name in colbench_env/prompts, or a file."""
    prompt_date: Annotated[str, ADVANCED] = PROMPT_DATE
    """Date that chat templates show which ask for today's; the same on every day, so that prompts are."""
    grader: Literal["strict", "official", "plugin"] = "strict"
    """Answers are run as modules, or as the released grader does; or a plugin's function gives the reward."""
    grader_workers: Annotated[int, ADVANCED] = 2
    """Answers graded side by side."""
    unsafe: Annotated[bool, ADVANCED] = False
    """Grade even where nothing isolates the answers."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations; parameters and optimiser are float32."""
    attention: Annotated[Literal["auto", "xla", "splash", "cudnn"], ADVANCED] = "auto"
    """Kernel in training and scoring; auto: splash on TPU, cudnn on GPU in bfloat16, else xla."""
    remat: Literal["none", "full", "attention", "dots"] = "full"
    """What the backward pass computes again: nothing, all, all but attention, all but products with weights."""
    sampler_mesh: Annotated[Literal["same", "rows"], ADVANCED] = "same"
    """Sample on the training mesh, or with the whole model on every device and rows of its own (small models)."""
    track: str = NO_TRACKER
    """Where metrics, results and the report go as well: wandb, mlflow, trackio, with commas between."""
    track_project: Annotated[str, Unless({"track": NO_TRACKER})] = DEFAULT_PROJECT
    """Project (wandb, trackio) or experiment (mlflow) that the run is in there."""
    hosts: Annotated[Hosts, ADVANCED] = field(default_factory=Hosts)
    lora: Annotated[Lora, Only(algorithm=("sweet", "mtdpo", "rft"))] = field(default_factory=Lora)
    start: Annotated[Start, FILE_ONLY] = field(default_factory=Start)
    rollouts: Rollouts = field(default_factory=Rollouts)
    critic: Annotated[Critic, Only(algorithm="sweet")] = field(default_factory=Critic)
    ranking: Annotated[Ranking, Only(algorithm="sweet")] = field(default_factory=Ranking)
    truth: Annotated[Truth, ADVANCED, Only(algorithm="sweet")] = field(default_factory=Truth)
    policy: Annotated[Policy, Only(algorithm=("sweet", "mtdpo", "rft"))] = field(default_factory=Policy)
    evaluation: Evaluation = field(default_factory=Evaluation)
    design: Annotated[Design, Only(benchmark="frontend")] = field(default_factory=Design)

    def __post_init__(self) -> None:
        if self.num_tasks < 0 or self.grader_workers < 1:
            raise BadInput(
                f"num_tasks is {self.num_tasks} and grader_workers {self.grader_workers}: at least 0 (all), and at "
                "least 1"
            )
        if self.iterations < 1:
            raise BadInput(f"iterations is {self.iterations}, it must be at least 1")
        given = {name: path for stage, name in GIVEN.items() if (path := self.given(stage)) is not None}
        if self.iterations > 1 and given:
            name, path = next(iter(given.items()))
            raise BadInput(
                f"iterations is {self.iterations} and {name} {path}: each iteration plays dialogues of its own with a "
                "user simulator; train on given files once, then start from that policy (--model=RUN/policy/model)"
            )
        if self.iterations > 1 and (self.stage != "all" or self.algorithm == "zero-shot"):
            raise BadInput(
                f"iterations is {self.iterations}: --stage={self.stage} --algorithm={self.algorithm} is not repeated"
            )
        check_date("prompt_date", self.prompt_date)
        tracker_names(self.track)
        self.simulator.check_for(self.benchmark, self.rollouts.max_turns)
        if self.benchmark == "frontend" and self.preset in ("paper-backend", "released-backend"):
            raise BadInput(f"--preset={self.preset} is for backend tasks, frontend has --preset=paper-frontend")
        backend, frontend = (EMBEDDED, EMBEDDED_SCENES, SCRATCH_SCENES), (EMBEDDED_FRONTEND,)
        wrong, right = (backend, EMBEDDED_FRONTEND) if self.benchmark == "frontend" else (frontend, EMBEDDED)
        if self.model in wrong:
            raise BadInput(
                f"--model={self.model}: it plays the other benchmark, --benchmark={self.benchmark} has {right}"
            )
        if self.truth.positions and (self.benchmark == "frontend" or self.simulator.human != "scripted"):
            raise BadInput(
                f"truth.positions is {self.truth.positions}: only the scripted user simulator of backend tasks can be "
                f"played on with, its facts are known (--benchmark={self.benchmark} --human={self.simulator.human})"
            )
        if self.policy.select == "validation" and self.tasks is not None and self.validation_tasks is None:
            raise BadInput(
                f"policy.select is 'validation' and tasks {self.tasks}: give --validation-tasks as well, which are "
                "neither trained on nor held out, or --policy.select=last"
            )
        for name, stage in (("pairs", "pairs"), ("candidates", "candidates"), ("turn_pairs", "turn-pairs")):
            used_by = ("sweet", "mtdpo") if name == "pairs" else ("sweet",)
            if self.given(stage) is not None and self.algorithm not in used_by:
                raise BadInput(f"{name} is {self.given(stage)}, which --algorithm={self.algorithm} does not read")
        if self.critic.has_head and self.critic.nll_coef:
            raise BadInput(
                f"critic.nll_coef is {self.critic.nll_coef}, a critic with a value head has no NLL: it must be 0"
            )
        if not self.critic.is_trained and not self.critic.privileged:
            raise BadInput(
                f"critic.parameterisation is {self.critic.parameterisation!r}, which reads the reference solution: "
                "privileged is needed"
            )
        if self.critic.parameterisation == "belief" and self.simulator.human not in ("scripted", "rules"):
            raise BadInput(
                "critic.parameterisation is 'belief', which asks the user simulator after every candidate: only "
                f"scripted and rules answer without a model (--human={self.simulator.human})"
            )

    def given(self, stage: str) -> Path | None:
        """Return the file that the user gave in place of what the stage would write."""
        return getattr(self, GIVEN[stage]) if stage in GIVEN else None

    def iteration(self, number: int) -> TrainConfig:
        """Return the settings of an iteration, from 1: each starts from the policy that the one before has trained."""
        if number == 1:
            return self
        before = self.run_dir if number == 2 else self.run_dir / f"iteration-{number - 1}"
        return dataclasses.replace(
            self,
            run_dir=self.run_dir / f"iteration-{number}",
            model=str(before / "policy" / "model"),
            toy=toy_of(self.model, self.toy),
        )

    def reads(self, stage: str) -> tuple[str, ...]:
        """Return the stages whose files this one reads; none where it takes a file of the user's."""
        if self.given(stage) is not None:
            return ()
        trains_on = {"sweet": "turn-pairs", "mtdpo": "pairs", "rft": "grading", "zero-shot": "tasks"}[self.algorithm]
        by_algorithm = {
            "ranking": ("critic", "candidates") if self.critic.is_trained else ("candidates",),
            "policy": (trains_on,),
            "selection": ("tasks", "policy"),
            "evaluation": ("tasks", self.policy_stage) if self.policy_stage else ("tasks",),
        }
        return by_algorithm[stage] if stage in by_algorithm else READS.get(stage, ())

    @property
    def policy_stage(self) -> str:
        """Return the stage that the trained policy comes from; "" where none is trained."""
        if self.algorithm == "zero-shot":
            return ""
        on_toy = self.policy.select == "auto" and (self.tasks is None or self.validation_tasks is not None)
        return "selection" if on_toy or self.policy.select == "validation" else "policy"

    @property
    def embedded(self) -> bool:
        """Whether the model is the miniature's own."""
        return self.model in (*EMBEDDED_DIRECTORIES, *TRAINED_HERE)


def settings_of(config: TrainConfig) -> dict[str, object]:
    """Return the configuration as plain JSON values, without what may differ between two starts of the same run."""
    plain = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    for name in ("run_dir", "stage", "iterations", "grader_workers", "hosts", "truth", "track", "track_project"):
        del plain[name]
    plain["design"] |= {"chromium": None, "assets": None, "pages": Design().pages}
    del plain["critic"]["without_pairs"]  # changes nothing that is already there
    for name in ("human_key", "human_timeout", "human_retries", "attempts", "in_flight"):
        del plain["simulator"][name]
    return plain
