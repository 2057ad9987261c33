"""Adapters in PEFT's layout."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.config import ModelError
from models.lora import LORA, LoraConfig, lora_shapes
from models.parameters import flatten
from models.peft_io import load_adapter, save_adapter

ADAPTED = LoraConfig(rank=2, alpha=5.0, targets=("k", "down"))
PREFIX = "base_model.model.model.layers.1"


@pytest.fixture
def adapters(tiny, mesh_of):
    noise, shapes = np.random.default_rng(0), lora_shapes(tiny, ADAPTED, mesh_of(4, 2))
    return jax.tree.map(lambda x: jax.device_put(noise.normal(size=x.shape).astype(np.float32), x.sharding), shapes)


@pytest.fixture
def saved(tiny, adapters, tmp_path):
    save_adapter(tmp_path, tiny, ADAPTED, adapters, "some/base")
    return tmp_path


def test_names_and_shapes_are_those_of_peft(saved, adapters):
    tensors, flat = load_file(saved / "adapter_model.safetensors"), flatten(adapters[LORA])
    assert len(tensors) == 3 * 2 * 2
    # k is [D, 16] for us, [16, D] there; lora_A holds the inner side first.
    assert tensors[f"{PREFIX}.self_attn.k_proj.lora_A.weight"].shape == (2, 32)
    assert tensors[f"{PREFIX}.self_attn.k_proj.lora_B.weight"].shape == (16, 2)
    assert tensors[f"{PREFIX}.mlp.down_proj.lora_A.weight"].shape == (2, 40)
    a_ir, b_ro = (np.asarray(flat[f"layers/mlp/down/{half}"][1]) for half in ("a", "b"))
    np.testing.assert_array_equal(tensors[f"{PREFIX}.mlp.down_proj.lora_A.weight"], a_ir.T)
    np.testing.assert_array_equal(tensors[f"{PREFIX}.mlp.down_proj.lora_B.weight"], b_ro.T)
    settings = json.loads((saved / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["task_type"], settings["bias"]) == ("LORA", "CAUSAL_LM", "none")
    assert (settings["r"], settings["lora_alpha"], settings["target_modules"]) == (2, 5, ["k_proj", "down_proj"])


def test_a_saved_adapter_loads_bit_equal_on_another_mesh(saved, tiny, adapters, mesh_of):
    loaded = load_adapter(saved, tiny, mesh_of(2, 2))
    assert loaded.lora == ADAPTED
    before, after = flatten(adapters), flatten(loaded.params)
    assert before.keys() == after.keys()
    for path in before:
        np.testing.assert_array_equal(np.asarray(after[path]), np.asarray(before[path]), err_msg=path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"use_rslora": True}, "use_rslora is True; only False is supported"),
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "all"}, "bias is 'all'; only 'none' is supported"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern is {'q_proj': 4}"),
        (
            {"target_modules": ["k_proj", "embed_tokens"]},
            r"target_modules is \['k_proj', 'embed_tokens'\], expected some",
        ),
        ({"target_modules": "all-linear"}, "target_modules is 'all-linear', expected some of"),
        ({"target_modules": [["k_proj"]]}, r"target_modules is \[\['k_proj'\]\], expected some of"),
        ({"target_modules": None}, "target_modules is null, expected some of"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'; only True is supported"),
        ({"layer_replication": [[0, 2], [1, 3]]}, r"layer_replication is \[\[0, 2\], \[1, 3\]\]; only None"),
        ({"r": 0}, "r is 0, expected a whole number of at least 1"),
        ({"r": "2"}, "r is '2', expected a whole number of at least 1"),
        ({"r": 2.0}, "r is 2.0, expected a whole number of at least 1"),
        ({"lora_alpha": None}, "lora_alpha is null, expected a finite number above 0"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan, expected a finite number above 0"),
        ({"lora_alpha": -1}, "lora_alpha is -1, expected a finite number above 0"),
        ({"r": 3}, r"lora_A.weight has shape \[2, 32\], the network needs \[3, 32\]"),
        (
            {"target_modules": ["k_proj"]},
            r"6 tensors belong to no parameter \(base_model.model.model.layers.0.mlp.down",
        ),
    ],
)
def test_adapters_we_do_not_compute_are_refused(saved, tiny, mesh_of, change, sentence):
    settings = json.loads((saved / "adapter_config.json").read_text())
    (saved / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(ModelError, match=sentence):
        load_adapter(saved, tiny, mesh_of(1, 1))


def test_missing_and_damaged_files_are_refused(saved, tiny, mesh_of):
    tensors = load_file(saved / "adapter_model.safetensors")
    tensors.pop(f"{PREFIX}.mlp.down_proj.lora_A.weight")
    save_file(tensors, saved / "adapter_model.safetensors")
    with pytest.raises(
        ModelError, match=r"1 tensors that the network needs are missing \(base_model.*down_proj.lora_A"
    ):
        load_adapter(saved, tiny, mesh_of(1, 1))
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: no such file"):
        load_adapter(saved, tiny, mesh_of(1, 1))
    (saved / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"adapter_config\.json: target_modules is null, expected some of"):
        load_adapter(saved, tiny, mesh_of(1, 1))
    (saved / "adapter_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"adapter_config\.json: holds \[\], expected an object"):
        load_adapter(saved, tiny, mesh_of(1, 1))
    (saved / "adapter_config.json").write_bytes('{"base": "Müller"}'.encode("latin-1"))
    with pytest.raises(ModelError, match=r"adapter_config\.json: not UTF-8: invalid .* at byte 11"):
        load_adapter(saved, tiny, mesh_of(1, 1))
    (saved / "adapter_config.json").unlink()
    with pytest.raises(
        ModelError, match="an adapter directory holds adapter_config.json and adapter_model.safetensors"
    ):
        load_adapter(saved, tiny, mesh_of(1, 1))


def test_adapters_of_other_weights_are_not_saved(tiny, adapters, tmp_path):
    with pytest.raises(ModelError, match=r"adapters \['layers/mlp/down/a', 'layers/mlp/down/b'\] are not among"):
        save_adapter(tmp_path, tiny, LoraConfig(2, 5.0, ("k",)), adapters, "some/base")
    with pytest.raises(
        ModelError, match=r"adapter layers/attention/k/a has shape \(3, 32, 2\), needed is \(3, 32, 3\)"
    ):
        save_adapter(tmp_path, tiny, LoraConfig(3, 5.0, ("k", "down")), adapters, "some/base")
    assert list(tmp_path.iterdir()) == []
