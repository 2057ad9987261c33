"""What several commands and the stages of a training run can be told, as frozen dataclasses; imports no jax."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.types import BadInput
from launch.common.flags import ADVANCED, FLAT, SHARED, Unless
from sweet_jax.train.settings import Training

PROMPT_DATE = "2024-07-26"  # what Llama 3's templates show where nothing tells them the date
FailedRule = Literal["zero", "black"]
EMBEDDED, EMBEDDED_FRONTEND, EMBEDDED_SCENES = "embedded", "embedded-frontend", "embedded-scenes"
SCRATCH, SCRATCH_SCENES = "scratch", "scratch-scenes"
TRAINED_HERE = (SCRATCH, SCRATCH_SCENES)  # by stage "start"
Toy = Literal["miniature", "scenes"]
CriticKind = Literal["log-ratio", "value-head", "prefix-value", "pmi", "belief", "judge", "plugin"]
UNTRAINED = ("pmi", "belief", "judge", "plugin")


ToyName = Literal["auto", "miniature", "scenes"]


def toy_of(model: str, toy: ToyName = "auto") -> Toy:
    """Return the toy benchmark that is played where nobody gives backend tasks; auto: the model's own."""
    if toy != "auto":
        return toy
    return "scenes" if model in (EMBEDDED_SCENES, SCRATCH_SCENES) else "miniature"


def check_date(name: str, value: str) -> None:
    """Raise BadInput unless the value is a date as 2024-07-26."""
    try:
        datetime.date.fromisoformat(value)
    except ValueError as error:
        raise BadInput(f"{name} is {value!r}, expected a date as {PROMPT_DATE}") from error


def check_drawing(prefix: str, temperature: float, top_k: int = 0, top_p: float = 1.0, max_new_tokens: int = 1) -> None:
    """BadInput unless tokens can be drawn so; `prefix` is that of the settings' names."""
    if not 0 <= temperature < math.inf:
        raise BadInput(f"{prefix}temperature is {temperature}, it must be finite and not negative")
    if top_k < 0 or not 0 < top_p <= 1:
        raise BadInput(
            f"{prefix}top_k is {top_k} and {prefix}top_p {top_p}: at least 0 (off), and above 0 and at most 1 (off)"
        )
    if max_new_tokens < 1:
        raise BadInput(f"{prefix}max_new_tokens is {max_new_tokens}, it must be at least 1")


def _check_loss(prefix: str, beta: float, nll_coef: float, label_smoothing: float) -> None:
    if not (0 < beta < math.inf and 0 <= nll_coef < math.inf and 0 <= label_smoothing < 0.5):
        raise BadInput(
            f"{prefix}beta is {beta}, {prefix}nll_coef {nll_coef} and {prefix}label_smoothing {label_smoothing}: above "
            "0, at least 0, and at least 0 and below 0.5"
        )


@dataclass(frozen=True)
class Start:
    """Training of the miniature's base policy on scripted dialogues (only with --model=scratch)."""

    dialogues: int = 12_800
    """Dialogues that are written and trained on, all their tokens."""
    privileged_fraction: float = 0.5
    """Fraction of them that begins with the reference solution, as the critic's rows do, so that the model reads it."""
    training: Annotated[Training, FLAT] = field(
        default_factory=lambda: Training(
            batch_size=32, epochs=4, max_length=256, log_every=20, save_every=200, learning_rate=2e-3
        )
    )

    def __post_init__(self) -> None:
        if self.dialogues < 1:
            raise BadInput(f"start.dialogues is {self.dialogues}, it must be at least 1")
        if not 0 <= self.privileged_fraction <= 1:
            raise BadInput(
                f"start.privileged_fraction is {self.privileged_fraction}, it must be at least 0 and at most 1"
            )


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in place of all weights (arXiv:2106.09685), for critic and policy.

    The frozen network is held in compute_dtype and is the reference as well: no second copy.
    """

    rank: int = 0
    """Rank of the adapters; 0: all weights are trained."""
    alpha: Annotated[float, ADVANCED, Unless({"lora.rank": "0"})] = 32.0
    """Adapters are scaled by alpha / rank."""
    targets: Annotated[
        tuple[Literal["q", "k", "v", "o", "gate", "up", "down"], ...], ADVANCED, Unless({"lora.rank": "0"})
    ] = (
        "q", "k", "v", "o", "gate", "up", "down",
    )  # fmt: skip
    """Weights that have adapters."""

    def __post_init__(self) -> None:
        if self.rank < 0 or not self.alpha > 0:
            raise BadInput(f"lora.rank is {self.rank} and lora.alpha {self.alpha}: at least 0, and above 0")
        if not self.targets:
            raise BadInput("lora.targets is empty: name at least one weight")


@dataclass(frozen=True)
class Rollouts:
    """Dialogues of the base policy with the user simulator."""

    samples: int = 3
    """Dialogues about each task."""
    max_turns: int = 10
    """Agent turns at most; presets of the miniature have 8 (backend) or 4 (frontend), others the paper's 10."""
    max_new_tokens: int = 1024
    """Tokens of an agent turn at most."""
    rows: int = 32
    """Dialogues that are sampled side by side."""
    temperature: float = 1.0
    """Sampling temperature; 0: greedy."""
    top_k: Annotated[int, ADVANCED] = 0
    """Sample among the k likeliest tokens; 0: all."""
    top_p: Annotated[float, ADVANCED] = 1.0
    """Sample among the likeliest tokens of this probability together; 1: all."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_turns", "rows"):
            if getattr(self, name) < 1:
                raise BadInput(f"rollouts.{name} is {getattr(self, name)}, it must be at least 1")
        check_drawing("rollouts.", self.temperature, self.top_k, self.top_p, self.max_new_tokens)


@dataclass(frozen=True)
class Critic:
    """The step-level critic (section 4.1 of the paper)."""

    aggregation: Literal["turn-mean", "token-mean", "sum"] = "turn-mean"
    """How the log-ratios of a turn's tokens become its advantage."""
    parameterisation: CriticKind = "log-ratio"
    """Log-ratios of the LM head, a regression head, a value of every prefix; untrained: pmi, belief, judge, plugin."""
    privileged: bool = True
    """The critic sees the reference solution."""
    beta: float = 0.1
    """Scale of the log-ratios in the loss; 0: that of 0.1, 0.3, 1 and 3 which foretells held-out pairs best."""
    nll_coef: Annotated[float, ADVANCED] = 0.01
    """Weight of the chosen rows' negative log-likelihood; 0 with a value head."""
    label_smoothing: Annotated[float, ADVANCED] = 0.0
    """Probability that a preference is the wrong way round, 0 to 0.5."""
    without_pairs: Annotated[Literal["stop", "hindsight"], ADVANCED] = "stop"
    """Where no task has a better and a worse sample: stop, or score turns by a base policy that sees the reference."""
    training: Annotated[Training, FLAT, SHARED] = field(default_factory=lambda: Training(epochs=4, max_length=8192))

    def __post_init__(self) -> None:
        _check_loss("critic.", self.beta or 1.0, self.nll_coef, self.label_smoothing)
        if self.beta == 0 and self.parameterisation != "log-ratio":
            raise BadInput(f"critic.beta is 0, to be chosen, which only log-ratio has and not {self.parameterisation}")

    @property
    def has_head(self) -> bool:
        """Whether it reads values off a head of its own, so that there are no log-ratios."""
        return self.parameterisation in ("value-head", "prefix-value")

    @property
    def is_trained(self) -> bool:
        """Whether it learns from pairs."""
        return self.parameterisation not in UNTRAINED


@dataclass(frozen=True)
class Ranking:
    """Candidates for each agent turn and the pairs among them (section 4.2 of the paper)."""

    candidates: int = 16
    """Turns sampled in each position."""
    data_fraction: float = 0.1
    """Fraction of the dialogues, the first ones, whose turns are used."""
    num_pairs: Annotated[int, ADVANCED] = 4
    """Pairs drawn among the candidates of a turn."""
    reference_context: Annotated[Literal["privileged", "public"], ADVANCED] = "privileged"
    """Whether the frozen reference model sees the reference solution; public, as in the released code: no."""
    min_gap: Annotated[float, ADVANCED] = 0.0
    """Least difference of the scores of a pair; 0: any, as in the paper."""
    clip_scores: Annotated[float, ADVANCED] = 0.0
    """Scores are cut to minus and plus this before turns are paired; 0: not, as in the paper."""
    keep_ties: Annotated[bool, ADVANCED] = False
    """Where no two turns differ by min_gap, the policy's NLL still sees the best ones."""

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise BadInput(f"ranking.candidates is {self.candidates}, it must be at least 2 to make a pair")
        if self.num_pairs < 1:
            raise BadInput(f"ranking.num_pairs is {self.num_pairs}, it must be at least 1")
        for name in ("min_gap", "clip_scores"):
            if not 0 <= getattr(self, name) < math.inf:
                raise BadInput(f"ranking.{name} is {getattr(self, name)}, it must be at least 0")
        if not 0 < self.data_fraction <= 1:
            raise BadInput(f"ranking.data_fraction is {self.data_fraction}, it must be above 0 and at most 1")


@dataclass(frozen=True)
class Policy:
    """Training of the policy (section 4.2 of the paper)."""

    beta: float = 0.1
    """Scale of the log-ratios in the DPO loss."""
    nll_coef: Annotated[float, ADVANCED] = 0.01
    """Weight of the chosen rows' negative log-likelihood."""
    nll_mask: Annotated[Literal["turn", "all"], ADVANCED] = "turn"
    """Tokens of that term: the agent's turns, or all."""
    label_smoothing: Annotated[float, ADVANCED] = 0.0
    """Probability that a preference is the wrong way round, 0 to 0.5."""
    select: Annotated[Literal["last", "validation", "auto"], ADVANCED] = "last"
    """The policy is the last checkpoint, or, start included, the best on validation tasks; auto: that on toy tasks."""
    select_tasks: Annotated[int, ADVANCED] = 100
    """Validation tasks on which checkpoints are compared."""
    training: Annotated[Training, FLAT, SHARED] = field(default_factory=Training)

    def __post_init__(self) -> None:
        _check_loss("policy.", self.beta, self.nll_coef, self.label_smoothing)
        if self.select_tasks < 1:
            raise BadInput(f"policy.select_tasks is {self.select_tasks}, it must be at least 1")


@dataclass(frozen=True)
class Evaluation:
    """Base and trained policy on held-out tasks, with the same seeds."""

    num_tasks: int = 300
    """Held-out tasks."""
    temperature: Annotated[float, ADVANCED] = 1.0
    """Sampling temperature; 0: greedy."""

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise BadInput(f"evaluation.num_tasks is {self.num_tasks}, it must be at least 1")
        check_drawing("evaluation.", self.temperature)


@dataclass(frozen=True)
class Truth:
    """What the critic's scores are worth: each candidate of some positions is played on from (toy tasks)."""

    positions: int = 0
    """Positions, evenly spread over the ranked ones; 0: no such stage."""
    continuations: Annotated[int, Unless({"truth.positions": "0"})] = 8
    """Dialogues that the start policy plays on from each different candidate."""

    def __post_init__(self) -> None:
        if self.positions < 0 or self.continuations < 2:
            raise BadInput(
                f"truth.positions is {self.positions} and truth.continuations {self.continuations}: at least 0 (none), "
                "and at least 2"
            )


@dataclass(frozen=True)
class Design:
    """How pages are rendered and compared (frontend)."""

    clip: Path | None = None
    """Hugging Face directory of CLIP (the paper's: openai/clip-vit-base-patch32); none: a structural similarity."""
    failed: FailedRule = "zero"
    """Worth of a page that cannot be shown: nothing, or as much as a black picture, as released (with clip)."""
    chromium: Annotated[Path | None, ADVANCED] = None
    """The browser; none: one that is found."""
    assets: Annotated[Path | None, ADVANCED] = None
    """Directory in which `launch.data assets` has put what pages load; none: its usual place."""
    online_images: Annotated[bool, ADVANCED] = False
    """Load real pictures in place of placeholders."""
    pages: Annotated[int, ADVANCED] = 4
    """Pages rendered side by side."""

    def __post_init__(self) -> None:
        if self.pages < 1:
            raise BadInput(f"design.pages is {self.pages}, it must be at least 1")


_PACKAGE = Path(__file__).parents[2] / "sweet_jax"
EMBEDDED_DIRECTORY = _PACKAGE / "start_policy"
EMBEDDED_DIRECTORIES = {
    EMBEDDED: EMBEDDED_DIRECTORY,
    EMBEDDED_FRONTEND: _PACKAGE / "frontend_start_policy",
    EMBEDDED_SCENES: _PACKAGE / "scenes_start_policy",
}


def start_model(model: str, run: Path) -> Path:
    """Return the Hugging Face directory of the base policy, which a run calls `model` (see `TrainConfig`)."""
    if model in TRAINED_HERE:
        return run / "start" / "model"
    return EMBEDDED_DIRECTORIES.get(model) or Path(model)


@dataclass(frozen=True)
class Hosts:
    """Several processes that train together, each started with the same command; see docs/several-hosts.md."""

    mode: Literal["auto", "single"] = "auto"
    """Several where the environment says so (SLURM, a Cloud TPU slice of several hosts), or this process alone."""
    coordinator: str = ""
    """HOST:PORT at which all processes reach process 0, on any other cluster; given with processes and process."""
    processes: int = 0
    """How many processes there are; 0: not said."""
    process: int = -1
    """Which one this is, from 0; -1: not said."""
    connect_seconds: int = 300
    """Seconds that the processes wait for one another at the start."""
    heartbeat_seconds: int = 30
    """Seconds of silence after which a process counts as dead, and all others end."""

    def __post_init__(self) -> None:
        given = [bool(self.coordinator), self.processes != 0, self.process != -1]
        if any(given) != all(given):
            raise BadInput(
                f"hosts.coordinator is {self.coordinator!r}, hosts.processes {self.processes} and hosts.process "
                f"{self.process}: the three are given together, or none of them"
            )
        if any(given) and self.mode == "single":
            raise BadInput(f"hosts.mode is 'single' and hosts.processes {self.processes}: one process has no others")
        if any(given) and not 0 <= self.process < self.processes:
            raise BadInput(
                f"hosts.process is {self.process} of hosts.processes {self.processes}, it must be at least 0 and below"
            )
        host, _, port = self.coordinator.rpartition(":")
        if self.coordinator and not (host and port.isdigit() and 0 < int(port) < 65536):
            raise BadInput(f"hosts.coordinator is {self.coordinator!r}, expected HOST:PORT")
        if self.connect_seconds < 1 or self.heartbeat_seconds < 5:
            raise BadInput(
                f"hosts.connect_seconds is {self.connect_seconds} and hosts.heartbeat_seconds "
                f"{self.heartbeat_seconds}, they must be at least 1 and 5"
            )
