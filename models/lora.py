"""LoRA (arXiv:2106.09685): adapters a [L, I, r] and b [L, r, O] for stacked weights W [L, I, O].

The effective weight is W + alpha / rank * a b. Adapters lie in the parameters under "lora", in the tree of the weights
that they adapt: `params["lora"]["layers"]["attention"]["q"]["a"]`. Without that entry the network is the frozen one.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike

from models.config import LlamaConfig, ModelError
from models.parameters import Params, ParamSpec, flatten, nest, parameter_table
from models.sharding import WEIGHT_RULES, Rules, weight_spec

LORA = "lora"
TARGETS = {
    "q": "layers/attention/q",
    "k": "layers/attention/k",
    "v": "layers/attention/v",
    "o": "layers/attention/o",
    "gate": "layers/mlp/gate",
    "up": "layers/mlp/up",
    "down": "layers/mlp/down",
}
"""Short name -> path of every weight that can be adapted."""


@dataclass(frozen=True)
class LoraConfig:
    """rank: r. alpha: the product of the adapters is scaled by alpha / rank. targets: names of TARGETS."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = tuple(TARGETS)

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ModelError(f"LoRA rank {self.rank} must be at least 1 and alpha {self.alpha} above 0")
        unknown = [name for name in self.targets if name not in TARGETS]
        if unknown or not self.targets:
            raise ModelError(f"LoRA targets {self.targets} must be some of {tuple(TARGETS)}; unknown: {unknown}")

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank


def lora_table(config: LlamaConfig, lora: LoraConfig) -> dict[str, ParamSpec]:
    """Path below "lora" -> ParamSpec of every adapter; `a` is random with deviation 1 / sqrt(3 I), `b` is zero.

    The deviation is that of PEFT's uniform initialisation. Raises ModelError for a rank above a weight's own.
    """
    table = parameter_table(config)
    specs: dict[str, ParamSpec] = {}
    for name in lora.targets:
        (layers, rows, columns), (_, row_axis, column_axis) = table[TARGETS[name]].shape, table[TARGETS[name]].axes
        if lora.rank > min(rows, columns):
            raise ModelError(f"LoRA rank {lora.rank} is above that of weight {name}, which is {rows} x {columns}")
        halves = {
            "a": ParamSpec((layers, rows, lora.rank), ("layers", row_axis, "rank"), (3 * rows) ** -0.5),
            "b": ParamSpec((layers, lora.rank, columns), ("layers", "rank", column_axis), 0.0),
        }
        specs |= {f"{TARGETS[name]}/{half}": spec for half, spec in halves.items()}
    return specs


def lora_shardings(config: LlamaConfig, lora: LoraConfig, mesh: Mesh, rules: Rules = WEIGHT_RULES) -> Params:
    """NamedSharding of every adapter, {"lora": ...}. Raises ModelError (see `models.sharding.weight_spec`)."""
    return {
        LORA: nest(
            {
                path: NamedSharding(mesh, weight_spec(path, spec.shape, spec.axes, mesh, rules))
                for path, spec in lora_table(config, lora).items()
            }
        )
    }


def lora_shapes(config: LlamaConfig, lora: LoraConfig, mesh: Mesh, dtype: DTypeLike = jnp.float32) -> Params:
    """Every adapter as a sharded jax.ShapeDtypeStruct, {"lora": ...}."""
    shardings, table = flatten(lora_shardings(config, lora, mesh)[LORA]), lora_table(config, lora)
    shapes = {path: jax.ShapeDtypeStruct(table[path].shape, dtype, sharding=shardings[path]) for path in table}
    return {LORA: nest(shapes)}


def init_lora(config: LlamaConfig, lora: LoraConfig, key: jax.Array, mesh: Mesh) -> Params:
    """Fresh adapters {"lora": ...}, float32: their product is zero, so the network is the frozen one."""
    table = lora_table(config, lora)

    def make(key: jax.Array) -> Params:
        keys = {path: jax.random.fold_in(key, zlib.crc32(path.encode())) for path in table}
        return {LORA: nest({path: spec.init(keys[path]) for path, spec in table.items()})}

    return jax.jit(make, out_shardings=lora_shardings(config, lora, mesh))(key)


def merge_adapters(params: Mapping[str, Any], lora: LoraConfig) -> Params:
    """Add the adapters to their weights, W + alpha / rank * a b, in the dtype of W, and return parameters without them.

    The product is taken in float32. Parameters without adapters come back as they are.
    """
    flat, adapters = flatten({name: x for name, x in params.items() if name != LORA}), flatten(params.get(LORA, {}))
    for path in {path.rpartition("/")[0] for path in adapters}:
        a_lir, b_lro = (adapters[f"{path}/{half}"].astype(jnp.float32) for half in ("a", "b"))
        product_lio = jnp.einsum("lir,lro->lio", a_lir, b_lro, precision="highest")
        flat[path] = (flat[path].astype(jnp.float32) + lora.scale * product_lio).astype(flat[path].dtype)
    return nest(flat)
