"""What `launch.convert` does: parameters of a stage's last checkpoint to a Hugging Face directory, and back."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from colbench_env.types import BadInput
from launch.common.files import is_model_directory, write_json
from launch.common.run_dir import RunDir, stage_folder
from launch.export.config import ConvertConfig
from models.config import LlamaConfig, from_hf
from models.hf_io import load_llama, open_llama
from models.lora import LORA, LoraConfig, lora_shapes, lora_table, merge_adapters
from models.parameters import count_params, flatten, nest, param_shapes
from models.peft_io import save_adapter
from sweet_jax import processes
from sweet_jax.data.chat import Chat, check_vocabulary
from sweet_jax.export import copy_tokenizer, export_trained, generation_settings, replace_directory
from sweet_jax.mesh import make_mesh, parse_mesh, start_devices
from sweet_jax.train.checkpoint import Checkpoints, SavedParams


@dataclass(frozen=True)
class Stage:
    """A stage with checkpoints, and the Hugging Face directory that its network and its tokenizer are from."""

    directory: Path
    model: Path


def convert(config: ConvertConfig) -> str:
    """Convert a checkpoint or a model and return a line that says what was written.

    Raises BadInput before anything is written.
    """
    if not config.source.is_dir():
        raise BadInput(f"--from={config.source}: no such directory")
    if processes.broadcast_from_process_0(config.to.exists):
        raise BadInput(f"--to={config.to}: is there already; nothing is overwritten")
    shape = parse_mesh(config.mesh)
    stage = find_stage(config.source)
    start_devices(shape)
    mesh = make_mesh(shape)
    return _import_model(config, mesh) if stage is None else _export_stage(config, stage, mesh)


def find_stage(source: Path) -> Stage | None:
    """Find the stage that `--from` names; None for a Hugging Face directory. Raises BadInput for anything else."""
    if is_model_directory(source):
        return None
    stage = stage_folder(source, "policy")
    if (stage / "checkpoints").is_dir():
        return Stage(stage, _model_of(stage))
    raise BadInput(
        f"--from={source}: neither a run directory with a trained policy (policy/checkpoints), nor one of its stages "
        "(checkpoints), nor a Hugging Face directory (config.json with a model_type)"
    )


def _model_of(stage: Path) -> Path:
    """Find the directory of a stage's network and tokenizer: the model its run started with, else its own `model`."""
    started = RunDir(stage.parent).start_model()
    candidates = [*([] if started is None else [started]), stage / "model"]
    for directory in candidates:
        if (directory / "config.json").is_file():
            return directory
    looked = " and ".join(str(directory / "config.json") for directory in candidates)
    raise BadInput(f"--from={stage}: the model that this stage trained is not there: looked for {looked}")


def _export_stage(config: ConvertConfig, stage: Stage, mesh: Mesh) -> str:
    network, saved = from_hf(stage.model), SavedParams(stage.directory / "checkpoints", _selected(stage))
    check_vocabulary(Chat.load(stage.model), network)
    shapes = flatten(saved.shapes)
    if "head" in saved.shapes:
        raise BadInput(
            f"--from={stage.directory}: a critic with a regression head (critic.parameterisation=value-head), which a "
            "Llama directory has no place for"
        )
    lora = _lora_of(stage) if LORA in saved.shapes else None
    if lora is None and config.lora == "adapter":
        raise BadInput(f"--lora=adapter: {stage.directory} trained all weights, it has no adapters")
    wanted = param_shapes(network, mesh) if lora is None else lora_shapes(network, lora, mesh)
    _check_checkpoint(stage, shapes, flatten(wanted))
    origin = f"from step {saved.step} of {stage.directory}"
    if lora is not None and config.lora == "adapter":
        dtype = _dtype(config, shapes["lora/" + next(iter(lora_table(network, lora)))].dtype)
        adapters = jax.tree.map(lambda x: x.astype(dtype), saved.read(wanted))
        with replace_directory(config.to) as tmp_path:
            save_adapter(tmp_path, network, lora, adapters, str(stage.model), processes.is_process_0())
        return f"{config.to}: adapters of rank {lora.rank} on {', '.join(lora.targets)} in {dtype}, {origin}"
    if lora is None:
        dtype = _dtype(config, shapes["final_norm"].dtype)
        by_path = flatten(wanted)
        with_dtype = {path: _shape(shapes[path].dtype, by_path[path]) for path in by_path}

        def parameter(path: str) -> jax.Array:
            return flatten(saved.read(nest({path: with_dtype[path]})))[path]

        export_trained(config.to, network, parameter, dtype, stage.model)
    else:
        adapters = saved.read(wanted)
        with open_llama(stage.model, mesh) as base:
            dtype = _dtype(config, base.dtype)
            # One weight and its adapters after another: never a second copy of the network.
            export_trained(
                config.to, network, lambda path: _merged(path, base.read(path), adapters, lora), dtype, stage.model
            )
    return f"{config.to}: {_described(network)} in {dtype}, {origin}"


def _selected(stage: Stage) -> int | None:
    """Return the step that a run has selected on validation tasks as its policy; None where it has selected none."""
    note = RunDir(stage.directory.parent).note("selection") if stage.directory.name == "policy" else None
    if note is not None and note["step"] == 0:
        raise BadInput(
            f"--from={stage.directory}: no checkpoint was better on the validation tasks than the start policy, "
            f"{stage.model}, so that is the run's policy"
        )
    return None if note is None else note["step"]


def _dtype(config: ConvertConfig, same: Any) -> jnp.dtype:
    return jnp.dtype(same if config.dtype == "same" else config.dtype)


def _shape(dtype: Any, like: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(like.shape, dtype, sharding=like.sharding)


def _merged(path: str, weight: jax.Array, adapters: Any, lora: LoraConfig) -> jax.Array:
    halves = {name: x for name, x in flatten(adapters[LORA]).items() if name.rpartition("/")[0] == path}
    return flatten(merge_adapters(nest({path: weight}) | {LORA: nest(halves)}, lora))[path]


def _lora_of(stage: Stage) -> LoraConfig:
    """Read the adapters' settings from the configuration of the run that trained them."""
    run = RunDir(stage.directory.parent)
    settings: Any = run.read_config().get("lora")
    try:
        return LoraConfig(int(settings["rank"]), float(settings["alpha"]), tuple(settings["targets"]))
    except (TypeError, KeyError, ValueError) as error:
        raise BadInput(
            f"{run.config_file}: {stage.directory} holds LoRA adapters, but the settings 'lora' of its run are "
            f"{settings!r}"
        ) from error


def _check_checkpoint(stage: Stage, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise BadInput unless the checkpoint has exactly the wanted paths and shapes."""
    differing = [
        f"{path} is {_text(found.get(path))} there and {_text(wanted.get(path))} here"
        for path in sorted(found.keys() | wanted.keys())
        if _text(found.get(path)) != _text(wanted.get(path))
    ]
    if differing:
        more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
        shown = "; ".join(differing[:3]) + more
        raise BadInput(f"--from={stage.directory}: not a checkpoint of the network in {stage.model}: {shown}")


def _text(value: Any) -> str:
    return "missing" if value is None else str(tuple(value.shape))


def _import_model(config: ConvertConfig, mesh: Mesh) -> str:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs what it raises, with every traceback
    dtype = jnp.dtype("float32" if config.dtype == "same" else config.dtype)
    check_vocabulary(Chat.load(config.source), from_hf(config.source))
    settings = generation_settings(config.source)
    loaded = load_llama(config.source, mesh, dtype)
    with replace_directory(config.to) as tmp_path:
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            checkpoints.save(0, {"params": loaded.params}, {})
        processes.broadcast_from_process_0(
            lambda: _write_model_files(tmp_path / "model", loaded.config, dtype, settings, config.source)
        )
    return f"{config.to}: a checkpoint of {_described(loaded.config)} in {dtype}, from {config.source}"


def _write_model_files(
    directory: Path, network: LlamaConfig, dtype: jnp.dtype, generation: dict[str, Any], source: Path
) -> None:
    directory.mkdir()
    write_json(directory / "config.json", network.to_hf() | {"dtype": str(dtype)})
    write_json(directory / "generation_config.json", generation)
    copy_tokenizer(source, directory)


def _described(network: LlamaConfig) -> str:
    return f"{count_params(network):,} parameters of {network.num_layers} layers"
