"""Reading and writing config.json."""

import json

import pytest

from models.config import Llama3RopeScaling, LlamaConfig, ModelError, from_hf

HF = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000,
    "rope_scaling": {
        "factor": 8,
        "low_freq_factor": 1,
        "high_freq_factor": 4,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
}
LLAMA_31_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_size=128,
    max_position_embeddings=131072,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=Llama3RopeScaling(8.0, 1.0, 4.0, 8192),
    tie_word_embeddings=False,
    bos_token_id=128000,
    eos_token_ids=(128001, 128008, 128009),
)


def test_the_config_of_llama_3_1_8b_is_read():
    assert from_hf(HF) == LLAMA_31_8B


def test_rope_settings_in_the_form_of_transformers_5_mean_the_same():
    old = {name: value for name, value in HF.items() if not name.startswith("rope_")}
    assert from_hf({**old, "rope_parameters": {**HF["rope_scaling"], "rope_theta": 500000.0}}) == LLAMA_31_8B


def test_settings_written_are_read_back_equal(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_31_8B.to_hf()))
    assert from_hf(tmp_path) == LLAMA_31_8B
    assert from_hf(tmp_path / "config.json") == LLAMA_31_8B


def test_transformers_reads_the_settings_we_write():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaConfig(**LLAMA_31_8B.to_hf())
    assert theirs.rope_parameters["rope_type"] == "llama3"
    assert theirs.rope_parameters["rope_theta"] == 500000.0
    assert from_hf(theirs.to_dict()) == LLAMA_31_8B


def test_absent_optional_settings_take_hugging_faces_defaults():
    few = {name: value for name, value in HF.items() if name not in ("num_key_value_heads", "rope_theta")}
    config = from_hf({**few, "rope_scaling": None, "eos_token_id": 2})
    assert (config.num_kv_heads, config.rope_theta, config.rope_scaling) == (32, 10000.0, None)
    assert config.eos_token_ids == (2,)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "gemma"}, "model_type is 'gemma'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "setting 'low_freq_factor' is missing"),
        ({"num_key_value_heads": 5}, "32 query heads do not divide into 5 key/value heads"),
        ({"num_attention_heads": 33}, "hidden_size 4096 does not divide into 33 heads"),
        ({"head_dim": 127}, "head size 127 is odd"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is set"),
    ],
)
def test_a_network_we_do_not_compute_is_refused_in_a_sentence(change, sentence):
    with pytest.raises(ModelError, match=sentence):
        from_hf({**HF, **change})


def test_a_missing_setting_is_named():
    with pytest.raises(ModelError, match="setting 'hidden_size' is missing"):
        from_hf({name: value for name, value in HF.items() if name != "hidden_size"})


def test_a_malformed_file_is_named_with_its_line(tmp_path):
    (tmp_path / "config.json").write_text('{\n"vocab_size": 3,\n"hidden_size" 5}')
    with pytest.raises(ModelError, match=r"config\.json:3: not JSON"):
        from_hf(tmp_path)
