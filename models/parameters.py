"""The one table of parameters: its rows drive initialisation, sharding, loading and saving.

Parameters are plain nested dicts of arrays; a path such as "layers/attention/q" names the leaf
`params["layers"]["attention"]["q"]`. Weights of all layers are stacked along a leading axis L.
"""

import functools
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from models.config import LlamaConfig, ModelError
from models.families import FAMILIES
from models.sharding import WEIGHT_RULES, Rules, weight_spec

Params = dict[str, Any]
"""Nested dict whose leaves are arrays (or whatever was made for each parameter, such as its sharding)."""


@dataclass(frozen=True)
class ParamSpec:
    """Shape, logical axes and initialiser of one parameter: normal with deviation `scale`, or ones where it is None, as
    in norms."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    scale: float | None

    def init(self, key: jax.Array, dtype: DTypeLike = jnp.float32) -> jax.Array:
        """Draw a fresh value of the parameter."""
        if self.scale is None:
            return jnp.ones(self.shape, dtype)
        return (self.scale * jax.random.normal(key, self.shape, jnp.float32)).astype(dtype)


def parameter_table(config: LlamaConfig) -> Mapping[str, ParamSpec]:
    """Path -> ParamSpec of every parameter; an untied network has an `lm_head` of its own."""
    return dict(_table(config))


@functools.lru_cache
def _table(config: LlamaConfig) -> tuple[tuple[str, ParamSpec], ...]:
    layers, embed, mlp = config.num_layers, config.hidden_size, config.intermediate_size
    heads, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size

    def normal(shape: tuple[int, ...], *axes: str) -> ParamSpec:
        return ParamSpec(shape, axes, config.initializer_range)

    table = {
        "embedding": normal((config.vocab_size, embed), "vocab", "embed"),
        "layers/attention_norm": ParamSpec((layers, embed), ("layers", "norm"), None),
        "layers/attention/q": normal((layers, embed, heads), "layers", "embed", "heads"),
        "layers/attention/k": normal((layers, embed, kv), "layers", "embed", "kv"),
        "layers/attention/v": normal((layers, embed, kv), "layers", "embed", "kv"),
        "layers/attention/o": normal((layers, heads, embed), "layers", "heads", "embed"),
        "layers/mlp_norm": ParamSpec((layers, embed), ("layers", "norm"), None),
        "layers/mlp/gate": normal((layers, embed, mlp), "layers", "embed", "mlp"),
        "layers/mlp/up": normal((layers, embed, mlp), "layers", "embed", "mlp"),
        "layers/mlp/down": normal((layers, mlp, embed), "layers", "mlp", "embed"),
        "final_norm": ParamSpec((embed,), ("norm",), None),
    }
    if FAMILIES[config.family].qkv_bias:
        table |= {
            f"layers/attention/{name}_bias": ParamSpec((layers, width), ("layers", axis), 0.0)
            for name, width, axis in (("q", heads, "heads"), ("k", kv, "kv"), ("v", kv, "kv"))
        }
    if FAMILIES[config.family].qk_norm:
        table |= {
            f"layers/attention/{name}_norm": ParamSpec((layers, config.head_size), ("layers", "norm"), None)
            for name in ("q", "k")
        }
    if not config.tie_word_embeddings:
        table["lm_head"] = normal((embed, config.vocab_size), "embed", "vocab")
    return tuple(table.items())


def nest(flat: Mapping[str, Any]) -> Params:
    """{"a/b": 1} as {"a": {"b": 1}}."""
    nested: Params = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        functools.reduce(lambda node, parent: node.setdefault(parent, {}), parents, nested)[name] = value
    return nested


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn {"a": {"b": 1}} into {"a/b": 1}, the inverse of `nest`."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def param_shardings(config: LlamaConfig, mesh: Mesh, rules: Rules = WEIGHT_RULES) -> Params:
    """NamedSharding of every parameter, nested. Raises ModelError (see `models.sharding.weight_spec`)."""
    return nest(
        {
            path: NamedSharding(mesh, weight_spec(path, spec.shape, spec.axes, mesh, rules))
            for path, spec in parameter_table(config).items()
        }
    )


def param_shapes(
    config: LlamaConfig, mesh: Mesh, dtype: DTypeLike = jnp.float32, rules: Rules = WEIGHT_RULES
) -> Params:
    """Every parameter as a sharded jax.ShapeDtypeStruct, nested: for restoring and for ahead-of-time compilation."""
    shardings = flatten(param_shardings(config, mesh, rules))
    table = parameter_table(config)
    return nest({path: jax.ShapeDtypeStruct(table[path].shape, dtype, sharding=shardings[path]) for path in table})


def init_params(config: LlamaConfig, key: jax.Array, mesh: Mesh, dtype: DTypeLike = jnp.float32) -> Params:
    """Fresh parameters, made on the devices that hold them.

    Values depend on `key` and the path; on the mesh only by rounding (the last bit, with some releases of jax).
    """

    def make(key: jax.Array) -> Params:
        keys = {path: jax.random.fold_in(key, zlib.crc32(path.encode())) for path in parameter_table(config)}
        return nest({path: spec.init(keys[path], dtype) for path, spec in parameter_table(config).items()})

    return jax.jit(make, out_shardings=param_shardings(config, mesh))(key)


def count_params(config: LlamaConfig) -> int:
    """Count the parameters."""
    return sum(math.prod(spec.shape) for spec in parameter_table(config).values())


def replicated_share(config: LlamaConfig, mesh: Mesh, rules: Rules = WEIGHT_RULES) -> float:
    """Share of the parameters that every device of the mesh holds whole, from 0 to 1; 0 on a single device."""
    if mesh.size == 1:
        return 0.0
    shardings = flatten(param_shardings(config, mesh, rules))
    table = parameter_table(config)
    whole = sum(math.prod(spec.shape) for path, spec in table.items() if shardings[path].is_fully_replicated)
    return whole / count_params(config)


def check_params(config: LlamaConfig, params: Mapping[str, Any]) -> None:
    """Raise ModelError unless `params` has exactly the paths and shapes of the table."""
    table, found = parameter_table(config), flatten(params)
    missing, unknown = sorted(table.keys() - found.keys()), sorted(found.keys() - table.keys())
    if missing or unknown:
        raise ModelError(f"parameters missing: {missing or 'none'}; not of this network: {unknown or 'none'}")
    for path, spec in table.items():
        if tuple(found[path].shape) != spec.shape:
            raise ModelError(f"parameter {path} has shape {tuple(found[path].shape)}, the network needs {spec.shape}")
