"""FLOPs against numbers worked out by hand, shapes against what Meta published, and the table of chips."""

import json

import pytest

from colbench_env.types import BadInput
from launch.planning.chips import CHIPS, parse_topology
from launch.planning.config import PlanConfig
from launch.planning.flops import RECOMPUTED, Flops, sampling_flops, scoring_flops, training_flops
from launch.planning.planning import with_kernel
from launch.planning.shapes import SHAPES, network
from models.config import LlamaConfig
from models.llama import REMAT_POLICIES
from models.parameters import count_params

# Weights of a layer: q and o 8 x 8, k and v 8 x 4, and three of 8 x 16: 64 + 64 + 32 + 32 + 384 = 576.
SMALL = LlamaConfig(
    vocab_size=16, hidden_size=8, intermediate_size=16, num_layers=1, num_heads=2, num_kv_heads=1, head_size=4,
    max_position_embeddings=64,
)  # fmt: skip


def test_two_rows_of_three_tokens_are_counted_as_by_hand():
    products = 2 * 576 * 6
    attention = 4 * 2 * 4 * 12  # 1 + 2 + 3 keys a row
    logits = 2 * 8 * 16 * 6
    assert (products, attention, logits) == (6912, 384, 1536)
    assert scoring_flops(SMALL, 2, 3) == Flops(8832)
    assert training_flops(SMALL, 2, 3, "full") == Flops(8832, 17_664, 8832)


@pytest.mark.parametrize(("remat", "twice"), [("none", 1536), ("attention", 8448), ("dots", 1920)])
def test_what_remat_keeps_is_not_computed_twice(remat, twice):
    flops = training_flops(SMALL, 2, 3, remat)
    assert (flops.recomputed, flops.useful, flops.total) == (twice, 26_496, 26_496 + twice)


def test_adapters_need_no_gradients_of_the_weights_below_them():
    flops = training_flops(SMALL, 2, 3, "none", adapters=True)
    assert (flops.forward, flops.backward) == (8832, 6912 + 2 * 384 + 1536)


def test_every_remat_policy_of_the_network_is_counted():
    assert RECOMPUTED.keys() == {"none", *REMAT_POLICIES}


def test_two_turns_of_two_tokens_after_a_prompt_of_three_read_the_prompt_once():
    prompt = 2 * 576 * 3 + 4 * 2 * 4 * 6
    logits = 2 * 8 * 16 * 5
    drawn = 2 * 576 * 4 + 4 * 2 * 4 * 18  # a row's tokens see 4 and 5 keys
    assert sampling_flops(SMALL, 1, 3, samples=2, new_tokens=2) == Flops(prompt + logits + drawn) == Flops(10_112)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-70b", 70_553_706_496),
    ],
)
def test_shapes_by_name_have_the_published_number_of_parameters(name, parameters):
    assert count_params(SHAPES[name]) == parameters


def test_a_network_is_also_read_from_a_file_and_an_unknown_name_lists_the_known_ones(tmp_path):

    (tmp_path / "config.json").write_text(json.dumps(SMALL.to_hf()))
    assert network(str(tmp_path)) == network(str(tmp_path / "config.json")) == SMALL
    with pytest.raises(BadInput, match="--model=llama-9: no such file, and no shape of that name: expected"):
        network("llama-9")


def test_a_slice_counts_its_devices_as_jax_does():
    devices = {text: parse_topology(text).devices for text in ("v5e:4x4", "v5p:2x2x2", "tpu7x:2x2x1", "h100:8")}
    assert devices == {"v5e:4x4": 16, "v5p:2x2x2": 8, "tpu7x:2x2x1": 8, "h100:8": 8}


def test_gpus_are_compiled_for_themselves_or_for_a_slice_of_as_many_chips(monkeypatch):
    for installed, expected in ((True, "h100:8"), (False, "v5p:2x2x2")):
        monkeypatch.setattr("launch.planning.gpu_compiler.is_installed", lambda installed=installed: installed)
        assert str(parse_topology("h100:8").compiled_for()) == expected
        assert parse_topology("h100:8").compiled_for().devices == 8
    monkeypatch.setattr("launch.planning.gpu_compiler.is_installed", lambda: True)
    asked = {"bfloat16": "cudnn", "float32": "xla"}
    for dtype, kernel in asked.items():
        config = PlanConfig(topology="h100:8", compute_dtype=dtype)
        assert with_kernel(config, parse_topology(config.topology)).attention == kernel
    tpu = PlanConfig()
    assert with_kernel(tpu, parse_topology(tpu.topology)).attention == "splash"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("v5e", r"--topology=v5e cannot be read, expected GENERATION:LAYOUT such as v5e:4x4"),
        ("v9:2x2", r"there is no chip 'v9' in the table, expected one of v4, v5e, v5p, v6e, tpu7x, h100"),
        ("h100:7", r"expected h100:N for one of 1, 4, 8, 16, 32, 64 GPUs"),
    ],
)
def test_a_slice_that_is_none_is_refused(text, sentence):
    with pytest.raises(BadInput, match=sentence):
        parse_topology(text)


def test_half_of_a_tpu7x_is_half_of_its_published_rate():
    assert 2 * CHIPS["tpu7x"].peak_tflops == 2307 and CHIPS["tpu7x"].halves == 2
    assert CHIPS["v5e"].memory_gib == 15.75
