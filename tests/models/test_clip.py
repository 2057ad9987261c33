"""The CLIP network against Hugging Face torch, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_clip import save_clip

from models.clip import embed_images, embed_texts, image_text_logits, normalised
from models.clip_io import load_clip

TOKENS_BT = np.random.default_rng(0).integers(3, 46, (8, 12))
TOKENS_BT[np.arange(8), [11, 3, 5, 11, 8, 2, 9, 7]] = 47
MASK_BT = np.arange(12) <= np.argmax(TOKENS_BT == 47, axis=1)[:, None]


def pixels_of(size, channels=3):
    return np.random.default_rng(1).normal(size=(8, channels, size, size)).astype(np.float32)


def embed(loaded, mesh, pixels_bcyx, dtype=jnp.float32):
    """Embeddings of the images and of TOKENS_BT."""
    images = jax.jit(lambda params, x: embed_images(params, x, loaded.config, mesh, dtype))
    texts = jax.jit(lambda params, x, mask: embed_texts(params, x, mask, loaded.config, mesh, dtype))
    tokens_bt, mask_bt = jnp.asarray(TOKENS_BT), jnp.asarray(MASK_BT)
    return images(loaded.params, jnp.asarray(pixels_bcyx)), texts(loaded.params, tokens_bt, mask_bt)


@pytest.mark.parametrize("mesh_shape", [(1, 1), (4, 2)])
@pytest.mark.parametrize(
    ("vision", "text", "settings"),
    [
        pytest.param({}, {}, {}, id="quick gelu"),
        pytest.param({"hidden_act": "gelu"}, {"hidden_act": "gelu", "eos_token_id": 2}, {}, id="gelu, legacy end"),
        pytest.param(
            {"image_size": 30, "patch_size": 7, "num_attention_heads": 1, "num_channels": 1, "layer_norm_eps": 1e-3},
            {"num_attention_heads": 3, "num_hidden_layers": 1},
            {"projection_dim": 5},
            id="patches that leave a rest, odd heads, one colour",
        ),
    ],
)
def test_embeddings_and_logits_are_those_of_hugging_face(vision, text, settings, mesh_shape, tmp_path, mesh_of):
    torch = pytest.importorskip("torch")
    import transformers

    save_clip(tmp_path, vision, text, **settings)
    mesh = mesh_of(*mesh_shape)
    loaded = load_clip(tmp_path, mesh)
    pixels_bcyx = pixels_of(loaded.config.vision.image_size, loaded.config.vision.num_channels)
    image_be, text_be = embed(loaded, mesh, pixels_bcyx)

    model = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        theirs = model(
            input_ids=torch.tensor(TOKENS_BT),
            attention_mask=torch.tensor(MASK_BT.astype(np.int64)),
            pixel_values=torch.tensor(pixels_bcyx),
        )
    np.testing.assert_allclose(normalised(image_be), theirs.image_embeds.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(normalised(text_be), theirs.text_embeds.numpy(), rtol=0, atol=1e-5)
    ours = np.asarray(image_text_logits(image_be, text_be, loaded.params["logit_scale"]))
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(ours, theirs.logits_per_image.numpy(), rtol=0, atol=1e-5)
