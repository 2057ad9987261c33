"""What can be known to be wrong before anything is computed or written: batches that the mesh does not divide, missing
stages, missing files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from colbench_env.prompts import read_agent_prompt
from colbench_env.types import BadInput
from launch.common.files import check_model_directory, check_readable
from launch.common.plugins import settle_simulator, takes_place
from launch.common.run_dir import RunDir
from launch.common.settings import TRAINED_HERE
from launch.training.config import AUTO, TrainConfig
from launch.training.preset_differences import check_paper_run
from launch.training.presets import PRESETS
from launch.training.tracking.opening import check_trackers
from sweet_jax import processes
from sweet_jax.mesh import MeshShape, count_devices, parse_mesh
from sweet_jax.plugins import load_plugins


def settle_plugin(config: TrainConfig) -> TrainConfig:
    """Load the plugins and return the configuration with "plugin" wherever one takes the place of what is ours.

    Raises BadInput where a flag asks for something else, or for what no plugin brings.
    """
    names, plugin = config.plugin, load_plugins(config.plugin or "")
    usual = PRESETS[config.preset](config.algorithm, config.benchmark)
    if plugin.make_tasks and config.tasks:
        raise BadInput(f"--tasks={config.tasks} and --plugin={names}, which brings tasks: leave one of them out")
    config = replace(config, simulator=settle_simulator(names, config.simulator, usual.simulator))
    if takes_place(names, "--grader", config.grader, usual.grader, plugin.reward, "a reward"):
        config = replace(config, grader="plugin")
    kind, default = config.critic.parameterisation, usual.critic.parameterisation
    if takes_place(names, "--critic.parameterisation", kind, default, plugin.critic, "a critic"):
        critic, ranking = replace(config.critic, parameterisation="plugin"), config.ranking
        if ranking.min_gap == usual.ranking.min_gap:  # in nats, as is the limit
            ranking = replace(ranking, min_gap=0.0)
        if ranking.clip_scores == usual.ranking.clip_scores:
            ranking = replace(ranking, clip_scores=0.0)
        config = replace(config, critic=critic, ranking=ranking)
    return config


def settle_mesh(config: TrainConfig, directory: RunDir, stages: Sequence[str]) -> TrainConfig:
    """Return the configuration with a mesh in place of "auto": that of the run directory; else as many devices along
    data as the batches divide over.

    Raises BadInput where the mesh does not divide a batch of one of the stages.
    """
    if config.mesh == AUTO and directory.config_file.exists() and directory.begun():
        with contextlib.suppress(BadInput):  # a file that cannot be read is reported when the directory is opened
            config = replace(config, mesh=str(directory.read_config().get("mesh", AUTO)))
    if config.mesh == AUTO:
        most = count_devices()
        least = most if processes.count() > 1 else 1  # several processes must use all that they have
        fitting = (n for n in range(most, least, -1) if _divides(config, MeshShape(n), stages))
        config = replace(config, mesh=str(MeshShape(next(fitting, least))))
    check_mesh(config, parse_mesh(config.mesh), stages)
    return config


def _divides(config: TrainConfig, shape: MeshShape, stages: Sequence[str]) -> bool:
    try:
        check_mesh(config, shape, stages)
    except BadInput:
        return False
    return True


def check_mesh(config: TrainConfig, shape: MeshShape, stages: Sequence[str]) -> None:
    """Raise BadInput where the mesh does not divide a batch of one of the stages."""
    for stage, part in (("start", config.start), ("critic", config.critic), ("policy", config.policy)):
        if stage in stages:
            training = part.training
            name = f"{stage}.batch_size is {training.batch_size}"
            _check_divides(name, training.batch_size, training.micro_batches, shape.data, shape)
    rows, devices = config.rollouts.rows, shape.data if config.sampler_mesh == "same" else shape.size
    if {"rollouts", "candidates", "selection", "evaluation"} & set(stages):
        _check_divides(f"rollouts.rows is {rows}", rows, 1, devices, shape)


def _check_divides(name: str, size: int, parts: int, devices: int, shape: MeshShape) -> None:
    if size % (parts * devices):
        split = f"{devices} devices" if parts == 1 else f"{parts} micro-batches over {devices} devices"
        raise BadInput(
            f"{name}, which mesh {shape} cannot divide: it must be a multiple of {parts * devices} ({split})"
        )


def check_inputs(config: TrainConfig, directory: RunDir, stages: Sequence[str]) -> None:
    """Raise BadInput where what a stage will read is not there; nothing is written or read in full before.

    That is a file, a directory, or what a stage writes that has not finished where a single stage is asked for.
    """
    left = [stage for stage in stages if directory.note(stage) is None]
    if config.stage != "all":
        model = ("start",) if config.model in TRAINED_HERE and config.stage not in ("tasks", "start", "grading") else ()
        for needed in (*model, *config.reads(config.stage)):
            if directory.note(needed) is None:
                raise BadInput(
                    f"{directory.path}: --stage={config.stage} reads what stage {needed} writes, which has not "
                    f"finished here: run --stage={needed} first"
                )
    check_paper_run(config, tuple(left))
    processes.broadcast_from_process_0(lambda: _check_files(config, left))


def _check_files(config: TrainConfig, left: Sequence[str]) -> None:
    if "tasks" in left:
        check_readable(config.tasks, config.eval_tasks)
    for stage in left:
        check_readable(config.given(stage))
    if left:
        read_agent_prompt(config.agent_prompt, config.rollouts.max_turns)
        if config.simulator.human != "scripted":
            _ = config.simulator.vision_prompt if config.benchmark == "frontend" else config.simulator.prompt
        if config.simulator.human == "openai" and {"rollouts", "evaluation"} & set(left):
            config.simulator.endpoint()
        if not config.embedded:
            check_model_directory(config.model)
        for name in ("clip", "assets"):
            path = getattr(config.design, name)
            if path is not None and not path.is_dir():
                raise BadInput(f"--design.{name}={path}: no such directory")
    check_trackers(config.track)
