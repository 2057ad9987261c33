"""Reading and writing Hugging Face directories."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from safetensors.numpy import load_file, save_file

from models import hf_io
from models.config import LlamaConfig, ModelError, from_hf
from models.hf_io import load_llama, save_llama
from models.parameters import flatten, param_shardings
from models.sharding import head_axis

TOKENS_BT = np.arange(20).reshape(2, 10)
SAFETENSORS, FIRST = "model.safetensors", "model-00001-of-00002.safetensors"


@pytest.fixture
def saved(tiny, mesh_of, random_params, tmp_path):
    """A directory that holds a saved random model."""
    save_llama(tmp_path, tiny, random_params(tiny, mesh_of(1, 1)))
    return tmp_path


def rewrite(directory, change):
    """Applies `change` to the dictionary of tensors of a saved model."""
    tensors = load_file(directory / SAFETENSORS)
    change(tensors)
    save_file(tensors, directory / SAFETENSORS, metadata={"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_loads_bit_equal(tiny, mesh_of, random_params, tmp_path, dtype, tied):
    config = dataclasses.replace(tiny, tie_word_embeddings=tied, eos_token_ids=(2, 3), bos_token_id=1)
    params = jax.tree.map(lambda x: x.astype(dtype), random_params(config, mesh_of(4, 2)))
    save_llama(tmp_path, config, params)
    loaded = load_llama(tmp_path, mesh_of(2, 4), dtype)
    assert loaded.config == config
    shardings, before, after = (flatten(x) for x in (param_shardings(config, mesh_of(2, 4)), params, loaded.params))
    assert before.keys() == after.keys()
    for path in before:
        assert after[path].dtype == dtype
        assert after[path].sharding.is_equivalent_to(shardings[path], after[path].ndim)
        np.testing.assert_array_equal(np.asarray(after[path]), np.asarray(before[path]), err_msg=path)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_what_we_save_and_computes_the_same(
    tiny, mesh_of, random_params, logits_of, torch_logits, tmp_path, tied
):
    pytest.importorskip("torch")
    import transformers

    config, mesh = dataclasses.replace(tiny, tie_word_embeddings=tied), mesh_of(1, 1)
    params = random_params(config, mesh)
    save_llama(tmp_path, config, params)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    ours = logits_of(config, mesh, params, TOKENS_BT, remat="none")
    np.testing.assert_allclose(ours, torch_logits(theirs, TOKENS_BT), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("mesh_shape", "dtype"), [((4, 2), jnp.bfloat16), ((1, 1), jnp.float32)])
def test_large_parameters_are_loaded_piece_by_piece_to_the_same_bits(
    tiny, mesh_of, random_params, tmp_path, monkeypatch, mesh_shape, dtype
):
    params, mesh = random_params(tiny, mesh_of(1, 1)), mesh_of(*mesh_shape)
    save_llama(tmp_path, tiny, params)
    pieces = []
    place = hf_io._place
    monkeypatch.setattr(hf_io, "_place", lambda whole, piece, *rest: pieces.append(piece) or place(whole, piece, *rest))
    # Room for two of three layers of q, one of gate, 25 of 48 rows of the embedding: some last pieces overlap.
    monkeypatch.setattr(hf_io, "SMALL_BYTES", 0)
    monkeypatch.setattr(hf_io, "PIECE_BYTES", 8400 if mesh_shape == (1, 1) else 3200)
    loaded = load_llama(tmp_path, mesh, dtype)
    shapes = {piece.shape for piece in pieces}
    assert len(pieces) > len(flatten(params)) and (1, 40, 32) in shapes
    assert all(piece.nbytes <= 8400 for piece in pieces)
    shardings, after = flatten(param_shardings(tiny, mesh)), flatten(loaded.params)
    for path, before in flatten(params).items():
        assert after[path].dtype == dtype
        assert after[path].sharding.is_equivalent_to(shardings[path], after[path].ndim)
        np.testing.assert_array_equal(np.asarray(after[path]), np.asarray(before.astype(dtype)), err_msg=path)


@pytest.mark.slow
def test_only_slices_of_the_own_devices_are_read_and_equal_ones_once(saved, mesh_of, monkeypatch):
    counted, read = {}, hf_io._read

    def count(tensors, slices, index):
        value = read(tensors, slices, index)
        counted[tensors.names[0]] = counted.get(tensors.names[0], 0) + value.nbytes
        return value

    monkeypatch.setattr(hf_io, "_read", count)
    loaded = load_llama(saved, mesh_of(4, 2))
    for path, tensors in hf_io.hf_layout(loaded.config).items():
        assert counted[tensors.names[0]] == flatten(loaded.params)[path].nbytes, path
    counted.clear()
    half = jax.make_mesh((2, 1), ("data", "tensor"), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:2])
    monkeypatch.setattr(hf_io, "_read", lambda *_: pytest.fail("a weight was read"))
    hf_io.check_llama(saved, half)


@pytest.mark.slow
def test_a_large_parameter_is_saved_layer_by_layer(tiny, mesh_of, random_params, tmp_path, monkeypatch):
    params = random_params(tiny, mesh_of(2, 1))
    save_llama(tmp_path / "whole", tiny, params)
    monkeypatch.setattr(hf_io, "SMALL_BYTES", 0)
    save_llama(tmp_path / "layers", tiny, params)
    files = [(tmp_path / name / SAFETENSORS).read_bytes() for name in ("whole", "layers")]
    assert files[0] == files[1]


def test_a_mistral_without_window_is_a_llama(saved, mesh_of):
    settings = json.loads((saved / "config.json").read_text())
    for window in (None, settings["max_position_embeddings"]):
        mistral = settings | {"model_type": "mistral", "sliding_window": window}
        (saved / "config.json").write_text(json.dumps(mistral))
        assert load_llama(saved, mesh_of(1, 1)).config == from_hf(settings)
    (saved / "config.json").write_text(json.dumps(mistral | {"sliding_window": 16}))
    with pytest.raises(ModelError, match="sliding_window is 16, below max_position_embeddings 64; attention within a"):
        load_llama(saved, mesh_of(1, 1))


@pytest.mark.slow
def test_float32_weights_can_be_loaded_as_bfloat16(saved, mesh_of):
    exact, rounded = (flatten(load_llama(saved, mesh_of(1, 1), dtype).params) for dtype in (jnp.float32, jnp.bfloat16))
    for path in exact:
        np.testing.assert_array_equal(np.asarray(exact[path].astype(jnp.bfloat16)), np.asarray(rounded[path]))


def split_in_two(directory):
    """Turns a saved model into two files with an index, as large models are published."""
    tensors = load_file(directory / SAFETENSORS)
    (directory / SAFETENSORS).unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, directory / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_a_model_in_several_files_loads_as_one(saved, mesh_of):
    single = flatten(load_llama(saved, mesh_of(4, 2)).params)
    split_in_two(saved)
    several = flatten(load_llama(saved, mesh_of(4, 2)).params)
    for path in single:
        np.testing.assert_array_equal(np.asarray(single[path]), np.asarray(several[path]), err_msg=path)


def test_a_file_that_the_index_names_and_is_missing_is_named(saved, mesh_of):
    split_in_two(saved)
    (saved / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"names 2 files, of which 1 are missing: model-00002-of-00002"):
        load_llama(saved, mesh_of(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda index: {"weight_map": {**index, "model.extra": FIRST}},
            "names 1 tensors that .* not hold: model.extra",
        ),
        (lambda index: {"weight_map": dict.fromkeys(index, FIRST)}, "names 15 tensors that model-00001-of-00002"),
        (lambda index: {"weight_map": {name: 3 for name in index}}, " is in 3, expected the name of a file"),
        (lambda index: {"weight_map": {name: None for name in index}}, " is in null, expected the name of a file"),
        (lambda index: {"weight_map": dict.fromkeys(index, f"../{FIRST}")}, " is in '../model-.*expected the name of"),
        (lambda index: {"weight_map": dict.fromkeys(index, "/etc/passwd")}, " is in '/etc/passwd', expected the name"),
        (lambda index: {"weight_map": list(index)}, r"weight_map is \['lm_head.*expected an object with the file of"),
        (lambda index: {"weight_map": None}, "weight_map is null, expected an object"),
        (lambda index: {"weight_map": {}}, "weight_map is {}, expected an object"),
        (lambda index: {"weights": index}, "weight_map is null, expected an object"),
        (lambda index: [], r"holds \[\], expected an object"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(saved, mesh_of, change, sentence):
    split_in_two(saved)
    path = saved / "model.safetensors.index.json"
    path.write_text(json.dumps(change(json.loads(path.read_text())["weight_map"])))
    with pytest.raises(ModelError, match=r"index\.json: .*" + sentence):
        load_llama(saved, mesh_of(1, 1))


def test_an_index_that_is_not_utf8_is_refused(saved, mesh_of):
    split_in_two(saved)
    (saved / "model.safetensors.index.json").write_bytes(b'{"weight_map": {"caf\xe9": "a"}}')
    with pytest.raises(ModelError, match=r"index\.json: not UTF-8: invalid continuation byte at byte 20"):
        load_llama(saved, mesh_of(1, 1))


def test_an_index_of_other_files_beside_a_whole_model_is_refused_and_one_of_that_file_is_not(saved, mesh_of):
    whole = (saved / SAFETENSORS).read_bytes()
    split_in_two(saved)
    (saved / SAFETENSORS).write_bytes(whole)
    sentence = (
        r"holds model.safetensors and model.safetensors.index.json, which names other files \(model-00001-of-00002"
    )
    with pytest.raises(ModelError, match=sentence):
        load_llama(saved, mesh_of(1, 1))
    index = saved / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, SAFETENSORS)}))
    load_llama(saved, mesh_of(1, 1))


def test_weights_of_torch_beside_safetensors_are_not_looked_at(saved, mesh_of):
    import torch
    import transformers

    torch.save({"model.norm.weight": torch.zeros(32)}, saved / "pytorch_model.bin")
    ours = np.asarray(load_llama(saved, mesh_of(1, 1)).params["final_norm"])
    theirs = transformers.LlamaForCausalLM.from_pretrained(saved).model.norm.weight.detach().numpy()
    np.testing.assert_array_equal(ours, theirs)
    assert ours.any()


def test_an_adapter_beside_a_whole_model_is_refused(saved, mesh_of):
    (saved / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds a whole model and adapter_config\.json, an adapter that transformers"):
        load_llama(saved, mesh_of(1, 1))


def test_a_tensor_in_two_files_is_refused(saved, mesh_of):
    split_in_two(saved)
    tensors = load_file(saved / FIRST) | {"lm_head.weight": np.zeros((48, 32), np.float32)}
    save_file(tensors, saved / FIRST)
    second = load_file(saved / FIRST.replace("00001-of", "00002-of"))
    if "lm_head.weight" not in second:
        save_file(second | {"lm_head.weight": tensors["lm_head.weight"]}, saved / FIRST.replace("00001-of", "00002-of"))
    with pytest.raises(ModelError, match=r"00002-of-00002\.safetensors: 1 tensors are in another file, too: lm_head"):
        load_llama(saved, mesh_of(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("size", [7, 100, 5000, -4])
def test_a_file_that_is_cut_short_is_refused_with_its_size(saved, mesh_of, size):
    whole = (saved / SAFETENSORS).read_bytes()
    (saved / SAFETENSORS).write_bytes(whole[:size])
    sentence = rf"model\.safetensors: not a whole safetensors file \({len(whole[:size]):,} bytes\): "
    with pytest.raises(ModelError, match=sentence):
        load_llama(saved, mesh_of(1, 1))


def test_a_damaged_header_and_an_lfs_pointer_are_refused(saved, mesh_of):
    whole = (saved / SAFETENSORS).read_bytes()
    (saved / SAFETENSORS).write_bytes(whole.replace(b'"dtype"', b'"dtipe"', 1))
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_llama(saved, mesh_of(1, 1))
    (saved / SAFETENSORS).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 99\n")
    with pytest.raises(ModelError, match="it is a Git LFS pointer, the file itself was not fetched"):
        load_llama(saved, mesh_of(1, 1))


def test_weights_of_another_kind_than_safetensors_are_named(saved, mesh_of):
    (saved / SAFETENSORS).rename(saved / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"index\.json; pytorch_model\.bin cannot be read, only safetensors"):
        load_llama(saved, mesh_of(1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "tensor", "sentence"),
    [
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
            None,
            "rope_type is 'yarn'; only 'default' and 'llama3'",
        ),
        ({"attention_bias": True}, None, "attention_bias is True"),
        ({}, {"model.norm.weight": np.ones(32, np.int8)}, "is I8, only F32, BF16, F16 can be read"),
        ({}, {"lm_head.weight": np.ones((47, 32), np.float32)}, r"shape \[47, 32\], the network needs \[48, 32\]"),
    ],
)
def test_what_is_wrong_is_found_before_a_weight_is_read(saved, mesh_of, monkeypatch, settings, tensor, sentence):
    if tensor:
        rewrite(saved, lambda tensors: tensors.update(tensor))
    found = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(found | settings))
    monkeypatch.setattr(hf_io, "_read", lambda *_: pytest.fail("a weight was read"))
    with pytest.raises(ModelError, match=sentence):
        load_llama(saved, mesh_of(1, 1))
    with pytest.raises(ModelError, match=sentence):
        hf_io.check_llama(saved, mesh_of(1, 1))


def test_a_mesh_that_does_not_divide_the_heads_of_llama_8b_is_refused_with_the_numbers(mesh_of):
    config = LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_layers=32, num_heads=32, num_kv_heads=8,
        head_size=128, max_position_embeddings=131_072,
    )  # fmt: skip
    with pytest.raises(
        ModelError, match="layers/attention/q: axis heads of size 4096 does not divide .* 'tensor' of 3"
    ):
        param_shardings(config, mesh_of(1, 3))
    few = dataclasses.replace(config, num_kv_heads=4)  # the weights' columns divide, the heads stay whole
    param_shardings(few, mesh_of(1, 8))
    assert "4 key/value heads whole on every device" in head_axis(few, mesh_of(1, 8)).report


def test_tensors_missing_and_tensors_unknown_are_listed_together(saved, mesh_of):
    def change(tensors):
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.float32)
        del tensors["model.layers.2.mlp.up_proj.weight"]

    rewrite(saved, change)
    sentence = (
        r"1 tensors that the network needs are missing \(model\.layers\.2\.mlp\.up_proj\.weight\) and "
        r"1 tensors belong to no parameter \(model\.layers\.0\.self_attn\.q_proj\.bias\)"
    )
    with pytest.raises(ModelError, match=sentence):
        load_llama(saved, mesh_of(1, 1))


def test_a_layer_too_many_in_the_files_is_refused(saved, mesh_of):
    settings = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**settings, "num_hidden_layers": 2}))
    with pytest.raises(ModelError, match="9 tensors belong to no parameter"):
        load_llama(saved, mesh_of(1, 1))


def test_a_tensor_of_another_shape_or_type_is_refused(saved, mesh_of):
    rewrite(saved, lambda tensors: tensors.update({"model.norm.weight": np.ones(31, np.float32)}))
    with pytest.raises(ModelError, match=r"model\.norm\.weight has shape \[31\], the network needs \[32\]"):
        load_llama(saved, mesh_of(1, 1))
    rewrite(saved, lambda tensors: tensors.update({"model.norm.weight": np.ones(32, np.int8)}))
    with pytest.raises(ModelError, match=r"model\.norm\.weight is I8"):
        load_llama(saved, mesh_of(1, 1))


@pytest.mark.slow
def test_a_tied_model_may_repeat_its_embedding_but_not_contradict_it(tiny, mesh_of, random_params, tmp_path):
    config, mesh = dataclasses.replace(tiny, tie_word_embeddings=True), mesh_of(1, 1)
    save_llama(tmp_path, config, random_params(config, mesh))
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}))
    assert "lm_head" not in load_llama(tmp_path, mesh).params
    rewrite(tmp_path, lambda tensors: tensors["lm_head.weight"].__setitem__((0, 0), 9.0))
    with pytest.raises(ModelError, match=r"lm_head\.weight differs from the embedding"):
        load_llama(tmp_path, mesh)


def test_a_directory_that_holds_no_model_is_refused_in_a_sentence(saved, mesh_of, tmp_path):
    mesh = mesh_of(1, 1)
    with pytest.raises(ModelError, match="nowhere: no such model directory"):
        load_llama(tmp_path / "nowhere", mesh)
    (saved / SAFETENSORS).write_bytes(b"not weights")
    with pytest.raises(ModelError, match=r"model\.safetensors: not a whole safetensors file \(11 bytes\)"):
        load_llama(saved, mesh)
    (saved / SAFETENSORS).unlink()
    with pytest.raises(ModelError, match=r"holds neither model\.safetensors nor model\.safetensors\.index\.json"):
        load_llama(saved, mesh)
    (saved / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json: no such file"):
        load_llama(saved, mesh)


def test_parameters_of_another_network_are_not_saved(tiny, mesh_of, random_params, tmp_path):
    params = random_params(tiny, mesh_of(1, 1))
    with pytest.raises(ModelError, match="lm_head"):
        save_llama(tmp_path, dataclasses.replace(tiny, tie_word_embeddings=True), params)
    assert list(tmp_path.iterdir()) == []
