"""From picture files to pixels, against the Hugging Face image processor."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from models.clip_image import Preprocessing, centre, pixels, preprocess, preprocessing_from_hf, resized_size
from models.config import ModelError

OPENAI = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
"""The file of openai/clip-vit-base-patch32."""


def picture(mode, width, height):
    """An image of that mode with random values, transparency among them."""
    noise = np.random.default_rng(width * height)
    values = noise.integers(0, 256, (height, width, 4), dtype=np.uint8)
    image = Image.fromarray(values)
    if mode == "P":
        image = image.convert("RGB").quantize(16)
        image.info["transparency"] = 3
        return image
    return image if mode == "RGBA" else image.convert(mode)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "width", "height", "changes"),
    [
        ("RGB", 1280, 6000, {}),
        ("RGB", 3, 5, {}),
        ("L", 231, 229, {}),
        ("RGBA", 300, 101, {}),
        ("P", 57, 300, {}),
        ("LA", 57, 64, {"resample": 2}),
        ("1", 90, 31, {"resample": 0}),
        ("RGB", 301, 150, {"resample": 1, "size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 48}}),
        ("RGB", 301, 150, {"resample": 4, "size": {"height": 33, "width": 70}, "crop_size": 48}),
        ("RGB", 41, 40, {"do_resize": False, "crop_size": {"height": 33, "width": 50}}),
        ("RGB", 60, 40, {"do_center_crop": False, "size": {"height": 20, "width": 31}, "resample": 5}),
        ("RGB", 60, 40, {"do_normalize": False, "size": {"shortest_edge": 24}, "crop_size": 31}),
        ("RGB", 60, 40, {"do_rescale": False, "size": 32, "crop_size": 32}),
        ("RGB", 60, 40, {"rescale_factor": 0.01, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 0.5]}),
        ("RGB", 60, 40, {"do_convert_rgb": False}),
    ],
)
def test_pixels_are_those_of_the_hugging_face_processor(mode, width, height, changes):
    pytest.importorskip("torch")
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    settings = {**OPENAI, **changes}
    image = picture(mode, width, height)
    ours = pixels(image, preprocessing_from_hf(settings))
    theirs = CLIPImageProcessorPil(**settings)(image, return_tensors="np")["pixel_values"][0]
    assert np.ptp(ours) > 0.5
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)


def test_the_published_settings_are_the_defaults_and_both_files_are_read(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(OPENAI))
    assert preprocessing_from_hf(tmp_path) == preprocessing_from_hf({}) == Preprocessing()
    other = tmp_path / "of transformers 5"
    other.mkdir()
    nested = {"image_processor": {**OPENAI, "size": {"shortest_edge": 64, "longest_edge": None}}, "tokenizer": {}}
    (other / "processor_config.json").write_text(json.dumps(nested))
    assert preprocessing_from_hf(other) == Preprocessing(shortest_edge=64)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"feature_extractor_type": "ViTFeatureExtractor"}, "image_processor_type is 'ViTFeatureExtractor'"),
        ({"size": {"longest_edge": 9}}, "size is {'longest_edge': 9}, expected shortest_edge, or height and width"),
        ({"size": "224"}, "size.shortest_edge is '224', expected a whole number from 1 to 16384"),
        ({"size": {"shortest_edge": 0}}, "size.shortest_edge is 0, expected a whole number from 1 to 16384"),
        ({"crop_size": {"shortest_edge": 9}}, "crop_size is {'shortest_edge': 9}, expected height and width"),
        ({"resample": 9}, "resample is 9, expected a whole number from 0 to 5"),
        ({"do_resize": "yes"}, "do_resize is 'yes', expected true or false"),
        ({"do_pad": True}, "do_pad is set"),
        ({"image_std": [1, 2]}, "image_std is [1, 2], expected three numbers"),
        ({"image_std": [1, 0, 1]}, "image_std is [1.0, 0.0, 1.0], expected numbers above 0"),
        ({"rescale_factor": "a"}, "rescale_factor is 'a', expected a finite number"),
        ({"rescale_factor": float("nan")}, "rescale_factor is nan, expected a finite number"),
        ({"crop_size": 10**30}, "crop_size.height is 1000000000000000000000000000000, expected a whole number from 1"),
        ({"crop_size": None}, "crop_size is null, expected height and width"),
        ({"image_mean": [0.5, None, 0.5]}, "image_mean is null, expected a finite number"),
        ({"do_normalize": None}, "do_normalize is null, expected true or false"),
    ],
)
def test_settings_that_are_not_computed_are_named(changes, sentence, tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**OPENAI, **changes}))
    with pytest.raises(ModelError) as error:
        preprocessing_from_hf(tmp_path)
    assert str(error.value).startswith(f"{path}: {sentence}")


def test_files_that_say_nothing_are_named(tmp_path):
    with pytest.raises(ModelError, match="holds neither preprocessor_config.json nor processor_config.json; they say"):
        preprocessing_from_hf(tmp_path)
    (tmp_path / "processor_config.json").write_text("{}")
    with pytest.raises(ModelError, match="processor_config.json: image_processor is null, expected an object"):
        preprocessing_from_hf(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{\n"size": }')
    with pytest.raises(ModelError, match="preprocessor_config.json:2: not JSON: Expecting value"):
        preprocessing_from_hf(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"preprocessor_config.json: holds \[\], expected an object"):
        preprocessing_from_hf(tmp_path)


def test_an_image_that_is_not_converted_must_be_rgb():
    with pytest.raises(ModelError, match="the image is LA, and do_convert_rgb is false: expected RGB"):
        pixels(picture("LA", 5, 5), Preprocessing(convert=False))


def test_a_file_becomes_the_pixels_of_its_image():
    image, file = picture("RGBA", 50, 70), io.BytesIO()
    image.save(file, "PNG")
    np.testing.assert_array_equal(preprocess(file.getvalue(), Preprocessing()), pixels(image, Preprocessing()))


def test_the_middle_is_cut_out_or_surrounded_by_zeros():
    values_yxc = np.array([[[1], [2], [3], [4]]], np.uint8)
    assert centre(values_yxc, (1, 2))[0, :, 0].tolist() == [2, 3]
    assert centre(values_yxc, (1, 1))[0, :, 0].tolist() == [2]
    assert centre(values_yxc, (2, 7))[:, :, 0].tolist() == [[0] * 7, [0, 0, 1, 2, 3, 4, 0]]


def test_the_longer_edge_is_rounded_down():
    edge = Preprocessing()
    assert resized_size(6000, 1280, edge) == (1050, 224)
    assert resized_size(229, 231, edge) == (224, 225)
    assert resized_size(10, 20, Preprocessing(shortest_edge=None, size=(3, 4))) == (3, 4)
    assert resized_size(10, 20, Preprocessing(shortest_edge=None)) is None
