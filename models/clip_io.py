"""CLIP weights in Hugging Face directories, read slice by slice onto a mesh (see `models.hf_io`)."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from models.clip_config import ClipConfig, clip_from_hf
from models.clip_image import Preprocessing, preprocessing_from_hf
from models.clip_parameters import clip_shardings, clip_table
from models.config import ModelError
from models.hf_io import HfTensors, load_parameter
from models.parameters import Params, flatten, nest
from models.weight_files import check_stored, open_weights

SIDES = {"vision": "vision_model", "text": "text_model"}
PARTS = {
    "attention_norm": "layer_norm1",
    "mlp_norm": "layer_norm2",
    "attention/q": "self_attn.q_proj",
    "attention/k": "self_attn.k_proj",
    "attention/v": "self_attn.v_proj",
    "attention/o": "self_attn.out_proj",
    "mlp/up": "mlp.fc1",
    "mlp/down": "mlp.fc2",
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
OTHER_TENSORS = {
    "vision/class_embedding": "vision_model.embeddings.class_embedding",
    "vision/patch_embedding": "vision_model.embeddings.patch_embedding.weight",
    "vision/position_embedding": "vision_model.embeddings.position_embedding.weight",
    "vision/first_norm/scale": "vision_model.pre_layrnorm.weight",  # so spelt in every file
    "vision/first_norm/bias": "vision_model.pre_layrnorm.bias",
    "vision/final_norm/scale": "vision_model.post_layernorm.weight",
    "vision/final_norm/bias": "vision_model.post_layernorm.bias",
    "vision/projection/kernel": "visual_projection.weight",
    "text/token_embedding": "text_model.embeddings.token_embedding.weight",
    "text/position_embedding": "text_model.embeddings.position_embedding.weight",
    "text/final_norm/scale": "text_model.final_layer_norm.weight",
    "text/final_norm/bias": "text_model.final_layer_norm.bias",
    "text/projection/kernel": "text_projection.weight",
    "logit_scale": "logit_scale",
}
DERIVED_SUFFIX = ".position_ids"
"""Old checkpoints also hold the numbers 0, 1, 2, ...; they are left out."""


@dataclass(frozen=True)
class LoadedClip:
    """A configuration, its parameters, sharded over the mesh they were loaded for, and how images become pixels."""

    config: ClipConfig
    params: Params
    preprocessing: Preprocessing


def clip_layout(config: ClipConfig) -> dict[str, HfTensors]:
    """Path -> HfTensors of every parameter of the table."""
    layout = {}
    for path, spec in clip_table(config).items():
        side, _, within = path.partition("/layers/")
        transposed, own = path.endswith("/kernel"), spec.shape[1:] if within else spec.shape
        if within:
            part, _, leaf = within.rpartition("/")
            names = tuple(
                f"{SIDES[side]}.encoder.layers.{layer}.{PARTS[part]}.{LEAVES[leaf]}" for layer in range(spec.shape[0])
            )
        else:
            names = (OTHER_TENSORS[path],)
        layout[path] = HfTensors(names, own[::-1] if transposed else own, bool(within), transposed)
    return layout


def load_clip(directory: str | Path, mesh: Mesh, dtype: DTypeLike = jnp.float32) -> LoadedClip:
    """Load the CLIP network of a Hugging Face directory, sharded over `mesh` by the table, its weights in `dtype`.

    Raises ModelError, before any weight is read, for a directory that is missing or holds something else, a network
    that the mesh does not divide, damaged files, any tensor without parameter or parameter without tensor, and images
    made of another size than the network sees.
    """
    directory = Path(directory)
    config = clip_from_hf(directory)
    preprocessing = preprocessing_from_hf(directory)
    size = config.vision.image_size
    if preprocessing.shape not in (None, (size, size)):
        raise ModelError(
            f"{directory}: images are made {preprocessing.shape[0]} pixels high and {preprocessing.shape[1]} wide, the "
            f"network sees {size} x {size}"
        )
    shardings, layout = flatten(clip_shardings(config, mesh)), clip_layout(config)
    with ExitStack() as stack:
        slices = open_weights(stack, directory)
        derived = {name for name in slices if name.endswith(DERIVED_SUFFIX)}
        check_stored(
            str(directory), slices, [stored for tensors in layout.values() for stored in tensors.stored], derived
        )
        params = {path: _load(tensors, slices, shardings[path], jnp.dtype(dtype)) for path, tensors in layout.items()}
    return LoadedClip(config, nest(params), preprocessing)


def _load(tensors: HfTensors, slices: dict[str, Any], sharding: Any, dtype: np.dtype) -> jax.Array:
    if tensors.shape == ():
        return jax.device_put(np.asarray(slices[tensors.names[0]][...]).astype(dtype), sharding)
    return load_parameter(tensors, slices, sharding, dtype)
