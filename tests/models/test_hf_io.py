"""Reading and writing Hugging Face directories."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.config import ModelError
from models.hf_io import load_llama, save_llama
from models.parameters import flatten, param_shardings

TOKENS_BT = np.arange(20).reshape(2, 10)
SAFETENSORS = "model.safetensors"


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
