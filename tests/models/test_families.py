"""Families other than Llama: against Hugging Face torch, on meshes, with a cache, and there and back."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.config import LlamaConfig, ModelError, from_hf
from models.families import FAMILIES
from models.hf_io import load_llama, save_llama
from models.llama import Llama
from models.lora import LoraConfig, init_lora
from models.parameters import flatten, init_params, param_shardings
from sweet_jax.plugins import load_plugins

TOKENS_BT = np.random.default_rng(0).integers(0, 48, (8, 24))
PLAIN = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
KINDS = [
    pytest.param("Qwen2", PLAIN, id="qwen2"),
    pytest.param("Qwen2", {**PLAIN, "tie_word_embeddings": True, "num_key_value_heads": 1}, id="qwen2, tied, one kv"),
    pytest.param("Qwen3", {**PLAIN, "head_dim": 16}, id="qwen3, wide heads"),
    pytest.param("Qwen3", {**PLAIN, "tie_word_embeddings": True, "head_dim": 8}, id="qwen3, tied"),
]


def tiny_of(family):
    return LlamaConfig(48, 32, 40, 2, 4, 2, 16, 64, family=family, initializer_range=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "settings"), KINDS)
def test_logits_are_those_of_hugging_face(
    family, settings, tmp_path, mesh_of, save_hf_model, torch_logits, logits_of, decode_from
):
    pytest.importorskip("torch")
    theirs = torch_logits(save_hf_model(tmp_path, family, **settings), TOKENS_BT)
    assert np.abs(theirs).max() > 1.0
    for shape, scan in (((1, 1), True), ((1, 1), False), ((4, 2), True), ((2, 4), False)):
        mesh = mesh_of(*shape)
        loaded = load_llama(tmp_path, mesh)
        ours = logits_of(loaded.config, mesh, loaded.params, TOKENS_BT, remat="none", scan=scan)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4, err_msg=f"{shape} {scan}")
    for shape in ((1, 1), (4, 2)):
        mesh = mesh_of(*shape)
        loaded = load_llama(tmp_path, mesh)
        model = Llama(loaded.config, mesh, remat="none")
        ours, _ = decode_from(model, loaded.params, TOKENS_BT[:4, :14], [10, 3, 7, 1], slots=16)
        np.testing.assert_allclose(ours, theirs[:4, :14], rtol=0, atol=1e-4, err_msg=f"{shape}")


@pytest.mark.slow
@pytest.mark.parametrize(("family", "settings"), KINDS)
def test_what_is_loaded_and_saved_again_are_the_same_bits_for_transformers(
    family, settings, tmp_path, mesh_of, save_hf_model, torch_logits
):
    transformers = pytest.importorskip("transformers")
    theirs = save_hf_model(tmp_path / "theirs", family, **settings)
    loaded = load_llama(tmp_path / "theirs", mesh_of(4, 2))
    save_llama(tmp_path / "ours", loaded.config, loaded.params)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="float32")
    assert type(again).__name__ == f"{family}ForCausalLM"
    np.testing.assert_array_equal(torch_logits(again, TOKENS_BT), torch_logits(theirs, TOKENS_BT))


@pytest.fixture
def seed_oss():
    """The family of examples/plugins, known to this process during a test."""
    load_plugins(str(Path(__file__).parents[2] / "examples" / "plugins" / "my_family.py"))
    yield
    load_plugins.cache_clear()
    del FAMILIES["seed_oss"]


@pytest.mark.slow
def test_a_family_of_a_plugin_computes_what_torch_does_and_is_written_back(
    seed_oss, tmp_path, mesh_of, save_hf_model, torch_logits, logits_of
):
    pytest.importorskip("torch")
    theirs = torch_logits(save_hf_model(tmp_path / "theirs", "SeedOss", **PLAIN, head_dim=16), TOKENS_BT)
    assert np.abs(theirs).max() > 1.0
    mesh = mesh_of(4, 2)
    loaded = load_llama(tmp_path / "theirs", mesh)
    ours = logits_of(loaded.config, mesh, loaded.params, TOKENS_BT, remat="none")
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    save_llama(tmp_path / "ours", loaded.config, loaded.params)
    again = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (again["architectures"], again["model_type"]) == (["SeedOssForCausalLM"], "seed_oss")
    assert from_hf(tmp_path / "ours") == loaded.config


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_every_parameter_of_a_family_has_a_gradient_and_a_sharded_network_agrees(
    family, mesh_of, random_params, loss_and_gradients
):
    config, single, mesh = tiny_of(family), mesh_of(1, 1), mesh_of(4, 2)
    params = random_params(config, single)
    value, gradients = loss_and_gradients(config, single, params, TOKENS_BT)
    other, split = loss_and_gradients(config, mesh, jax.device_put(params, param_shardings(config, mesh)), TOKENS_BT)
    assert value == pytest.approx(other, abs=1e-5)
    for path, gradient in gradients.items():
        np.testing.assert_allclose(gradient, split[path], rtol=0, atol=1e-5, err_msg=path)
        # A bias of the keys moves all scores of a query alike: nothing follows from it, but in rotated pairs.
        assert np.abs(gradient).max() > (1e-6 if path.endswith("k_bias") else 1e-4), path


def test_biases_and_norms_are_rows_of_the_table(mesh_of):
    flat = {family: flatten(init_params(tiny_of(family), jax.random.key(0), mesh_of(1, 1))) for family in FAMILIES}
    added = {
        family: {path.rpartition("/")[2] for path in flat[family].keys() - flat["llama"].keys()} for family in flat
    }
    assert added["qwen2"] == {"q_bias", "k_bias", "v_bias"}
    assert added["qwen3"] == {"q_norm", "k_norm"}
    assert not added["llama"]
    assert not np.asarray(flat["qwen2"]["layers/attention/q_bias"]).any()
    adapters = init_lora(tiny_of("qwen2"), LoraConfig(rank=2, alpha=4.0), jax.random.key(0), mesh_of(1, 1))
    assert {path.rpartition("/")[0] for path in flatten(adapters["lora"])} == {
        f"layers/{name}" for name in (*(f"attention/{part}" for part in "qkvo"), "mlp/gate", "mlp/up", "mlp/down")
    }


def test_missing_and_unknown_biases_are_named(tmp_path, mesh_of, random_params):
    mesh, file = mesh_of(1, 1), tmp_path / "model.safetensors"
    config = tiny_of("qwen2")
    save_llama(tmp_path, config, random_params(config, mesh))
    settings, tensors = json.loads((tmp_path / "config.json").read_text()), load_file(file)
    assert settings["model_type"] == "qwen2"
    assert from_hf(settings) == config
    without = {name: value for name, value in tensors.items() if not name.endswith("bias")}
    save_file(without, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.0\.self_attn\.k_proj\.bias"):
        load_llama(tmp_path, mesh)
    save_file(tensors, file, metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(settings | {"model_type": "llama"}))
    with pytest.raises(ModelError, match=r"model\.layers\.0\.self_attn\.k_proj\.bias"):
        load_llama(tmp_path, mesh)


BASE = tiny_of("qwen2").to_hf()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"model_type": "qwen2_moe"},
            "model_type is 'qwen2_moe'; only networks with model_type llama, mistral, qwen2",
        ),
        ({"model_type": None}, "model_type is null; only networks with"),
        ({"model_type": ["qwen2"]}, r"model_type is \['qwen2'\]; only networks with"),
        (
            {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
            "sliding_window is 16, below max_p",
        ),
        ({"use_sliding_window": "yes"}, "use_sliding_window is 'yes', expected true or false"),
        (
            {"use_sliding_window": True, "sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]},
            "attention within a window is not supported",
        ),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias is True; only qwen3 networks without these"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is set; only float32, bfloat16 and"),
        (
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            "rope_type is 'yarn'; only 'default' and 'llama3' are",
        ),
    ],
)
def test_what_is_not_computed_is_refused(change, sentence):
    with pytest.raises(ModelError, match=sentence):
        from_hf({**BASE, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"use_sliding_window": False, "sliding_window": 16},
        {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0},
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
        {"use_sliding_window": True, "sliding_window": 16, "layer_types": ["full_attention"] * 2},
        {"use_sliding_window": True, "sliding_window": None},
    ],
)
def test_a_window_that_no_row_exceeds_does_not_matter(change):
    assert from_hf({**BASE, **change}) == tiny_of("qwen2")


def test_what_a_file_leaves_out_is_what_transformers_takes():
    transformers = pytest.importorskip("transformers")
    for kind in ("qwen2", "qwen3"):
        raw = {name: value for name, value in BASE.items() if name not in ("num_key_value_heads", "head_dim")}
        raw |= {"model_type": kind, "num_attention_heads": 32, "hidden_size": 64}
        ours, theirs = from_hf(raw), getattr(transformers, f"{kind.title()}Config").from_dict(raw)
        assert ours.num_kv_heads == theirs.num_key_value_heads
        assert ours.head_size == getattr(theirs, "head_dim", 2)
