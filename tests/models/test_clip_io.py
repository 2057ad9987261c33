"""Reading CLIP directories, and what is said about those that hold something else."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from random_clip import TEXT, VISION, save_clip, write_tensors
from safetensors.numpy import load_file

from models.clip_config import TEXT_DEFAULTS, VISION_DEFAULTS, clip_from_hf
from models.clip_io import load_clip
from models.clip_parameters import clip_shardings, clip_table
from models.config import ModelError
from models.parameters import flatten

RAW = {"model_type": "clip", "projection_dim": 16, "vision_config": VISION, "text_config": TEXT}


@pytest.fixture
def saved(tmp_path):
    """A directory that holds a random CLIP."""
    save_clip(tmp_path)
    return tmp_path


def change(directory, **settings):
    """Changes settings of the directory's config.json; None takes one out."""
    path = directory / "config.json"
    raw = {**json.loads(path.read_text()), **settings}
    path.write_text(json.dumps({name: value for name, value in raw.items() if value is not None}))


@pytest.mark.parametrize(("mesh_shape", "dtype"), [((1, 1), jnp.float32), ((4, 2), jnp.bfloat16)])
def test_one_file_and_three_give_the_same_parameters_on_their_shardings(tmp_path, mesh_of, mesh_shape, dtype):
    save_clip(tmp_path / "one")
    save_clip(tmp_path / "three", files=3)
    mesh = mesh_of(*mesh_shape)
    one, three = (load_clip(tmp_path / name, mesh, dtype) for name in ("one", "three"))
    assert one.config == three.config == clip_from_hf(RAW)
    table, shardings = clip_table(one.config), flatten(clip_shardings(one.config, mesh))
    left, right = flatten(one.params), flatten(three.params)
    assert left.keys() == right.keys() == table.keys()
    for path, value in left.items():
        assert (value.shape, value.dtype) == (table[path].shape, dtype)
        assert value.sharding.is_equivalent_to(shardings[path], value.ndim)
        np.testing.assert_array_equal(np.asarray(value), np.asarray(right[path]), err_msg=path)
    stored = load_file(tmp_path / "one/model.safetensors")
    expected = stored["vision_model.encoder.layers.1.mlp.fc1.weight"].T.astype(dtype)
    np.testing.assert_array_equal(np.asarray(left["vision/layers/mlp/up/kernel"][1]), expected)
    split = one.params["vision"]["layers"]["mlp"]["up"]["kernel"].sharding.shard_shape((2, 32, 40))
    assert split == (2, 32, 40 // mesh_shape[1])


def test_position_numbers_of_old_files_are_left_out(saved, mesh_of):
    tensors = load_file(saved / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = np.arange(16)[None]
    tensors["vision_model.embeddings.position_ids"] = np.arange(17)[None]
    write_tensors(saved, tensors)
    assert load_clip(saved, mesh_of(1, 1)).params["logit_scale"] == tensors["logit_scale"]


def test_what_torch_saves_is_read(tmp_path, mesh_of):
    torch = pytest.importorskip("torch")
    import transformers

    torch.manual_seed(0)
    settings = {"vision_config": VISION, "text_config": TEXT, "projection_dim": 16}
    model = transformers.CLIPModel(transformers.CLIPConfig(**settings))
    model.save_pretrained(tmp_path, max_shard_size="40kB")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 32, "crop_size": 32}))
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    params = load_clip(tmp_path, mesh_of(1, 1)).params
    np.testing.assert_array_equal(
        np.asarray(params["text"]["projection"]["kernel"]), model.text_projection.weight.detach().numpy().T
    )


def test_settings_that_a_file_leaves_out_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")

    theirs = transformers.CLIPConfig()
    for side, defaults in ((theirs.vision_config, VISION_DEFAULTS), (theirs.text_config, TEXT_DEFAULTS)):
        assert defaults == {name: getattr(side, name) for name in defaults}
    config = clip_from_hf({"model_type": "clip"})
    assert (config.vision.tokens, config.vision.tower.head_size, config.projection_dim) == (50, 64, 512)
    older = {"hidden_size": 64, "num_attention_heads": 4}
    config = clip_from_hf({**RAW, "text_config": {**TEXT, "eos_token_id": 2}, "text_config_dict": older})
    theirs = transformers.CLIPConfig(
        vision_config=dict(VISION), text_config={**TEXT, "eos_token_id": 2}, text_config_dict=older
    ).text_config
    assert (config.text.tower.hidden_size, config.text.tower.num_layers) == (64, 12)
    assert (theirs.hidden_size, theirs.num_hidden_layers) == (64, 12)
    assert config.text.eos_token_id == theirs.eos_token_id == 49407


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', a CLIP directory has 'clip'"),
        ({"model_type": None}, "model_type is null, a CLIP directory has 'clip'"),
        ({"vision_config": [1]}, "vision_config is [1], expected an object"),
        ({"projection_dim": "16"}, "projection_dim is '16', expected a whole number of at least 1"),
        (
            {"vision_config": {**VISION, "hidden_size": 30}},
            "vision_config: hidden_size 30 does not divide into 4 heads",
        ),
        (
            {"text_config": {**TEXT, "num_hidden_layers": 0}},
            "text_config.num_hidden_layers is 0, expected a whole number from 1 to 10000",
        ),
        (
            {"text_config": {**TEXT, "hidden_act": "relu"}},
            "text_config: hidden_act is 'relu', supported are quick_gelu, gelu",
        ),
        (
            {"vision_config": {**VISION, "layer_norm_eps": 0}},
            "vision_config.layer_norm_eps is 0, expected a finite number above 0",
        ),
        ({"vision_config": {**VISION, "patch_size": 40}}, "patch_size 40 is larger than image_size 32"),
    ],
)
def test_a_configuration_that_is_not_computed_is_named(saved, mesh_of, settings, sentence):
    change(saved, **settings)
    with pytest.raises(ModelError) as error:
        load_clip(saved, mesh_of(1, 1))
    assert str(error.value) == f"{saved / 'config.json'}: {sentence}"


def test_a_directory_that_holds_no_clip_is_named(saved, mesh_of):
    mesh = mesh_of(1, 1)
    with pytest.raises(ModelError, match="nowhere: no such model directory"):
        load_clip(saved / "nowhere", mesh)
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(ModelError, match="; pytorch_model.bin cannot be read, only safetensors"):
        load_clip(saved, mesh)
    (saved / "config.json").write_text("{")
    with pytest.raises(ModelError, match="config.json:1: not JSON"):
        load_clip(saved, mesh)
    (saved / "config.json").unlink()
    with pytest.raises(ModelError, match="config.json: no such file; a CLIP directory holds config.json and"):
        load_clip(saved, mesh)


def test_tensors_that_are_missing_too_many_or_of_another_shape_are_named(saved, mesh_of):
    mesh, tensors = mesh_of(1, 1), load_file(saved / "model.safetensors")
    name = "vision_model.encoder.layers.1.self_attn.q_proj.bias"
    write_tensors(saved, {key: value for key, value in tensors.items() if key != name})
    with pytest.raises(ModelError, match=rf"1 tensors that the network needs are missing \({name}\) and 0 tensors"):
        load_clip(saved, mesh)
    write_tensors(saved, {**tensors, "other": tensors[name]})
    with pytest.raises(ModelError, match=r"missing \(none\) and 1 tensors belong to no parameter \(other\)"):
        load_clip(saved, mesh)
    write_tensors(saved, {**tensors, name: tensors[name][:8]})
    with pytest.raises(ModelError, match=rf"tensor {name} has shape \[8\], the network needs \[32\]"):
        load_clip(saved, mesh)


def test_a_mesh_that_does_not_divide_the_network_is_named(tmp_path, mesh_of):
    save_clip(tmp_path, {"intermediate_size": 41})
    with pytest.raises(ModelError, match="parameter vision/layers/mlp/up/kernel: axis mlp of size 41 does not divide"):
        load_clip(tmp_path, mesh_of(1, 2))


def test_images_of_another_size_than_the_network_sees_are_an_error(saved, mesh_of):
    (saved / "preprocessor_config.json").write_text(json.dumps({"size": 32, "crop_size": {"height": 32, "width": 40}}))
    with pytest.raises(ModelError, match="images are made 32 pixels high and 40 wide, the network sees 32 x 32"):
        load_clip(saved, mesh_of(1, 1))
