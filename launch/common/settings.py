"""What several commands and the stages of a training run can be told, as frozen dataclasses; imports no jax."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.types import BadInput
from launch.common.flags import FLAT
from sweet_jax.train.settings import Training

PROMPT_DATE = "2024-07-26"  # what Llama 3's templates show where nothing tells them the date
FailedRule = Literal["zero", "black"]
EMBEDDED, EMBEDDED_FRONTEND, SCRATCH = "embedded", "embedded-frontend", "scratch"


def check_date(name: str, value: str) -> None:
    """Raises BadInput unless the value is a date as 2024-07-26."""
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
    """Making the start policy of the miniature from scripted dialogues (only with --model=scratch).

    dialogues: how many are written. privileged_fraction: part of them that begins with the reference solution, as the
    critic's rows do; the agent in them does not know it either, but the human's replies follow from it, so the model
    learns to read it. training: on all tokens of each.
    """

    dialogues: int = 12_800
    privileged_fraction: float = 0.5
    training: Annotated[Training, FLAT] = field(
        default_factory=lambda: Training(
            batch_size=32, epochs=4, max_length=256, log_every=20, save_every=200,
            learning_rate=2e-3,
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.dialogues < 1:
            raise BadInput(f"start.dialogues is {self.dialogues}, it must be at least 1")
        if not 0 <= self.privileged_fraction <= 1:
            raise BadInput(
                f"start.privileged_fraction is {self.privileged_fraction}, it must be at least 0 and at most 1"
            )


@dataclass(frozen=True)
class Lora:
    """Training of low-rank adapters in place of all weights (arXiv:2106.09685), for critic and policy.

    rank: 0 trains all weights. alpha: adapters are scaled by alpha / rank. targets: which weights have adapters. The
    frozen network is held in compute_dtype and is the reference as well: no second copy.
    """

    rank: int = 0
    alpha: float = 32.0
    targets: tuple[Literal["q", "k", "v", "o", "gate", "up", "down"], ...] = (
        "q", "k", "v", "o", "gate", "up", "down",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.rank < 0 or not self.alpha > 0:
            raise BadInput(f"lora.rank is {self.rank} and lora.alpha {self.alpha}: at least 0, and above 0")
        if not self.targets:
            raise BadInput("lora.targets is empty: name at least one weight")


@dataclass(frozen=True)
class Rollouts:
    """Dialogues of the start policy with the simulated human.

    samples: dialogues about each task. max_turns: agent turns at most; a preset of the miniature has 8 (backend) or 4
    (frontend), any other the paper's 10. max_new_tokens: longest agent turn.
    rows: dialogues that are sampled side by side. temperature, top_k, top_p: how tokens are drawn (0 and 1: off).
    """

    samples: int = 3
    max_turns: int = 10
    max_new_tokens: int = 1024
    rows: int = 32
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name in ("samples", "max_turns", "rows"):
            if getattr(self, name) < 1:
                raise BadInput(f"rollouts.{name} is {getattr(self, name)}, it must be at least 1")
        check_drawing("rollouts.", self.temperature, self.top_k, self.top_p, self.max_new_tokens)


@dataclass(frozen=True)
class Critic:
    """The step-level critic (section 4.1 of the paper).

    aggregation: how a turn's log-ratios become its advantage. parameterisation: the LM head, or a regression head.
    privileged: it sees the reference solution. beta, nll_coef, label_smoothing: of its loss. without_pairs: what
    happens where no task has a sample that passes all tests and a worse one: "stop", or "hindsight": no critic is
    trained, and a turn's advantage is how much likelier the start model finds it when it sees the reference solution (a
    privileged critic only).
    """

    aggregation: Literal["turn-mean", "token-mean", "sum"] = "turn-mean"
    parameterisation: Literal["log-ratio", "value-head"] = "log-ratio"
    privileged: bool = True
    beta: float = 0.1
    nll_coef: float = 0.01
    label_smoothing: float = 0.0
    without_pairs: Literal["stop", "hindsight"] = "stop"
    training: Annotated[Training, FLAT] = field(default_factory=lambda: Training(epochs=4, max_length=8192))

    def __post_init__(self) -> None:
        _check_loss("critic.", self.beta, self.nll_coef, self.label_smoothing)


@dataclass(frozen=True)
class Ranking:
    """Candidates for each agent turn and the pairs among them (section 4.2).

    candidates: turns sampled in each position. data_fraction: share of the trajectories whose turns are used.
    num_pairs: pairs drawn among the candidates of a turn. reference_context: whether the frozen reference sees the
    reference solution as well when candidates are scored ("public": as the released code).
    """

    candidates: int = 16
    data_fraction: float = 0.1
    num_pairs: int = 4
    reference_context: Literal["privileged", "public"] = "privileged"

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise BadInput(f"ranking.candidates is {self.candidates}, it must be at least 2 to make a pair")
        if self.num_pairs < 1:
            raise BadInput(f"ranking.num_pairs is {self.num_pairs}, it must be at least 1")
        if not 0 < self.data_fraction <= 1:
            raise BadInput(f"ranking.data_fraction is {self.data_fraction}, it must be above 0 and at most 1")


@dataclass(frozen=True)
class Policy:
    """The policy's training: DPO on turn pairs (sweet), DPO on trajectory pairs (mtdpo), or imitation (rft).

    nll_mask: which tokens of the chosen row the NLL term covers.
    """

    beta: float = 0.1
    nll_coef: float = 0.01
    nll_mask: Literal["turn", "all"] = "turn"
    label_smoothing: float = 0.0
    training: Annotated[Training, FLAT] = field(default_factory=Training)

    def __post_init__(self) -> None:
        _check_loss("policy.", self.beta, self.nll_coef, self.label_smoothing)


@dataclass(frozen=True)
class Evaluation:
    """Start and trained policy on held-out tasks, with the same seeds. temperature: 0 is greedy."""

    num_tasks: int = 300
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.num_tasks < 1:
            raise BadInput(f"evaluation.num_tasks is {self.num_tasks}, it must be at least 1")
        check_drawing("evaluation.", self.temperature)


@dataclass(frozen=True)
class Design:
    """How pages are rendered and compared (frontend).

    clip: a Hugging Face directory of CLIP, "openai/clip-vit-base-patch32" being the paper's; without it a structural
    similarity, which is not the paper's metric. failed: what a page is worth that could not be shown or is missing:
    "zero", or "black": as much as a black picture, as the released code has it (with clip).
    chromium: the browser, found where none is named. assets: where `launch.data assets` has put what pages load.
    online_images: real pictures in place of placeholders. pages: rendered side by side.
    """

    clip: Path | None = None
    failed: FailedRule = "zero"
    chromium: Path | None = None
    assets: Path | None = None
    online_images: bool = False
    pages: int = 4

    def __post_init__(self) -> None:
        if self.pages < 1:
            raise BadInput(f"design.pages is {self.pages}, it must be at least 1")


_PACKAGE = Path(__file__).parents[2] / "sweet_jax"
EMBEDDED_DIRECTORY = _PACKAGE / "start_policy"
EMBEDDED_DIRECTORIES = {EMBEDDED: EMBEDDED_DIRECTORY, EMBEDDED_FRONTEND: _PACKAGE / "frontend_start_policy"}


def start_model(model: str, run: Path) -> Path:
    """The Hugging Face directory of the start policy, which a run calls `model` (see `TrainConfig`)."""
    if model == SCRATCH:
        return run / "start" / "model"
    return EMBEDDED_DIRECTORIES.get(model) or Path(model)


@dataclass(frozen=True)
class Hosts:
    """Several processes that train together, each started with the same command; see docs/several-hosts.md.

    mode: "auto": several where the environment says so (a SLURM step of more than one task, a Cloud TPU slice of more
    than one host); "single": this process alone, whatever the environment says.
    coordinator: HOST:PORT at which all processes reach process 0, for any other cluster; processes: how many there are;
    process: which one this is, from 0. The three are given together.
    connect_seconds: how long the processes wait for one another at the start. heartbeat_seconds: a process that has
    been silent for so long counts as dead, and all others end.
    """

    mode: Literal["auto", "single"] = "auto"
    coordinator: str = ""
    processes: int = 0
    process: int = -1
    connect_seconds: int = 300
    heartbeat_seconds: int = 30

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
