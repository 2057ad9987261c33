"""The parameters of a CLIP network: one row for each drives sharding, loading and checking.

Nested dicts as in `models.parameters`, named as flax.linen names the parts: "vision/layers/attention/q/kernel" is
`params["vision"]["layers"]["attention"]["q"]["kernel"]`, with all layers stacked along L.
"""

import functools
from collections.abc import Mapping

from jax.sharding import Mesh, NamedSharding

from models.clip_config import ClipConfig, TowerConfig
from models.parameters import Params, ParamSpec, nest
from models.sharding import INFERENCE_RULES, Rules, weight_spec

CLIP_RULES: Rules = (*INFERENCE_RULES, ("pixels", ()), ("positions", ()), ("joint", ()))
"""Split over "tensor" only, as for sampling: CLIP is not trained here."""

SCALE = 0.02  # deviation of fresh weights


def clip_table(config: ClipConfig) -> Mapping[str, ParamSpec]:
    """Path -> ParamSpec of every parameter."""
    return dict(_table(config))


def clip_shardings(config: ClipConfig, mesh: Mesh) -> Params:
    """NamedSharding of every parameter, nested. Raises ModelError (see `models.sharding.weight_spec`)."""
    return nest(
        {
            path: NamedSharding(mesh, weight_spec(path, spec.shape, spec.axes, mesh, CLIP_RULES))
            for path, spec in clip_table(config).items()
        }
    )


@functools.lru_cache
def _table(config: ClipConfig) -> tuple[tuple[str, ParamSpec], ...]:
    vision, text, joint = config.vision, config.text, config.projection_dim
    patch = (vision.num_channels, vision.patch_size, vision.patch_size)
    seen, read = vision.tower.hidden_size, text.tower.hidden_size
    table = {
        "vision/class_embedding": ParamSpec((seen,), ("norm",), SCALE),
        "vision/patch_embedding": ParamSpec((seen, *patch), ("norm", "pixels", "pixels", "pixels"), SCALE),
        "vision/position_embedding": ParamSpec((vision.tokens, seen), ("positions", "embed"), SCALE),
        **_norm("vision/first_norm", seen),
        **_layers("vision", vision.tower),
        **_norm("vision/final_norm", seen),
        "vision/projection/kernel": ParamSpec((seen, joint), ("embed", "joint"), SCALE),
        "text/token_embedding": ParamSpec((text.vocab_size, read), ("vocab", "embed"), SCALE),
        "text/position_embedding": ParamSpec((text.max_position_embeddings, read), ("positions", "embed"), SCALE),
        **_layers("text", text.tower),
        **_norm("text/final_norm", read),
        "text/projection/kernel": ParamSpec((read, joint), ("embed", "joint"), SCALE),
        "logit_scale": ParamSpec((), (), None),
    }
    return tuple(table.items())


def _norm(path: str, width: int) -> dict[str, ParamSpec]:
    return {
        f"{path}/scale": ParamSpec((width,), ("norm",), None),
        f"{path}/bias": ParamSpec((width,), ("norm",), 0.0),
    }


def _layers(side: str, tower: TowerConfig) -> dict[str, ParamSpec]:
    """Every parameter of the layers, stacked: first of one layer, then with L in front."""
    embed, mlp = (tower.hidden_size, "embed"), (tower.intermediate_size, "mlp")
    heads = (tower.hidden_size, "heads")
    products = {
        **{f"attention/{name}": (embed, heads) for name in ("q", "k", "v")},
        "attention/o": (heads, embed),
        "mlp/up": (embed, mlp),
        "mlp/down": (mlp, embed),
    }
    layer = {**_norm("attention_norm", tower.hidden_size), **_norm("mlp_norm", tower.hidden_size)}
    for name, ((rows, row_axis), (columns, column_axis)) in products.items():
        layer[f"{name}/kernel"] = ParamSpec((rows, columns), (row_axis, column_axis), SCALE)
        layer[f"{name}/bias"] = ParamSpec((columns,), (column_axis,), 0.0)
    return {
        f"{side}/layers/{name}": ParamSpec((tower.num_layers, *spec.shape), ("layers", *spec.axes), spec.scale)
        for name, spec in layer.items()
    }
