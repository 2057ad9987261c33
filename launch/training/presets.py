"""Presets: the defaults of every flag of `launch.train`, by name, algorithm and benchmark.

A preset leaves `algorithm` itself alone: `--preset`, `--algorithm` and `--benchmark` together give the defaults, and
every other flag changes its own value, wherever it stands on the command line.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

from launch.common.benchmarks import default_turns
from launch.common.settings import (
    EMBEDDED,
    EMBEDDED_FRONTEND,
    Critic,
    Design,
    Evaluation,
    Policy,
    Ranking,
    Rollouts,
    Start,
)
from launch.common.simulator import Simulator
from launch.training.config import MINI_TASKS, TrainConfig
from sweet_jax.train.settings import Training

RELEASED_HELD_OUT = 0.03
PAPER_HUMAN = "meta-llama/Llama-3.1-70B-Instruct"


def _embedded(algorithm: str = "sweet", benchmark: str = "backend", human: str = "") -> TrainConfig:
    """The miniature with its small start policy, on a small machine."""
    if benchmark == "frontend":
        return _embedded_frontend()
    short = dict(batch_size=16, max_length=512, log_every=5, save_every=50)
    return TrainConfig(
        num_tasks=MINI_TASKS,
        sampler_mesh="rows",
        rollouts=Rollouts(samples=4, max_turns=default_turns("backend", miniature=True), max_new_tokens=32, rows=128),
        critic=Critic(training=Training(**short, epochs=3, learning_rate=4e-4)),
        ranking=Ranking(data_fraction=0.1),
        policy=Policy(training=Training(**short, epochs=1, max_steps=100, learning_rate=1e-4)),
        evaluation=Evaluation(num_tasks=300),
    )


def _embedded_frontend() -> TrainConfig:
    short = dict(batch_size=16, max_length=256, log_every=5, save_every=50)
    return TrainConfig(
        benchmark="frontend",
        model=EMBEDDED_FRONTEND,
        start=Start(training=dataclasses.replace(Start().training, epochs=8)),
        num_tasks=300,
        simulator=Simulator(human_plain=True),
        sampler_mesh="rows",
        rollouts=Rollouts(samples=4, max_turns=default_turns("frontend", miniature=True), max_new_tokens=24, rows=128),
        critic=Critic(training=Training(**short, epochs=3, learning_rate=4e-4)),
        ranking=Ranking(data_fraction=0.4),
        policy=Policy(training=Training(**short, epochs=1, max_steps=150, learning_rate=1e-4)),
        evaluation=Evaluation(num_tasks=150),
    )


def _paper_backend(algorithm: str = "sweet", benchmark: str = "backend", human: str = "") -> TrainConfig:
    """The paper's backend column: Llama-3.1-8B, 3 samples of each of 5,000 tasks, Llama-3.1-70B as the human."""
    played = Simulator(human="openai", human_model=PAPER_HUMAN) if human in ("", "openai") else Simulator(human=human)
    return TrainConfig(
        preset="paper-backend", agent_prompt="backend_agent", simulator=played, num_tasks=5000,
        compute_dtype="bfloat16", rollouts=Rollouts(rows=64),
        critic=Critic(training=Training(epochs=4, max_length=8192)),
        policy=Policy(training=_paper_policy(algorithm, epochs=4)), evaluation=Evaluation(num_tasks=1000),
    )  # fmt: skip


def _paper_frontend(algorithm: str = "sweet", benchmark: str = "frontend", human: str = "") -> TrainConfig:
    """The paper's frontend column: 6 samples of each of 1,000 tasks, a critic with a regression head, so without NLL.

    The user names the two models that see: --design.clip, and --human=openai with --human-model.
    """
    return TrainConfig(
        benchmark="frontend", model=EMBEDDED_FRONTEND, preset="paper-frontend", agent_prompt="design_agent",
        num_tasks=1000, compute_dtype="bfloat16", rollouts=Rollouts(samples=6, rows=64),
        critic=Critic(parameterisation="value-head", nll_coef=0.0, training=Training(epochs=8, max_length=8192)),
        design=Design(failed="black"),
        policy=Policy(training=_paper_policy(algorithm, epochs=8)), evaluation=Evaluation(num_tasks=500),
    )  # fmt: skip


def _paper_policy(algorithm: str, epochs: int) -> Training:
    """What the policy stage trains with. epochs: of the two baselines; per-turn DPO has one."""
    match algorithm:
        case "rft":
            return Training(batch_size=32, epochs=epochs)
        case "mtdpo":
            return Training(batch_size=8, epochs=epochs)
    return Training(batch_size=8, epochs=1)


def _released_backend(algorithm: str = "sweet", benchmark: str = "backend", human: str = "") -> TrainConfig:
    """What the released commands and code do where they differ from the paper (docs/methods.md has the table)."""
    paper = _paper_backend(algorithm, benchmark, human)
    critic = dataclasses.replace(
        paper.critic, aggregation="token-mean", nll_coef=0.0, training=_without_first_rows(paper.critic.training)
    )
    policy = dataclasses.replace(paper.policy, nll_mask="all", training=_without_first_rows(paper.policy.training))
    return dataclasses.replace(
        paper, preset="released-backend", critic=critic, policy=policy, ranking=Ranking(reference_context="public")
    )


def _without_first_rows(training: Training) -> Training:
    return dataclasses.replace(training, held_out_fraction=RELEASED_HELD_OUT)


def _tiny(algorithm: str = "sweet", benchmark: str = "backend", human: str = "") -> TrainConfig:
    """A real model on a few real tasks, to see every stage run to its end on a small machine."""
    short = dict(batch_size=2, max_length=2048, truncation="left", max_steps=2)
    design = benchmark == "frontend"
    return TrainConfig(
        benchmark="frontend" if design else "backend", preset="tiny", num_tasks=6,
        model=EMBEDDED_FRONTEND if design else EMBEDDED,
        agent_prompt="design_agent" if design else "backend_agent",
        simulator=Simulator(human="scripted" if design else "model", human_max_tokens=48),
        rollouts=Rollouts(samples=2, max_turns=3, max_new_tokens=48, rows=4),
        critic=Critic(without_pairs="hindsight", training=Training(**short)),
        ranking=Ranking(candidates=4, data_fraction=0.25, num_pairs=2),
        policy=Policy(training=Training(**short)),
        evaluation=Evaluation(num_tasks=2),
    )  # fmt: skip


PRESETS: Mapping[str, Callable[..., TrainConfig]] = {
    "embedded": _embedded,
    "paper-backend": _paper_backend,
    "paper-frontend": _paper_frontend,
    "released-backend": _released_backend,
    "tiny": _tiny,
}
"""Name -> (algorithm, "sweet" if not given, benchmark, human) -> the defaults."""


def presets_for(algorithm: str, benchmark: str = "", human: str = "") -> dict[str, Callable[[], TrainConfig]]:
    """Name -> the defaults for this algorithm, and for this benchmark and this human where they are named."""
    named = {"benchmark": benchmark} if benchmark else {}
    return {name: functools.partial(make, algorithm, human=human, **named) for name, make in PRESETS.items()}
