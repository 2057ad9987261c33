"""What a run with a preset of the paper needs, and what it still does otherwise than the paper, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from colbench_env.types import BadInput
from launch.common.flags import settings
from launch.training.config import TrainConfig
from launch.training.presets import PAPER_HUMAN, PRESETS
from sweet_jax.plugins import load_plugins

AS_IN_THE_PAPER = ("paper-backend", "paper-frontend", "released-backend")
# What changes no result, or is told in a sentence of its own.
_NOT_COMPARED = {
    "benchmark", "mesh", "run_dir", "model", "stage", "tasks", "eval_tasks", "trajectories", "pairs", "candidates",
    "turn_pairs", "validation_tasks", "toy",
    "grader", "grader_workers", "unsafe", "attention", "remat", "sampler_mesh", "hosts",
    "start", "log_every", "save_every", "micro_batches", "rows", "length_window", "algorithm", "prompt_date",
    "human", "human_url", "human_model", "human_key", "human_timeout", "human_retries", "attempts", "in_flight",
    "clip", "chromium", "assets", "pages",
}  # fmt: skip


def check_paper_run(config: TrainConfig, stages: tuple[str, ...]) -> None:
    """Raise BadInput where a preset of the paper lacks the model, real tasks, or the human of the stages that play."""
    if config.preset not in AS_IN_THE_PAPER:
        return
    if config.embedded:
        raise BadInput(
            f"--preset={config.preset} trains a real model: --model=DIR is needed, a Hugging Face directory (the "
            "paper's is Llama-3.1-8B-Instruct)"
        )
    plugin = load_plugins(config.plugin or "").make_tasks
    for flag, given, reader in (
        ("tasks", config.tasks or config.trajectories or plugin, "rollouts"),
        ("eval-tasks", config.eval_tasks or config.tasks or plugin, "evaluation"),
    ):
        if given is None and reader in stages:
            raise BadInput(
                f"--preset={config.preset} plays real tasks, not those of the miniature: --{flag}=FILE is needed"
            )
    simulator = config.simulator
    if simulator.human_model == PAPER_HUMAN and not simulator.human_url and {"rollouts", "evaluation"} & set(stages):
        raise BadInput(
            f"--preset={config.preset}: the human is {PAPER_HUMAN}, as in the paper: --human-url=URL is needed, an "
            "endpoint that serves it, or --human with another one"
        )


def preset_differences(config: TrainConfig) -> list[str]:
    """Return a sentence for each difference; none for a preset that is not the paper's."""
    if config.preset not in AS_IN_THE_PAPER:
        return []
    preset = PRESETS[config.preset](config.algorithm, human=config.simulator.human)
    told = [f"{name} is {ours!r}, the preset has {theirs!r}" for name, ours, theirs in _changed(config, preset)]
    if config.simulator.human_model != PAPER_HUMAN and config.benchmark == "backend":
        told.append(f"the human is {config.simulator.human_model or config.simulator.human}, the paper's {PAPER_HUMAN}")
    if config.benchmark == "frontend":
        told.append(f"the human who sees the pages is {config.simulator.human_model or config.simulator.human}")
        if config.design.clip is None:
            told.append("pages are compared by structure, in the paper by CLIP")
    if config.benchmark == "backend" and config.grader == "strict":
        told.append("answers are run as modules; the released grader gives those with imports 0 (--grader=official)")
    if config.trajectories is None:
        told.append("the dialogues are this model's own, not the 15,000 that the paper's authors released")
    told.append("the prompts of agent and human are worded anew")
    return told


def _changed(ours: TrainConfig, theirs: TrainConfig) -> Iterator[tuple[str, Any, Any]]:
    for setting in settings(TrainConfig):
        mine, other = setting.value(ours), setting.value(theirs)
        if mine != other and not _NOT_COMPARED & set(setting.path):
            yield setting.name, mine, other
