"""How arrays are split over a mesh with axes "data", "tensor" and, for long rows, "sequence": a table for weights, one
for activations.

Weights are split over "data" and "sequence" along the model axis (fully sharded data parallelism: they are gathered a
layer at a time) and over "tensor" along heads, mlp and vocabulary. Activations are split over "data" along rows, over
"sequence" along tokens and over "tensor" along heads, mlp and vocabulary; between layers, without a cache, also over
"tensor" along the model axis: the backward pass keeps that residual stream of every layer. A mesh may leave "sequence"
out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from models.config import LlamaConfig, ModelError

Rules = tuple[tuple[str, tuple[str, ...]], ...]
"""Pairs (logical axis, the mesh axes it is split over; none: not split)."""

WEIGHT_RULES: Rules = (
    ("layers", ()),
    ("norm", ()),
    ("embed", ("data", "sequence")),
    ("heads", ("tensor",)),
    ("kv", ("tensor",)),
    ("mlp", ("tensor",)),
    ("vocab", ("tensor",)),
    ("rank", ()),
)
INFERENCE_RULES: Rules = tuple((name, () if name == "embed" else axes) for name, axes in WEIGHT_RULES)
"""Weights split over "tensor" only, so that a decode step gathers none of them."""

ACTIVATION_AXES: Mapping[str, str] = MappingProxyType(
    {
        "batch": "data",
        "tokens": "sequence",
        "residual": "tensor",
        "heads": "tensor",
        "kv": "tensor",
        "mlp": "tensor",
        "vocab": "tensor",
    }
)


@dataclass(frozen=True)
class HeadAxes:
    """Logical axes of the head dimensions of activations: "heads"/"kv" where split over "tensor", None where whole."""

    query: str | None
    kv: str | None
    report: str


def head_axis(config: LlamaConfig, mesh: Mesh) -> HeadAxes:
    """Whether query heads and key/value heads are split over the tensor axis, with a sentence that says so.

    Weights of q, k, v are flat [D, heads * H] and always split; a head count that the tensor axis does not divide
    (SmolLM2: 9 and 3 heads on 2) leaves that axis of the activations, and of the KV cache, whole on every device.
    """
    tensor = mesh.shape["tensor"]
    query = "heads" if config.num_heads % tensor == 0 else None
    kv = "kv" if config.num_kv_heads % tensor == 0 else None

    def place(axis: str | None) -> str:
        return "whole on every device" if axis is None or tensor == 1 else f"split over {tensor}"

    report = (
        f"attention on tensor={tensor}: {config.num_heads} query heads {place(query)}, "
        f"{config.num_kv_heads} key/value heads {place(kv)}"
    )
    return HeadAxes(query, kv, report)


def is_cpu_bfloat16(mesh: Mesh, dtype: DTypeLike) -> bool:
    """Whether bfloat16 is computed on CPUs, which XLA does quickly in some forms only."""
    return mesh.devices.flat[0].platform == "cpu" and jnp.dtype(dtype) == jnp.bfloat16


def activation_sharding(mesh: Mesh, shape: tuple[int, ...], *axes: str | None) -> NamedSharding:
    """Sharding of an activation of this shape whose dimensions are the logical `axes` (None: not split).

    Raises ModelError, naming both numbers, where a mesh axis does not divide its dimension: callers pad rows.
    """
    if len(axes) != len(shape):
        raise ModelError(f"{len(axes)} axes {axes} given for an array of shape {shape}")
    names = [None if axis is None else ACTIVATION_AXES[axis] for axis in axes]
    names = [name if name in mesh.shape else None for name in names]
    for axis, name, size in zip(axes, names, shape, strict=True):
        if name is not None and size % mesh.shape[name]:
            raise ModelError(f"{axis} of size {size} does not divide over mesh axis {name!r} of {mesh.shape[name]}")
    return NamedSharding(mesh, PartitionSpec(*names))


def constrain(x: jax.Array, mesh: Mesh, *axes: str | None) -> jax.Array:
    """`x`, bound to the sharding of its logical `axes`, as `constrain(h, mesh, "batch", None, None)`."""
    return jax.lax.with_sharding_constraint(x, activation_sharding(mesh, x.shape, *axes))


def weight_spec(path: str, shape: tuple[int, ...], axes: tuple[str, ...], mesh: Mesh, rules: Rules) -> PartitionSpec:
    """Mesh axes of a parameter: each logical axis is found by exactly one rule and divides evenly.

    Raises ModelError, naming the parameter and the numbers, for an axis without a rule or with two, for two axes on
    one mesh axis, and for a dimension that its mesh axes do not divide.
    """
    split = [tuple(name for name in _only_rule(path, axis, rules) if name in mesh.shape) for axis in axes]
    used = [name for names in split for name in names]
    for axis, names, size in zip(axes, split, shape, strict=True):
        for name in names:
            if used.count(name) > 1:
                raise ModelError(f"parameter {path} has axes {axes}, of which two go to mesh axis {name!r}")
        parts = math.prod(mesh.shape[name] for name in names)
        if size % parts:
            raise ModelError(
                f"parameter {path}: axis {axis} of size {size} does not divide over "
                f"mesh axis {' x '.join(map(repr, names))} of {parts}"
            )
    return PartitionSpec(*(names[0] if len(names) == 1 else names or None for names in split))


def _only_rule(path: str, axis: str, rules: Rules) -> tuple[str, ...]:
    found = [names for rule, names in rules if rule == axis]
    if len(found) != 1:
        raise ModelError(f"parameter {path}: axis {axis!r} has {len(found)} sharding rules {found}, it needs exactly 1")
    return found[0]
