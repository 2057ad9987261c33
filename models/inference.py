"""Weights as sampling reads them: arrays of each layer, q|k|v in one matrix, gate|up in another, all [outputs, inputs].

A program that slices a layer's weights out of stacked arrays copies them, one that multiplies by three matrices puts
them beside one another first, and a CPU packs the second factor of a product anew: all in every step. So it is done
once, and the weights are the first factor. Of bfloat16 a CPU computes products quickly only as x W with W [inputs,
outputs]: there the matrices lie so.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from models.config import LlamaConfig
from models.parameters import Params, ParamSpec, flatten, nest, param_shapes, param_shardings, parameter_table
from models.products import multiply_cached
from models.sharding import INFERENCE_RULES, constrain, head_axis, is_cpu_bfloat16, weight_spec


def inference_table(config: LlamaConfig, mesh: Mesh, dtype: DTypeLike = jnp.float32) -> Mapping[str, ParamSpec]:
    """Path -> ParamSpec of every parameter of the layout: those of layer i are under "layers/i/".

    attention/qkv: [G (R + 2) H, D], for each key/value head its R query heads, its keys and its values, and
    attention/qkv_bias alike; q, k and v stay apart where the mesh's tensor axis does not divide the key/value heads.
    mlp/gate_up: [2 F, D], of each device gate, then up. lm_head: [V, D], as the embedding is.
    For bfloat16 on a CPU (`models.sharding.is_cpu_bfloat16`) matrices are the other way round, all but the embedding,
    beside which a tied network has lm_head, too.
    """
    table = dict(_table(config, mesh))
    if not is_cpu_bfloat16(mesh, dtype):
        return table
    table.setdefault("lm_head", table["embedding"])
    return {path: _turned(spec) if _is_factor(path, len(spec.shape)) else spec for path, spec in table.items()}


def _is_factor(path: str, axes: int) -> bool:
    return axes == 2 and path != "embedding"


def _turned(spec: ParamSpec) -> ParamSpec:
    return ParamSpec(spec.shape[::-1], spec.axes[::-1], spec.scale)


@functools.lru_cache
def _table(config: LlamaConfig, mesh: Mesh) -> tuple[tuple[str, ParamSpec], ...]:
    table = parameter_table(config)
    layer = {
        path.removeprefix("layers/"): ParamSpec(spec.shape[:0:-1], spec.axes[:0:-1], spec.scale)
        for path, spec in table.items()
        if path.startswith("layers/")
    }
    if is_fused(config, mesh):
        query, key, value = (layer.pop(f"attention/{name}") for name in "qkv")
        width = query.shape[0] + key.shape[0] + value.shape[0]
        layer["attention/qkv"] = ParamSpec((width, config.hidden_size), key.axes, None)
        if "attention/q_bias" in layer:
            axes = [layer.pop(f"attention/{name}_bias").axes for name in "qkv"]
            layer["attention/qkv_bias"] = ParamSpec((width,), axes[1], None)
    gate, up = layer.pop("mlp/gate"), layer.pop("mlp/up")
    layer["mlp/gate_up"] = ParamSpec((gate.shape[0] + up.shape[0], config.hidden_size), gate.axes, None)
    whole = {path: spec for path, spec in table.items() if not path.startswith("layers/")}
    if "lm_head" in whole:
        whole["lm_head"] = whole["embedding"]
    layers = {f"layers/{i}/{path}": spec for i in range(config.num_layers) for path, spec in layer.items()}
    return tuple((whole | layers).items())


def is_fused(config: LlamaConfig, mesh: Mesh) -> bool:
    """Whether q, k and v are one matrix: the mesh's tensor axis divides the key/value heads."""
    return head_axis(config, mesh).kv is not None


def inference_shardings(config: LlamaConfig, mesh: Mesh, dtype: DTypeLike = jnp.float32) -> Params:
    """NamedSharding of every parameter of the layout: split over "tensor" and whole along "data"."""
    return nest(
        {
            path: NamedSharding(mesh, weight_spec(path, spec.shape, spec.axes, mesh, INFERENCE_RULES))
            for path, spec in inference_table(config, mesh, dtype).items()
        }
    )


def inference_shapes(config: LlamaConfig, mesh: Mesh, dtype: DTypeLike) -> Params:
    """Every parameter of the layout as a sharded jax.ShapeDtypeStruct, nested; matrices in `dtype`."""
    shapes = jax.eval_shape(
        functools.partial(_lay_out, config=config, mesh=mesh, dtype=dtype), param_shapes(config, mesh)
    )
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        inference_shardings(config, mesh, dtype),
    )


def inference_params(params: Mapping[str, Any], config: LlamaConfig, mesh: Mesh, dtype: DTypeLike) -> Params:
    """Lay out parameters of training (`models.parameters`), which may lie on another mesh of the same devices.

    Matrices are cast to `dtype`, what a network that computes in `dtype` reads anyway, in less memory; the scales of
    norms stay as they are.
    """
    moved = jax.device_put(params, param_shardings(config, mesh, INFERENCE_RULES))
    lay_out = functools.partial(_lay_out, config=config, mesh=mesh, dtype=dtype)
    return jax.jit(lay_out, out_shardings=inference_shardings(config, mesh, dtype))(moved)


def next_logits(
    hidden_bd: Float[Array, "B D"], params: Mapping[str, Any], config: LlamaConfig, mesh: Mesh
) -> Float[Array, "B V"]:
    """Logits in float32 of the token that follows each, vocabulary over "tensor"."""
    tied = config.tie_word_embeddings and not is_cpu_bfloat16(mesh, hidden_bd.dtype)
    weight = params["embedding" if tied else "lm_head"]
    return constrain(multiply_cached(hidden_bd, weight, mesh).astype(jnp.float32), mesh, "batch", "vocab")


def _lay_out(params: Mapping[str, Any], config: LlamaConfig, mesh: Mesh, dtype: DTypeLike) -> Params:
    flat = {path: x if path.endswith("norm") else x.astype(dtype) for path, x in flatten(params).items()}
    found = {path: x for path, x in flat.items() if not path.startswith("layers/")}
    if "lm_head" in found:
        found["lm_head"] = found["lm_head"].T
    layers = {path.removeprefix("layers/"): x for path, x in flat.items() if path.startswith("layers/")}
    layers = {path: x.swapaxes(1, 2) if x.ndim == 3 else x for path, x in layers.items()}
    groups, tensor = config.num_kv_heads, mesh.shape["tensor"]
    if is_fused(config, mesh):
        for end in ("", "_bias") if "attention/q_bias" in layers else ("",):
            layers[f"attention/qkv{end}"] = _in_turn([layers.pop(f"attention/{name}{end}") for name in "qkv"], groups)
    layers["mlp/gate_up"] = _in_turn([layers.pop("mlp/gate"), layers.pop("mlp/up")], tensor)
    found |= {f"layers/{i}/{path}": x[i] for path, x in layers.items() for i in range(config.num_layers)}
    if is_cpu_bfloat16(mesh, dtype):
        found.setdefault("lm_head", found["embedding"])
        found = {path: x.T if _is_factor(path, x.ndim) else x for path, x in found.items()}
        found["embedding"] = found["embedding"].astype(jnp.float32)  # else every look-up would begin with that
    return nest(found)


def _in_turn(weights: list[jax.Array], parts: int) -> jax.Array:
    """Join matrices [L, O, I], or vectors [L, O], along their outputs, `parts` times a part of each."""
    layers, _, *inputs = weights[0].shape
    joined = jnp.concatenate([weight.reshape(layers, parts, -1, *inputs) for weight in weights], axis=2)
    return joined.reshape(layers, -1, *inputs)
