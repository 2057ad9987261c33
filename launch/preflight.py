"""What can be known to be wrong before anything is computed: batches that the mesh does not divide, missing stages."""

from __future__ import annotations

from collections.abc import Sequence

from colbench_env.types import BadInput
from launch.config import SCRATCH, TrainConfig
from launch.run_dir import RunDir
from sweet_jax.mesh import MeshShape


def check_mesh(config: TrainConfig, shape: MeshShape, stages: Sequence[str]) -> None:
    """Raises BadInput where the mesh does not divide a batch of one of the stages."""
    for stage, part in (("start", config.start), ("critic", config.critic), ("policy", config.policy)):
        if stage in stages:
            training = part.training
            name = f"{stage}.training.batch_size is {training.batch_size}"
            _check_divides(name, training.batch_size, training.micro_batches, shape.data, shape)
    rows, each = config.rollouts.rows, config.ranking.candidates
    devices = shape.data if config.sampler_mesh == "same" else shape.size
    if {"rollouts", "evaluation"} & set(stages):
        _check_divides(f"rollouts.rows is {rows}", rows, 1, devices, shape)
    if "candidates" in stages:  # the candidates of one position lie on one device: they share a prefill
        name = f"rollouts.rows / ranking.candidates is {rows} / {each} = {rows // each}"
        _check_divides(name, rows // each, 1, devices, shape)


def _check_divides(name: str, size: int, parts: int, devices: int, shape: MeshShape) -> None:
    if size % (parts * devices):
        split = f"{devices} devices" if parts == 1 else f"{parts} micro-batches over {devices} devices"
        raise BadInput(
            f"{name}, which mesh {shape} cannot divide: it must be a multiple of {parts * devices} ({split})"
        )


def check_inputs(config: TrainConfig, directory: RunDir) -> None:
    """Raises BadInput where a single stage is asked for and one whose files it reads has not finished."""
    if config.stage == "all":
        return
    model = ("start",) if config.model == SCRATCH and config.stage not in ("tasks", "start", "grading") else ()
    for needed in (*model, *config.reads(config.stage)):
        if directory.note(needed) is None:
            raise BadInput(
                f"{directory.path}: --stage={config.stage} reads what stage {needed} writes, which has not finished "
                f"here: run --stage={needed} first"
            )
