"""The CLIP network against Hugging Face torch, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_clip import save_clip

from models.clip import cut_patches, embed_images, embed_texts, ends, image_text_logits, normalise
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("meshes", "vision", "text", "settings"),
    [
        pytest.param([(1, 1), (4, 2)], {}, {}, {}, id="quick gelu"),
        pytest.param(
            [(1, 1)], {"hidden_act": "gelu"}, {"hidden_act": "gelu", "eos_token_id": 2}, {}, id="gelu, legacy end"
        ),
        pytest.param(
            [(4, 2)],
            {"image_size": 30, "patch_size": 7, "num_attention_heads": 1, "num_channels": 1, "layer_norm_eps": 1e-3},
            {"num_attention_heads": 3, "num_hidden_layers": 1},
            {"projection_dim": 5},
            id="patches that leave a rest, odd heads, one colour",
        ),
    ],
)
def test_embeddings_and_logits_are_those_of_hugging_face(meshes, vision, text, settings, tmp_path, mesh_of):
    torch = pytest.importorskip("torch")
    import transformers

    save_clip(tmp_path, vision, text, **settings)
    model = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    pixels_bcyx = pixels_of(model.config.vision_config.image_size, model.config.vision_config.num_channels)
    with torch.no_grad():
        theirs = model(
            input_ids=torch.tensor(TOKENS_BT),
            attention_mask=torch.tensor(MASK_BT.astype(np.int64)),
            pixel_values=torch.tensor(pixels_bcyx),
        )
    for mesh_shape in meshes:
        mesh = mesh_of(*mesh_shape)
        loaded = load_clip(tmp_path, mesh)
        image_be, text_be = embed(loaded, mesh, pixels_bcyx)
        np.testing.assert_allclose(normalise(image_be), theirs.image_embeds.numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(normalise(text_be), theirs.text_embeds.numpy(), rtol=0, atol=1e-5)
        ours = np.asarray(image_text_logits(image_be, text_be, loaded.params["logit_scale"]))
        assert np.ptp(ours) > 0.1
        np.testing.assert_allclose(ours, theirs.logits_per_image.numpy(), rtol=0, atol=1e-5)


def test_patches_are_cut_row_by_row_without_the_rest():
    pixels_bcyx = jnp.arange(2 * 5 * 5, dtype=jnp.float32).reshape(1, 2, 5, 5)
    expected = [
        [0, 1, 5, 6, 25, 26, 30, 31],
        [2, 3, 7, 8, 27, 28, 32, 33],
        [10, 11, 15, 16, 35, 36, 40, 41],
        [12, 13, 17, 18, 37, 38, 42, 43],
    ]
    assert cut_patches(pixels_bcyx, 2).tolist() == [expected]


def test_a_text_ends_at_its_first_end_token_or_by_the_old_rule_at_its_largest():
    tokens_bt = jnp.array([[5, 9, 7, 7], [7, 5, 5, 9], [5, 6, 9, 9]])
    assert ends(tokens_bt, 7).tolist() == [2, 0, 0]
    assert ends(tokens_bt, 2).tolist() == [1, 3, 2]


def test_logits_are_scaled_cosines():
    image_ie, text_be = jnp.array([[3.0, 4.0], [0.0, 2.0]]), jnp.array([[5.0, 0.0]])
    logits = image_text_logits(image_ie, text_be, jnp.log(jnp.float32(10.0)))
    np.testing.assert_allclose(logits, [[6.0], [0.0]], rtol=0, atol=1e-5)
