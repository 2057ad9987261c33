"""Reading and writing config.json."""

import json
import re

import pytest

from models.config import Llama3RopeScaling, LlamaConfig, ModelError, check_config_file, from_hf

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
        ({"rope_scaling": {"rope_type": "llama3", "factor": 2.0}}, "setting 'rope_scaling.low_freq_factor' is missing"),
        ({"num_key_value_heads": 5}, "32 query heads do not divide into 5 key/value heads"),
        ({"num_attention_heads": 33}, "hidden_size 4096 does not divide into 33 heads"),
        ({"head_dim": 127}, "head size 127 is odd"),
        ({"vocab_size": 0}, "vocab_size is 0, expected a whole number of at least 1"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling.factor: rope_scaling has no rope_type"),
        (
            {"rope_scaling": {"rope_type": "default", "factor": 2}},
            "rope_scaling.factor: rope_type 'default' has no use",
        ),
        (
            {"rope_scaling": {"full_attention": {"rope_type": "default"}}},
            "rope_scaling.full_attention: rope_scaling has",
        ),
        ({"rope_scaling": ["llama3"]}, r"rope_scaling is \['llama3'\], expected an object or null"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; only rotary embeddings of whole heads"),
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


def test_weights_in_place_of_their_directory_are_named(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\xff")
    with pytest.raises(ModelError, match="model.gguf: a file, expected a model directory, which holds config.json and"):
        from_hf(tmp_path / "model.gguf")


SCALING = HF["rope_scaling"]
WITHOUT_ORIGINAL = {name: value for name, value in SCALING.items() if name != "original_max_position_embeddings"}
ODD_COUNTS = ["32", 32.0, 32.5, True, [32], {}, -32, 0, float("nan"), float("inf"), 10**30]
COUNTS = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]


@pytest.mark.parametrize("name", [*COUNTS, "num_key_value_heads", "head_dim", "max_position_embeddings"])
@pytest.mark.parametrize("value", ODD_COUNTS, ids=str)
def test_a_size_that_is_no_whole_number_above_0_is_named_with_its_value(name, value):
    bounds = r"(of at least 1|from 1 to \d+)$"
    with pytest.raises(ModelError, match=rf"^{name} is {re.escape(repr(value))}, expected a whole number {bounds}"):
        from_hf({**HF, name: value})


@pytest.mark.parametrize("name", [*COUNTS, "max_position_embeddings"])
def test_a_size_that_is_null_is_named_and_a_setting_that_may_be_is_missing(name):
    with pytest.raises(ModelError, match=f"^{name} is null, expected a whole number"):
        from_hf({**HF, name: None})
    nothing = dict.fromkeys(("num_key_value_heads", "head_dim", "rope_theta", "rope_scaling", "rope_parameters"))
    config = from_hf({**HF, **nothing, "bos_token_id": None, "eos_token_id": None, "sliding_window": None})
    assert (config.num_kv_heads, config.head_size, config.rope_theta, config.rope_scaling) == (32, 128, 10000.0, None)
    assert (config.bos_token_id, config.eos_token_ids) == (None, ())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps is '1e-5', expected a finite number above 0"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0, expected a finite number above 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, expected a finite number above 0"),
        ({"rope_theta": float("inf")}, "rope_theta is inf, expected a finite number above 0"),
        ({"rope_theta": "500000"}, "rope_theta is '500000', expected a finite number above 0"),
        ({"rope_theta": 10**400}, "rope_theta is 1000.*, expected a finite number above 0"),
        ({"rope_theta": True}, "rope_theta is True, expected a finite number above 0"),
        ({"rope_scaling": {**SCALING, "factor": None}}, "rope_scaling.factor is null, expected a finite number"),
        ({"rope_scaling": {**SCALING, "factor": float("nan")}}, "rope_scaling.factor is nan, expected a finite number"),
        ({"rope_scaling": {**SCALING, "low_freq_factor": [1]}}, r"low_freq_factor is \[1\], expected a finite number"),
        (
            {"rope_scaling": {**SCALING, "original_max_position_embeddings": 8192.0}},
            "rope_scaling.original_max_position_embeddings is 8192.0, expected a whole number of at least 1",
        ),
        (
            {"rope_scaling": WITHOUT_ORIGINAL, "original_max_position_embeddings": "64"},
            "^original_max_position_embeddings is '64', expected a whole number of at least 1",
        ),
        (
            {"rope_scaling": WITHOUT_ORIGINAL},
            "setting 'rope_scaling.original_max_position_embeddings' is missing",
        ),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false', expected true or false"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1, expected true or false"),
        ({"attention_bias": 0}, "attention_bias is 0, expected true or false"),
        ({"hidden_act": None}, "hidden_act is null; only networks with 'silu'"),
        ({"initializer_range": None}, "initializer_range is null, expected a finite number"),
        ({"bos_token_id": "1"}, "bos_token_id is '1', expected a whole number of at least 0"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', expected a token id, a list of them, or null"),
        ({"eos_token_id": [2, None]}, r"eos_token_id is \[2, None\], expected a token id, a list of them, or null"),
        ({"eos_token_id": 2.0}, "eos_token_id is 2.0, expected a token id"),
        ({"eos_token_id": True}, "eos_token_id is True, expected a token id"),
        ({"model_type": ["llama"]}, r"model_type is \['llama'\]; only"),
        ({"model_type": "mistral", "sliding_window": "4096"}, "sliding_window is '4096', expected a whole number"),
    ],
)
def test_a_setting_of_another_type_is_named_with_its_value(change, sentence):
    with pytest.raises(ModelError, match=sentence):
        from_hf({**HF, **change})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"rope_parameters": {"rope_type": "default"}},
            "rope_scaling {.* and rope_parameters {.* say different things",
        ),
        (
            {"rope_parameters": {**SCALING, "factor": 16}},
            "rope_scaling {.* and rope_parameters {.* say different things",
        ),
        (
            {"rope_parameters": {**SCALING, "rope_theta": 7.0}},
            "rope_parameters.rope_theta is 7.0 and rope_theta is 500000; both set the same thing, delete one",
        ),
        (
            {"rope_theta": None, "rope_parameters": {**SCALING, "rope_theta": 500000}},
            "rope_scaling {.* and rope_parameters {.* say different things; delete one",
        ),
        (
            {"rope_scaling": {**SCALING, "type": "linear"}},
            "rope_type is 'llama3' and rope_scaling.type is 'linear'; both",
        ),
        (
            {"original_max_position_embeddings": 4096},
            "rope_scaling.original_max_position_embeddings is 8192 and original_max_position_embeddings is 4096; both",
        ),
    ],
)
def test_two_settings_that_say_different_things_are_both_named(change, sentence):
    with pytest.raises(ModelError, match=sentence):
        from_hf({**HF, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": {**SCALING, "rope_theta": 500000.0}},
        {"rope_scaling": {**SCALING, "type": "llama3", "rope_theta": 5e5}},
        {"rope_scaling": {}, "rope_parameters": {**SCALING, "rope_theta": 500000}},
        {"original_max_position_embeddings": 8192, "partial_rotary_factor": 1.0},
    ],
)
def test_settings_that_say_the_same_twice_are_read(change):
    assert from_hf({**HF, **change}) == LLAMA_31_8B


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_key_value_heads": None, "head_dim": None},
        {"head_dim": 64, "rms_norm_eps": 4.0, "rope_theta": 7},
        {"rope_scaling": None, "rope_parameters": {"rope_theta": 3.0, "rope_type": "default"}, "rope_theta": 3},
        {"rope_scaling": {**SCALING, "rope_type": None, "type": "default"} | dict.fromkeys(list(SCALING)[:4])},
        {"rope_scaling": {}, "rope_theta": 12.5},
        {"eos_token_id": [], "bos_token_id": 0, "sliding_window": 4},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "mistral", "sliding_window": 131072},
        {"rope_scaling": WITHOUT_ORIGINAL, "original_max_position_embeddings": 64},
    ],
)
def test_what_is_read_is_what_transformers_reads(change):
    transformers = pytest.importorskip("transformers")
    raw = {**HF, **change}
    kind = {"llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig}[raw["model_type"]]
    ours, theirs = from_hf(raw), kind.from_dict(json.loads(json.dumps(raw)))
    assert (ours.num_kv_heads, ours.head_size) == (theirs.num_key_value_heads, theirs.head_dim)
    assert (ours.rms_norm_eps, ours.bos_token_id) == (theirs.rms_norm_eps, theirs.bos_token_id)
    theirs.standardize_rope_params()  # as a model does before it computes wavelengths
    rope = theirs.rope_parameters
    assert (ours.rope_theta, ours.rope_scaling is not None) == (rope["rope_theta"], rope["rope_type"] == "llama3")
    if ours.rope_scaling is not None:
        original = rope["original_max_position_embeddings"]
        assert ours.rope_scaling.original_max_position_embeddings == original
    eos = theirs.eos_token_id
    assert list(ours.eos_token_ids) == (eos if isinstance(eos, list) else [eos])


def test_what_a_mistral_file_leaves_out_is_what_transformers_takes():
    raw = {name: value for name, value in HF.items() if name != "num_key_value_heads"} | {"model_type": "mistral"}
    with pytest.raises(ModelError, match="sliding_window is 4096, below max_position_embeddings 131072"):
        from_hf(raw)
    assert from_hf({**raw, "max_position_embeddings": 4096}).num_kv_heads == 8


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[]", r"config\.json: holds \[\], expected an object"),
        (b"null", r"config\.json: holds null, expected an object"),
        (b"", r"config\.json:1: not JSON: Expecting value"),
        (b'{"vocab_size": 3,\n"hidden', r"config\.json:2: not JSON: "),
        ('{"author": "Müller"}'.encode("latin-1"), r"config\.json: not UTF-8: invalid start byte at byte 13"),
        (b"\xef\xbb\xbf{}", r"config\.json:1: not JSON: Unexpected UTF-8 BOM"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", r"config\.json: not JSON that can be read: Exceeds the limit"),
        (b"[" * 100_000, r"config\.json: not JSON that can be read: maximum recursion depth"),
    ],
)
def test_a_file_that_holds_no_json_object_is_named(tmp_path, content, sentence):
    (tmp_path / "config.json").write_bytes(content)
    for read in (from_hf, check_config_file):
        with pytest.raises(ModelError, match=sentence):
            read(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"use_cache": None}, "'use_cache' expected bool, got NoneType"),
        ({"pad_token_id": "0"}, "'pad_token_id' with value '0' doesn't match any type in"),
        (
            {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 128},
            "4096.* is not a multiple of the number",
        ),
    ],
)
def test_a_setting_that_only_transformers_refuses_is_named_with_the_file(tmp_path, change, sentence):
    (tmp_path / "config.json").write_text(json.dumps({**HF, **change}))
    for read in (from_hf, check_config_file):
        with pytest.raises(ModelError, match=rf"config\.json: transformers refuses a setting: .*{sentence}"):
            read(tmp_path)


def test_the_file_of_another_network_or_none_is_no_reason_to_refuse_a_tokenizer(tmp_path):
    check_config_file(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of my own", "auto_map": {"AutoConfig": "a.B"}}))
    check_config_file(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_embd": "768"}))
    with pytest.raises(ModelError, match=r"config\.json: transformers refuses a setting: .*'n_embd' expected int"):
        check_config_file(tmp_path)
