"""The critic of `launch.rollout --best-of=N --critic=RUN`: loaded, and checked against the policy and the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from colbench_env.types import BadInput, Task
from launch.common.benchmarks import Benchmark
from launch.common.console import Console
from launch.common.files import is_model_directory
from launch.common.run_dir import RunDir
from launch.common.settings import PROMPT_DATE, Ranking, Rollouts
from launch.ranking.rank import FoundCritic, find_critic
from launch.rollouts.config import RolloutConfig
from launch.training.config import TrainConfig
from launch.training.run import Run
from launch.training.stages.ranking import make_scorer
from sweet_jax import processes
from sweet_jax.data.chat import Chat
from sweet_jax.generation.load import LoadedEngine
from sweet_jax.generation.sampling import Sampling
from sweet_jax.mesh import MeshShape, start_devices
from sweet_jax.rollout.best_of import BestOf


def check_reference(critic: Path, tasks: Sequence[Task]) -> None:
    """Raise BadInput where the critic is not there, or is to see a reference solution that a task does not have."""
    if find_run(critic).settings.privileged:
        for number, task in enumerate(tasks):
            if not task.ground_truth:
                raise BadInput(
                    f"--critic={critic}: it is shown the reference solution, which task {number + 1} "
                    f"({task.task_id}) does not have ('ground_truth')"
                )


def find_run(critic: Path) -> FoundCritic:
    """Find the critic of a run. Raises BadInput where there is none, and for a Hugging Face directory."""
    if is_model_directory(critic):
        raise BadInput(f"--critic={critic}: a run directory is needed, which says how the critic was trained")
    return find_critic(critic)


def make_best_of(
    config: RolloutConfig,
    policy: LoadedEngine,
    sampling: Sampling,
    shape: MeshShape,
    benchmark: Benchmark,
    console: Console,
) -> BestOf:
    """Load the critic for turns of the policy. Raises BadInput where it has another tokenizer or chat template."""
    critic, count = config.critic, config.best_of
    assert critic is not None
    if processes.count() > 1:
        raise BadInput("--best-of: of several processes each would need the whole critic; start one process")
    run = open_critic(critic, shape, benchmark, console, config.compute_dtype)
    _check_same_tokens(critic, run.chat, policy.chat)
    rows = -(-count // shape.data) * shape.data
    score = make_scorer(run, None, rows, quiet=True, parts=False)
    return BestOf(policy.engine, sampling, policy.chat, count, score, run.config.critic.privileged)


def open_critic(
    critic: Path,
    shape: MeshShape,
    benchmark: Benchmark,
    console: Console,
    compute_dtype: Literal["float32", "bfloat16"],
    prompted: bool = False,
) -> Run:
    """Open the run directory of a critic, to score turns with it. Raises BadInput where there is none.

    prompted: whether the run's system prompt is read, with which whole dialogues are tokenised.
    """
    found = find_run(critic)
    assert found.model is not None  # of a run directory
    directory = RunDir(found.given.directory.parent)
    told = directory.read_config()
    training = TrainConfig(
        model=found.model,
        critic=found.settings,
        lora=found.lora,
        compute_dtype=compute_dtype,
        ranking=Ranking(reference_context=found.reference_context),
        agent_prompt=str(told.get("agent_prompt", "none")) if prompted else "none",
        prompt_date=str(told.get("prompt_date", PROMPT_DATE)),
        plugin=found.plugin,
        rollouts=directory.read_settings("rollouts", Rollouts),
    )
    return Run(training, directory, console, start_devices(shape), shape, benchmark, found.given)


def _check_same_tokens(critic: Path, known: Chat, drawn: Chat) -> None:
    if known.tokenizer.get_vocab() != drawn.tokenizer.get_vocab() or known.format != drawn.format:
        raise BadInput(
            f"--critic={critic}: its tokenizer or chat template is not the policy's, so it cannot read its turns"
        )
