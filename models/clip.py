"""The CLIP network (arXiv:2103.00020) as flax.linen modules over plain nested dicts of parameters.

image_be = embed_images(params, pixels_bcyx, config, mesh)
text_be = embed_texts(params, tokens_bt, mask_bt, config, mesh)
logits_bb = image_text_logits(image_be, text_be, params["logit_scale"])

Letters of shapes, besides the usual ones: C colours, Y and X pixels, E the joint space of both sides.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from models.attention import attend
from models.clip_config import LEGACY_EOS, ClipConfig, TowerConfig
from models.clip_parameters import clip_table
from models.sharding import constrain


def embed_images(
    params: Mapping[str, Any],
    pixels_bcyx: Float[Array, "B C Y X"],
    config: ClipConfig,
    mesh: Mesh,
    compute_dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B E"]:
    """Embed images in the joint space, not normalised, in float32. Pixels are those of `models.clip_image`.

    Raises ModelError where the rows do not divide over mesh axis "data".
    """
    embeddings_be: Any = VisionTower(config, mesh, compute_dtype).apply({"params": params["vision"]}, pixels_bcyx)
    return embeddings_be


def embed_texts(
    params: Mapping[str, Any],
    tokens_bt: Int[Array, "B T"],
    mask_bt: Bool[Array, "B T"],
    config: ClipConfig,
    mesh: Mesh,
    compute_dtype: DTypeLike = jnp.float32,
) -> Float[Array, "B E"]:
    """Embed texts in the joint space, not normalised, in float32. mask: True for the tokens of the text.

    Raises ModelError where the rows do not divide over mesh axis "data".
    """
    embeddings_be: Any = TextTower(config, mesh, compute_dtype).apply({"params": params["text"]}, tokens_bt, mask_bt)
    return embeddings_be


def image_text_logits(
    image_ie: Float[Array, "I E"], text_be: Float[Array, "B E"], logit_scale: Float[Array, ""]
) -> Float[Array, "I B"]:
    """exp(logit_scale) times the cosine of each image with each text (arXiv:2103.00020, figure 3)."""
    return jnp.exp(logit_scale) * normalise(image_ie) @ normalise(text_be).T


def normalise(x_be: Float[Array, "B E"]) -> Float[Array, "B E"]:
    """Scale every row to length 1."""
    return x_be / jnp.linalg.norm(x_be, axis=-1, keepdims=True)


class VisionTower(nn.Module):
    """ViT (arXiv:2010.11929): patches and a class token, whose final state is projected into the joint space."""

    config: ClipConfig
    mesh: Mesh
    compute_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pixels_bcyx: Float[Array, "B C Y X"]) -> Float[Array, "B E"]:
        """Embeddings of the images."""
        vision, dtype = self.config.vision, self.compute_dtype
        patches_btp = cut_patches(pixels_bcyx.astype(dtype), vision.patch_size)
        kernel_dp = _weight(self, "vision", "patch_embedding").reshape(vision.tower.hidden_size, -1)
        x_btd = patches_btp @ kernel_dp.T.astype(dtype)
        class_d = _weight(self, "vision", "class_embedding").astype(dtype)
        x_btd = jnp.concatenate([jnp.broadcast_to(class_d, (len(x_btd), 1, len(class_d))), x_btd], axis=1)
        x_btd = constrain(x_btd + _weight(self, "vision", "position_embedding").astype(dtype), self.mesh, *ROWS)
        x_btd = _norm(vision.tower, dtype, "first_norm")(x_btd)
        mask_bts = jnp.ones((len(x_btd), vision.tokens, vision.tokens), bool)
        x_btd = _layers(vision.tower, self.mesh, dtype)(x_btd, mask_bts)
        pooled_bd = _norm(vision.tower, dtype, "final_norm")(x_btd[:, 0])
        return _project(self.config, dtype)(pooled_bd).astype(jnp.float32)


class TextTower(nn.Module):
    """A causal transformer, whose state at the end-of-text token is projected into the joint space."""

    config: ClipConfig
    mesh: Mesh
    compute_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens_bt: Int[Array, "B T"], mask_bt: Bool[Array, "B T"]) -> Float[Array, "B E"]:
        """Embeddings of the texts."""
        text, dtype, length = self.config.text, self.compute_dtype, tokens_bt.shape[1]
        x_btd = _weight(self, "text", "token_embedding")[tokens_bt].astype(dtype)
        position_td = _weight(self, "text", "position_embedding")[:length].astype(dtype)
        x_btd = constrain(x_btd + position_td, self.mesh, *ROWS)
        mask_bts = jnp.tril(jnp.ones((length, length), bool)) & mask_bt[:, None, :]
        x_btd = _layers(text.tower, self.mesh, dtype)(x_btd, mask_bts)
        x_btd = _norm(text.tower, dtype, "final_norm")(x_btd)
        pooled_bd = jnp.take_along_axis(x_btd, ends(tokens_bt, text.eos_token_id)[:, None, None], axis=1)[:, 0]
        return _project(self.config, dtype)(pooled_bd).astype(jnp.float32)


class Block(nn.Module):
    """One layer: attention, then the mlp, each on the normalised residual stream and added to it."""

    tower: TowerConfig
    mesh: Mesh
    compute_dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x_btd: Float[Array, "B T D"], mask_bts: Bool[Array, "B T T"]
    ) -> tuple[Float[Array, "B T D"], None]:
        """Return the residual stream after this layer (and None, which nn.scan asks for)."""
        tower, shared = self.tower, (self.tower, self.mesh, self.compute_dtype)
        normed_btd = _norm(tower, self.compute_dtype, "attention_norm")(x_btd)
        x_btd = x_btd + Attention(*shared, name="attention")(normed_btd, mask_bts)
        normed_btd = _norm(tower, self.compute_dtype, "mlp_norm")(x_btd)
        return constrain(x_btd + Mlp(*shared, name="mlp")(normed_btd), self.mesh, *ROWS), None


class Attention(nn.Module):
    """Multi-head attention with biases. Heads are split over "tensor" where it divides their number."""

    tower: TowerConfig
    mesh: Mesh
    compute_dtype: DTypeLike

    @nn.compact
    def __call__(self, x_btd: Float[Array, "B T D"], mask_bts: Bool[Array, "B T T"]) -> Float[Array, "B T D"]:
        """Compute what attention adds to the residual stream."""
        tower = self.tower
        axis = "heads" if tower.num_heads % self.mesh.shape["tensor"] == 0 else None

        def heads(name: str) -> jax.Array:
            flat_btd = constrain(
                _dense(tower.hidden_size, self.compute_dtype, name)(x_btd), self.mesh, *ROWS[:2], "heads"
            )
            split_btnh = flat_btd.reshape(*x_btd.shape[:2], tower.num_heads, tower.head_size)
            return constrain(split_btnh, self.mesh, *ROWS[:2], axis, None)

        mixed_btnh = attend(heads("q"), heads("k"), heads("v"), mask_bts)
        flat_btd = constrain(mixed_btnh.reshape(x_btd.shape), self.mesh, *ROWS[:2], "heads")
        return _dense(tower.hidden_size, self.compute_dtype, "o")(flat_btd)


class Mlp(nn.Module):
    """down(activation(up x)), with biases."""

    tower: TowerConfig
    mesh: Mesh
    compute_dtype: DTypeLike

    @nn.compact
    def __call__(self, x_btd: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Compute what the mlp adds to the residual stream."""
        inner_btf = _dense(self.tower.intermediate_size, self.compute_dtype, "up")(x_btd)
        inner_btf = constrain(activate(inner_btf, self.tower.activation), self.mesh, *ROWS[:2], "mlp")
        return _dense(self.tower.hidden_size, self.compute_dtype, "down")(inner_btf)


ROWS = ("batch", None, None)
"""Logical axes of the residual stream: rows over "data", the rest whole."""


def activate(x: Float[Array, "..."], name: str) -> Float[Array, "..."]:
    """ "quick_gelu": x sigmoid(1.702 x), as the published CLIP networks have it; "gelu": x Phi(x)
    (arXiv:1606.08415)."""
    return x * jax.nn.sigmoid(1.702 * x) if name == "quick_gelu" else jax.nn.gelu(x, approximate=False)


def cut_patches(pixels_bcyx: Float[Array, "B C Y X"], size: int) -> Float[Array, "B T P"]:
    """Cut images into squares of `size` pixels, row by row, each flat in the order colour, y, x.

    In:  size 1, pixels [[[[1, 2], [3, 4]], [[5, 6], [7, 8]]]]
    Out: [[[1, 5], [2, 6], [3, 7], [4, 8]]]
    """
    batch, colours, height, width = pixels_bcyx.shape
    down, across = height // size, width // size
    whole = pixels_bcyx[:, :, : down * size, : across * size]
    squares = whole.reshape(batch, colours, down, size, across, size).transpose(0, 2, 4, 1, 3, 5)
    return squares.reshape(batch, down * across, -1)


def ends(tokens_bt: Int[Array, "B T"], eos_token_id: int) -> Int[Array, " B"]:
    """Where each text ends: at its first end token. With LEGACY_EOS at its first token of the largest id, which is the
    end token of the published vocabulary.

    In:  [[5, 9, 7, 7]] with end 7   Out: [2]
    In:  [[5, 9, 7, 7]] with end 2   Out: [1]
    """
    return jnp.argmax(tokens_bt if eos_token_id == LEGACY_EOS else tokens_bt == eos_token_id, axis=1)


def _weight(module: VisionTower | TextTower, side: str, name: str) -> jax.Array:
    return module.param(name, nn.initializers.zeros, clip_table(module.config)[f"{side}/{name}"].shape)


def _dense(width: int, dtype: DTypeLike, name: str) -> nn.Dense:
    return nn.Dense(width, dtype=dtype, name=name)


def _norm(tower: TowerConfig, dtype: DTypeLike, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(tower.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name)


def _project(config: ClipConfig, dtype: DTypeLike) -> nn.Dense:
    return nn.Dense(config.projection_dim, use_bias=False, dtype=dtype, name="projection")


def _layers(tower: TowerConfig, mesh: Mesh, dtype: DTypeLike) -> Any:
    """Make a function of the residual stream and the causal mask that scans over the layers."""
    scan = nn.scan(
        Block, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast, length=tower.num_layers
    )
    layers = scan(tower, mesh, dtype, name="layers")
    return lambda x_btd, mask_bts: layers(x_btd, mask_bts)[0]
