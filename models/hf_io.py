"""Llama weights in Hugging Face directories: read slice by slice onto a mesh, written for transformers to read.

One table (`hf_layout`) says which file tensors make up which parameter; loading and saving walk it in opposite
directions. Hugging Face stores a projection as [out, in], `models.parameters` as [in, out] and stacked over layers.

A large parameter is loaded in pieces. A piece is the same few layers (or rows of the embedding) of every shard, as the
files hold them; the host reads it, and the devices turn, convert and place it. So the host holds SMALL_BYTES, or two
layers of one parameter where that is more, whatever the size of the model, and a process reads only what its own
devices keep.
"""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from models.config import LlamaConfig, ModelError, from_hf
from models.hf_names import HfTensors, hf_layout
from models.parameters import Params, check_params, flatten, nest, param_shardings
from models.weight_files import FILE_DTYPES, MAX_FILE_BYTES, check_stored, open_weights, write_weights

SMALL_BYTES, PIECE_BYTES = 128 * 2**20, 64 * 2**20
"""Bytes of the files: of what is moved at once, and of what is read at a time where more has to be moved."""

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
ADAPTER_FILE = "adapter_config.json"
DERIVED_SUFFIX = ".rotary_emb.inv_freq"
"""Old checkpoints also hold the rotary frequencies, which follow from the configuration; they are left out."""

Index = tuple[slice, ...]


@dataclass(frozen=True)
class LoadedModel:
    """A configuration and its parameters, sharded over the mesh they were loaded for."""

    config: LlamaConfig
    params: Params


def check_llama(directory: str | Path, mesh: Mesh) -> LlamaConfig:
    """Check everything but the values of a model in a Hugging Face directory and return its configuration.

    Raises ModelError for a missing or unsupported directory, a network that the mesh does not divide, damaged files,
    and for any tensor without parameter or parameter without tensor. Reads headers only.
    """
    with ExitStack() as stack:
        return _check_files(stack, Path(directory), mesh)[0]


def load_llama(directory: str | Path, mesh: Mesh, dtype: DTypeLike = jnp.float32) -> LoadedModel:
    """Load the model of a Hugging Face directory, sharded over `mesh` by the parameter table, its weights in `dtype`.

    Each process reads the slices of its own devices, a slice that several devices hold only once.
    Raises ModelError as `check_llama`, before any weight is read, and for a tied model whose output matrix is another.
    """
    with open_llama(directory, mesh) as opened:
        params = {path: opened.read(path, dtype) for path in hf_layout(opened.config)}
    return LoadedModel(opened.config, nest(params))


@dataclass(frozen=True)
class OpenModel:
    """A model whose files are open, to be read one parameter after another. dtype: of its embedding in the files."""

    config: LlamaConfig
    mesh: Mesh
    slices: Mapping[str, Any]

    @property
    def dtype(self) -> np.dtype:
        return FILE_DTYPES[self.slices[EMBEDDING].get_dtype()]

    def read(self, path: str, dtype: DTypeLike = jnp.float32) -> jax.Array:
        """Read a parameter onto its sharding."""
        sharding = flatten(param_shardings(self.config, self.mesh))[path]
        return load_parameter(hf_layout(self.config)[path], self.slices, sharding, jnp.dtype(dtype))


@contextmanager
def open_llama(directory: str | Path, mesh: Mesh) -> Iterator[OpenModel]:
    """Open the model of a Hugging Face directory for the with statement. Raises ModelError as `load_llama`."""
    with ExitStack() as stack:
        config, slices = _check_files(stack, Path(directory), mesh)
        if config.tie_word_embeddings and HEAD in slices:
            _check_tied(Path(directory), slices)
        yield OpenModel(config, mesh, slices)


def _check_files(stack: ExitStack, directory: Path, mesh: Mesh) -> tuple[LlamaConfig, dict[str, Any]]:
    """Return the configuration, and name -> lazily read slice of every tensor in the files, once they are checked."""
    config = from_hf(directory)
    if (directory / ADAPTER_FILE).is_file():
        raise ModelError(
            f"{directory}: holds a whole model and {ADAPTER_FILE}, an adapter that transformers adds to it; merge it "
            "or move it elsewhere"
        )
    param_shardings(config, mesh)
    slices = open_weights(stack, directory)
    derived = {name for name in slices if name.endswith(DERIVED_SUFFIX)}
    if config.tie_word_embeddings:
        derived.add(HEAD)
    needed = [stored for tensors in hf_layout(config).values() for stored in tensors.stored]
    check_stored(str(directory), slices, needed, derived)
    return config, slices


def save_llama(
    directory: str | Path,
    config: LlamaConfig,
    params: Mapping[str, Any],
    dtype: DTypeLike | None = None,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """Write `config.json` and the weights into `directory` (made if missing), in `dtype`, or that of `params`.

    transformers loads the directory, and `load_llama` returns the same bits. On several hosts all
    processes call this, and process 0 writes.
    Raises ModelError where `params` are not the parameters of `config`.
    """
    check_params(config, params)
    flat = flatten(params)
    write_llama(directory, config, flat.__getitem__, dtype or flat["final_norm"].dtype, max_file_bytes)


def write_llama(
    directory: str | Path,
    config: LlamaConfig,
    parameter: Callable[[str], Any],
    dtype: DTypeLike,
    max_file_bytes: int = MAX_FILE_BYTES,
) -> None:
    """As `save_llama`, with a function that is asked for one parameter after another, in the order of the table.

    The host holds one tensor at a time, and what `parameter` holds.
    """
    directory, layout, dtype, writes = Path(directory), hf_layout(config), np.dtype(dtype), jax.process_index() == 0
    stored = [tensor for tensors in layout.values() for tensor in tensors.stored]

    def values() -> Iterator[np.ndarray]:
        for path, tensors in layout.items():
            value = parameter(path)
            if math.prod(value.shape) * value.dtype.itemsize <= SMALL_BYTES:
                value = on_host(value)
            for layer in range(len(tensors.names)):
                own = _layer(value, layer) if tensors.stacked else value
                own = on_host(own).astype(dtype)
                yield own.T if tensors.transposed else own

    if writes:
        directory.mkdir(parents=True, exist_ok=True)
        settings = {**config.to_hf(), "dtype": str(dtype)}
        (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    write_weights(directory, stored, values(), dtype, max_file_bytes, writes)


def on_host(value: Any) -> np.ndarray:
    """Gather the whole array on the host; on several hosts all processes call this and all get it."""
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        assert isinstance(value.sharding, NamedSharding)
        value = jax.jit(lambda x: x, out_shardings=NamedSharding(value.sharding.mesh, PartitionSpec()))(value)
        return np.asarray(value.addressable_data(0))
    return np.asarray(value)


def _layer(value: Any, layer: int) -> Any:
    return value[layer] if isinstance(value, np.ndarray) else _device_layer(value, layer)


@jax.jit
def _device_layer(value: jax.Array, layer: Any) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(value, layer, keepdims=False)


def _check_tied(directory: Path, slices: Mapping[str, Any]) -> None:
    """Raise ModelError where a tied model was saved with an output matrix that differs from its embedding."""
    embedding, head = slices[EMBEDDING], slices[HEAD]
    vocabulary, width = embedding.get_shape()
    same = head.get_shape() == [vocabulary, width]
    rows = max(1, PIECE_BYTES // (8 * width))
    for start in range(0, vocabulary if same else 0, rows):
        stop = min(start + rows, vocabulary)
        same = same and np.array_equal(embedding[start:stop], head[start:stop])
    if not same:
        raise ModelError(f"{directory}: tie_word_embeddings is true, but {HEAD} differs from the embedding")


def load_parameter(
    tensors: HfTensors, slices: Mapping[str, Any], sharding: NamedSharding, dtype: np.dtype
) -> jax.Array:
    """Load a parameter onto its sharding: a small one transposed on the host, which needs no compilation, a larger one
    piece by piece, where the last piece may cover rows that are there already."""
    spec, turned = sharding.spec, tensors.transposed
    shape = _transpose_last(tensors.file_shape) if turned else tensors.file_shape
    in_file = NamedSharding(sharding.mesh, PartitionSpec(*(_transpose_last(spec) if turned else spec)))
    local = in_file.shard_shape(tensors.file_shape)[0]
    rows = _rows_a_piece(tensors, slices, in_file)
    if rows == local:
        array = _make_array(shape, sharding, lambda index: _read_transposed(tensors, slices, index, dtype))
        return jax.block_until_ready(array)
    whole = _zeros(shape, dtype, sharding)
    for start in range(0, local, rows):
        start = min(start, local - rows)
        piece = _read_piece(tensors, slices, in_file, local, start, rows)
        axis = 0 if tensors.stacked or not turned else len(shape) - 1
        # A piece is read while the one before it is placed; no more are waiting, so that their buffers are freed.
        whole = _place(jax.block_until_ready(whole), piece, start, sharding, in_file, turned, axis)
    return jax.block_until_ready(whole)


def _transpose_last(axes: tuple[Any, ...] | PartitionSpec) -> tuple[Any, ...]:
    """Exchange the last two of the axes."""
    return (*axes[:-2], axes[-1], axes[-2])


def _rows_a_piece(tensors: HfTensors, slices: Mapping[str, Any], sharding: NamedSharding) -> int:
    """How many rows of each shard make a piece: the same number in every process, as they place it together."""
    distinct: dict[int, set[str]] = {}
    device: Any
    for device, index in sharding.devices_indices_map(tensors.file_shape).items():
        distinct.setdefault(device.process_index, set()).add(str(index))
    local, *rest = sharding.shard_shape(tensors.file_shape)
    sizes = {FILE_DTYPES[slices[name].get_dtype()].itemsize for name in tensors.names}
    row_bytes = max(map(len, distinct.values())) * math.prod(rest) * max(sizes)
    return local if local * row_bytes <= SMALL_BYTES else max(1, min(local, PIECE_BYTES // row_bytes))


def _make_array(shape: tuple[int, ...], sharding: NamedSharding, read: Callable[[Index], np.ndarray]) -> jax.Array:
    """Make the array whose shards `read` returns; a shard that several devices hold is read once."""
    shards: dict[str, np.ndarray] = {}

    def shard(index: Any) -> np.ndarray:
        if str(index) not in shards:
            shards[str(index)] = read(index)
        return shards[str(index)]

    return jax.make_array_from_callback(shape, sharding, shard)


def _read_transposed(tensors: HfTensors, slices: Mapping[str, Any], index: Index, dtype: np.dtype) -> np.ndarray:
    """Read the slice of a parameter, in its own order and type."""
    if not tensors.transposed:
        return _read(tensors, slices, index).astype(dtype)
    return np.swapaxes(_read(tensors, slices, _transpose_last(index)), -1, -2).astype(dtype, order="C")


def _read_piece(
    tensors: HfTensors, slices: Mapping[str, Any], sharding: NamedSharding, local: int, start: int, rows: int
) -> jax.Array:
    """Rows `start` to `start + rows` of every device's shard, as one array in the order and the type of the files."""

    def read(index: Index) -> np.ndarray:
        first = (index[0].start or 0) // rows * local + start
        return _read(tensors, slices, (slice(first, first + rows), *index[1:]))

    shape = (tensors.file_shape[0] // local * rows, *tensors.file_shape[1:])
    return _make_array(shape, sharding, read)


def _read(tensors: HfTensors, slices: Mapping[str, Any], index: Index) -> np.ndarray:
    """Read the slice of a parameter, as the files hold it."""
    if not tensors.stacked:
        return slices[tensors.names[0]][index]
    layers = [slices[name][index[1:]] for name in tensors.names[index[0]]]
    return layers[0][None] if len(layers) == 1 else np.stack(layers)


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "sharding"))
def _zeros(shape: tuple[int, ...], dtype: np.dtype, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(jnp.zeros(shape, dtype), sharding)


@functools.partial(jax.jit, static_argnames=("sharding", "in_file", "transposed", "axis"), donate_argnames="whole")
def _place(
    whole: jax.Array,
    piece: jax.Array,
    start: Any,
    sharding: NamedSharding,
    in_file: NamedSharding,
    transposed: bool,
    axis: int,
) -> jax.Array:
    """`whole` with the piece at `start` of every device's own shard: nothing moves between devices."""

    def place(whole: jax.Array, piece: jax.Array, start: jax.Array) -> jax.Array:
        turned = jnp.swapaxes(piece, -1, -2) if transposed else piece
        return jax.lax.dynamic_update_slice_in_dim(whole, turned.astype(whole.dtype), start, axis)

    specs = (sharding.spec, in_file.spec, PartitionSpec())
    return jax.shard_map(place, mesh=sharding.mesh, in_specs=specs, out_specs=sharding.spec)(whole, piece, start)
