"""LoRA adapters in PEFT's directories: `adapter_config.json` and `adapter_model.safetensors`, for PEFT and vLLM.

PEFT stores lora_A as [r, in] and lora_B as [out, r], one of each a layer; `models.lora` keeps a [L, in, r] and
b [L, r, out].
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from safetensors.numpy import save_file

from models.config import LlamaConfig
from models.hf_io import ADAPTER_FILE, load_parameter, on_host
from models.hf_names import LAYER_TENSORS, HfTensors
from models.json_settings import ModelError, count, format_value, number, read_object
from models.lora import LORA, TARGETS, LoraConfig, lora_shapes, lora_table
from models.parameters import Params, flatten, nest
from models.weight_files import check_stored, open_file

WEIGHTS_FILE = "adapter_model.safetensors"
HALVES = {"a": "lora_A", "b": "lora_B"}
MODULES = {name: LAYER_TENSORS[path].rpartition(".")[2] for name, path in TARGETS.items()}
"""Short name -> PEFT's: "q" -> "q_proj"."""
ONLY: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None,),
    "layer_replication": (None,),
    "alora_invocation_tokens": (None,),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),  # others change the weights below, too
}
"""Settings of PEFT and the values of which the arithmetic is that of `models.lora`."""


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter's settings and its parameters {"lora": ...}."""

    lora: LoraConfig
    params: Params


def adapter_layout(config: LlamaConfig, lora: LoraConfig) -> dict[str, HfTensors]:
    """Path below "lora" -> HfTensors of every adapter."""
    layout = {}
    for path, spec in lora_table(config, lora).items():
        weight, _, half = path.rpartition("/")
        names = tuple(
            f"base_model.model.model.layers.{layer}.{LAYER_TENSORS[weight]}.{HALVES[half]}.weight"
            for layer in range(config.num_layers)
        )
        layout[path] = HfTensors(names, spec.shape[:0:-1], stacked=True, transposed=True)
    return layout


def save_adapter(
    directory: Path, config: LlamaConfig, lora: LoraConfig, adapters: Mapping[str, Any], base: str, writes: bool = True
) -> None:
    """Write the adapters {"lora": ...} into an existing directory, in their own dtype, with the name of their base.

    On several hosts all processes call this and one `writes`. Raises ModelError for adapters of another shape.
    """
    flat, tensors = flatten(adapters[LORA]), {}
    for path, layout in adapter_layout(config, lora).items():
        found = flat.pop(path, None)
        if found is None or found.shape != (len(layout.names), *layout.shape[::-1]):
            shape = None if found is None else tuple(found.shape)
            raise ModelError(f"adapter {path} has shape {shape}, needed is {(len(layout.names), *layout.shape[::-1])}")
        for name, value in zip(layout.names, on_host(found), strict=True):
            tensors[name] = np.ascontiguousarray(value.T)
    if flat:
        raise ModelError(f"adapters {sorted(flat)} are not among the targets {lora.targets}")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        "lora_dropout": 0.0,
        "target_modules": [MODULES[name] for name in lora.targets],
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "modules_to_save": None,
    }
    if writes:
        (directory / ADAPTER_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, directory / WEIGHTS_FILE, metadata={"format": "pt"})


def load_adapter(
    directory: str | Path, config: LlamaConfig, mesh: Mesh, dtype: DTypeLike = jnp.float32
) -> LoadedAdapter:
    """Load the adapter of a PEFT directory, sharded over `mesh`, for the network of `config`.

    Raises ModelError for settings that `models.lora` does not compute and for tensors that are missing, too many or of
    another shape.
    """
    directory = Path(directory)
    lora = _read_settings(directory / ADAPTER_FILE)
    layout, shapes = adapter_layout(config, lora), flatten(lora_shapes(config, lora, mesh)[LORA])
    with ExitStack() as stack:
        handle = open_file(stack, directory / WEIGHTS_FILE)
        slices = {name: handle.get_slice(name) for name in handle.keys()}
        check_stored(str(directory), slices, [stored for tensors in layout.values() for stored in tensors.stored])
        params = {
            path: load_parameter(tensors, slices, shapes[path].sharding, jnp.dtype(dtype))
            for path, tensors in layout.items()
        }
    return LoadedAdapter(lora, {LORA: nest(params)})


def _read_settings(path: Path) -> LoraConfig:
    if not path.is_file():
        raise ModelError(f"{path}: no such file; an adapter directory holds {ADAPTER_FILE} and {WEIGHTS_FILE}")
    settings = read_object(path)
    try:
        for name, values in ONLY.items():
            if settings.get(name, values[0]) not in values:
                raise ModelError(f"{name} is {format_value(settings[name])}; only {values[0]!r} is supported")
        modules, known = settings.get("target_modules"), list(MODULES.values())
        if not isinstance(modules, list) or any(module not in known for module in modules):
            raise ModelError(f"target_modules is {format_value(modules)}, expected some of {known}")
        targets = tuple(name for name in TARGETS if MODULES[name] in modules)
        return LoraConfig(count(settings, "r"), number(settings, "lora_alpha", above=0.0), targets)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
