"""Llama weights in Hugging Face directories: read slice by slice onto a mesh, written for transformers to read.

One table (`hf_layout`) says which file tensors make up which parameter; loading and saving walk it in opposite
directions. Hugging Face stores a projection as [out, in], `models.parameters` as [in, out] and stacked over layers.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.config import LlamaConfig, ModelError, from_hf
from models.parameters import Params, check_params, flatten, nest, param_shardings, parameter_table

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
FILE_DTYPES = ("F32", "BF16", "F16")

LAYER_TENSORS = {
    "layers/attention_norm": "input_layernorm",
    "layers/attention/q": "self_attn.q_proj",
    "layers/attention/k": "self_attn.k_proj",
    "layers/attention/v": "self_attn.v_proj",
    "layers/attention/o": "self_attn.o_proj",
    "layers/mlp_norm": "post_attention_layernorm",
    "layers/mlp/gate": "mlp.gate_proj",
    "layers/mlp/up": "mlp.up_proj",
    "layers/mlp/down": "mlp.down_proj",
}
OTHER_TENSORS = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "lm_head": "lm_head"}
DERIVED_SUFFIX = ".rotary_emb.inv_freq"
"""Old checkpoints also hold the rotary frequencies, which follow from the configuration; they are left out."""


@dataclass(frozen=True)
class LoadedModel:
    """A configuration and its parameters, sharded over the mesh they were loaded for."""

    config: LlamaConfig
    params: Params


@dataclass(frozen=True)
class HfTensors:
    """File tensors of one parameter: a name a layer where `stacked`, else one; `transposed` where stored [out, in]."""

    names: tuple[str, ...]
    stacked: bool
    transposed: bool


def hf_layout(config: LlamaConfig) -> dict[str, HfTensors]:
    """Path -> HfTensors of every parameter of the table."""
    layout = {}
    for path in parameter_table(config):
        if path in LAYER_TENSORS:
            names = (f"model.layers.{layer}.{LAYER_TENSORS[path]}.weight" for layer in range(config.num_layers))
            layout[path] = HfTensors(tuple(names), stacked=True, transposed=not path.endswith("norm"))
        else:
            layout[path] = HfTensors((f"{OTHER_TENSORS[path]}.weight",), stacked=False, transposed=path == "lm_head")
    return layout


def load_llama(directory: str | Path, mesh: Mesh, dtype: DTypeLike = jnp.float32) -> LoadedModel:
    """The model in a Hugging Face directory, sharded over `mesh` by the parameter table, its weights in `dtype`.

    Each device is given its own slice, read from the file: the host holds one slice at a time, never the model.
    Raises ModelError for a missing or unsupported directory and for any tensor without parameter or parameter
    without tensor.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise ModelError(f"{directory}: no such model directory")
    config = from_hf(directory)
    shardings = flatten(param_shardings(config, mesh))
    with ExitStack() as stack:
        files = {path: _open(stack, path) for path in _weight_files(directory)}
        slices = _find_tensors(directory, config, files)
        params = {}
        for path, tensors in hf_layout(config).items():
            shape = parameter_table(config)[path].shape
            read = _reader(directory, path, shape, tensors, slices, dtype)
            params[path] = jax.make_array_from_callback(shape, shardings[path], read)
            # One parameter after another: the buffers that device transfers read from are freed before the next.
            jax.block_until_ready(params[path])
    return LoadedModel(config, nest(params))


def save_llama(directory: str | Path, config: LlamaConfig, params: Mapping[str, Any]) -> None:
    """Writes `config.json` and `model.safetensors` into `directory` (made if missing), in the dtype of `params`.

    transformers loads the directory as LlamaForCausalLM, and `load_llama` returns the same bits.
    Raises ModelError where `params` are not the parameters of `config`.
    """
    check_params(config, params)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    flat, tensors = flatten(params), {}
    for path, layout in hf_layout(config).items():
        values = np.asarray(jax.device_get(flat[path]))
        for name, value in zip(layout.names, values if layout.stacked else [values], strict=True):
            tensors[name] = np.ascontiguousarray(value.T if layout.transposed else value)
    settings = {**config.to_hf(), "dtype": str(tensors["model.norm.weight"].dtype)}
    (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, directory / SINGLE_FILE, metadata={"format": "pt"})


def _weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model: those its index names, else the single one."""
    index = directory / INDEX_FILE
    if not index.is_file():
        if not (directory / SINGLE_FILE).is_file():
            raise ModelError(f"{directory}: holds neither {SINGLE_FILE} nor {INDEX_FILE}")
        return [directory / SINGLE_FILE]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, AttributeError) as error:
        raise ModelError(f"{index}: not an index of weights: {error!r}") from error
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise ModelError(f"{index}: names {len(names)} files, of which {len(missing)} are missing: {missing}")
    return [directory / name for name in names]


def _open(stack: ExitStack, path: Path) -> Any:
    try:
        return stack.enter_context(safe_open(path, framework="numpy"))
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}") from error


def _find_tensors(directory: Path, config: LlamaConfig, files: Mapping[Path, Any]) -> dict[str, Any]:
    """Name -> lazily read slice of every tensor the network needs; every tensor in the files must be needed."""
    found = {name: handle.get_slice(name) for handle in files.values() for name in handle.keys()}
    needed = {name for tensors in hf_layout(config).values() for name in tensors.names}
    derived = {name for name in found if name.endswith(DERIVED_SUFFIX)}
    if config.tie_word_embeddings and "lm_head.weight" in found:
        _check_tied(directory, files)
        derived.add("lm_head.weight")
    missing, unknown = sorted(needed - found.keys()), sorted(found.keys() - needed - derived)
    if missing or unknown:
        raise ModelError(
            f"{directory}: {len(missing)} tensors that the network needs are missing ({_some(missing)}) and "
            f"{len(unknown)} tensors belong to no parameter ({_some(unknown)})"
        )
    return found


def _check_tied(directory: Path, files: Mapping[Path, Any]) -> None:
    """Raises ModelError where a tied model was saved with an output matrix that differs from its embedding."""
    values = {
        name: handle.get_tensor(name)
        for handle in files.values()
        for name in handle.keys()
        if name in ("lm_head.weight", "model.embed_tokens.weight")
    }
    if len(values) == 2 and not np.array_equal(*values.values()):
        raise ModelError(f"{directory}: tie_word_embeddings is true, but lm_head.weight differs from the embedding")


def _some(names: list[str], limit: int = 6) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "") if names else "none"


def _reader(
    directory: Path,
    path: str,
    shape: tuple[int, ...],
    tensors: HfTensors,
    slices: Mapping[str, Any],
    dtype: DTypeLike,
) -> Callable[[tuple[slice, ...]], np.ndarray]:
    """A function from the index of a shard to its values, for jax.make_array_from_callback."""
    own = shape[1:] if tensors.stacked else shape
    in_file = list(own[::-1] if tensors.transposed else own)
    for name in tensors.names:
        if slices[name].get_shape() != in_file:
            raise ModelError(
                f"{directory}: tensor {name} has shape {slices[name].get_shape()}, {path} needs it to be {in_file}"
            )
        if slices[name].get_dtype() not in FILE_DTYPES:
            raise ModelError(f"{directory}: tensor {name} is {slices[name].get_dtype()}, not one of {FILE_DTYPES}")

    def one(name: str, index: tuple[slice, ...]) -> np.ndarray:
        if tensors.transposed:
            return slices[name][index[::-1]].T.astype(dtype)
        return slices[name][index].astype(dtype)

    def read(index: tuple[slice, ...]) -> np.ndarray:
        if not tensors.stacked:
            return np.ascontiguousarray(one(tensors.names[0], index))
        return np.stack([one(name, index[1:]) for name in tensors.names[index[0]]])

    return read
