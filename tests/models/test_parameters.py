"""The table of parameters and what it drives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from models import parameters
from models.config import LlamaConfig, ModelError
from models.parameters import (
    check_params,
    count_params,
    flatten,
    init_params,
    nest,
    param_shapes,
    param_shardings,
    parameter_table,
    replicated_share,
)
from models.sharding import WEIGHT_RULES, head_axis

SMOLLM2 = LlamaConfig(49152, 576, 1536, 30, 9, 3, 64, 8192, rope_theta=100000.0, tie_word_embeddings=True)


def test_the_table_counts_the_parameters_of_known_models():
    assert count_params(SMOLLM2) == 134_515_008
    assert count_params(LlamaConfig(128256, 4096, 14336, 32, 32, 8, 128, 131072)) == 8_030_261_248


def test_only_an_untied_network_has_an_output_matrix(tiny):
    tied = dataclasses.replace(tiny, tie_word_embeddings=True)
    assert parameter_table(tiny).keys() - parameter_table(tied).keys() == {"lm_head"}


def test_nested_and_flat_parameters_are_inverse():
    assert nest({"a/b": 1, "a/c/d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1, "a/c/d": 2, "e": 3}


def test_weights_are_split_over_both_axes_for_training(tiny, mesh_of):
    shardings = param_shardings(tiny, mesh_of(4, 2))
    assert shardings["embedding"].spec == P("tensor", "data")
    assert shardings["layers"]["attention"]["q"].spec == P(None, "data", "tensor")
    assert shardings["layers"]["attention"]["k"].spec == P(None, "data", "tensor")
    assert shardings["layers"]["attention"]["o"].spec == P(None, "tensor", "data")
    assert shardings["layers"]["mlp"]["up"].spec == P(None, "data", "tensor")
    assert shardings["layers"]["mlp"]["down"].spec == P(None, "tensor", "data")
    assert shardings["layers"]["mlp_norm"].spec == P(None, None)
    assert shardings["lm_head"].spec == P("data", "tensor")


@pytest.mark.slow
def test_fresh_parameters_follow_the_table_and_do_not_depend_on_the_mesh(tiny, mesh_of):
    mesh = mesh_of(4, 2)
    split, single = (flatten(init_params(tiny, jax.random.key(0), m)) for m in (mesh, mesh_of(1, 1)))
    shardings = flatten(param_shardings(tiny, mesh))
    for path, spec in parameter_table(tiny).items():
        assert split[path].shape == spec.shape
        assert split[path].sharding.is_equivalent_to(shardings[path], len(spec.shape))
        np.testing.assert_array_equal(np.asarray(split[path]), np.asarray(single[path]))
    assert np.asarray(single["final_norm"]).tolist() == [1.0] * 32
    assert np.std(single["layers/mlp/up"]) == pytest.approx(0.15, rel=0.05)


def test_no_two_parameters_start_equal(tiny, mesh_of):
    params = init_params(tiny, jax.random.key(0), mesh_of(1, 1))["layers"]["attention"]
    assert not np.array_equal(params["k"], params["v"])
    assert not np.array_equal(params["q"][0], params["q"][1])


def test_shapes_carry_dtype_and_sharding(tiny, mesh_of):
    shape = param_shapes(tiny, mesh_of(4, 2), jnp.bfloat16)["layers"]["mlp"]["down"]
    assert (shape.shape, shape.dtype, shape.sharding.spec) == ((3, 40, 32), jnp.bfloat16, P(None, "tensor", "data"))


def test_the_share_left_whole_on_every_device_is_that_of_the_norms(tiny, mesh_of):
    # Norms: 3 x 2 x 32 + 32 = 224 of 224 + 2 x 48 x 32 + 3 (2 x 32 x 32 + 2 x 32 x 16 + 3 x 32 x 40) numbers.
    assert replicated_share(tiny, mesh_of(4, 2)) == pytest.approx(224 / 24032)
    assert replicated_share(tiny, mesh_of(1, 1)) == 0.0


def test_an_axis_that_does_not_divide_is_refused_with_its_numbers(tiny, mesh_of):
    odd = dataclasses.replace(tiny, vocab_size=49)
    sentence = "parameter embedding: axis vocab of size 49 does not divide over mesh axis 'tensor' of 2"
    with pytest.raises(ModelError, match=sentence):
        param_shardings(odd, mesh_of(4, 2))


def test_an_axis_without_a_rule_or_with_two_is_refused(tiny, mesh_of):
    without = tuple(rule for rule in WEIGHT_RULES if rule[0] != "mlp")
    with pytest.raises(ModelError, match="parameter layers/mlp/gate: axis 'mlp' has 0 sharding rules"):
        param_shardings(tiny, mesh_of(4, 2), without)
    with pytest.raises(ModelError, match="axis 'vocab' has 2 sharding rules"):
        param_shardings(tiny, mesh_of(4, 2), (*WEIGHT_RULES, ("vocab", ("data",))))


def test_two_axes_of_a_parameter_on_one_mesh_axis_are_refused(tiny, mesh_of):
    rules = tuple((name, ("tensor",) if name == "embed" else axis) for name, axis in WEIGHT_RULES)
    with pytest.raises(ModelError, match="parameter embedding .* two go to mesh axis 'tensor'"):
        param_shardings(tiny, mesh_of(4, 2), rules)


def test_parameters_of_another_network_are_refused(tiny, mesh_of):
    flat = flatten(init_params(tiny, jax.random.key(0), mesh_of(1, 1)))
    renamed = {("extra" if path == "lm_head" else path): value for path, value in flat.items()}
    with pytest.raises(ModelError, match=r"missing: \['lm_head'\]; not of this network: \['extra'\]"):
        check_params(tiny, nest(renamed))
    with pytest.raises(ModelError, match=r"final_norm has shape \(3,\), the network needs \(32,\)"):
        check_params(tiny, nest({**flat, "final_norm": jnp.ones(3)}))


def test_heads_that_do_not_divide_stay_whole_and_the_report_says_so(mesh_of):
    axes = head_axis(SMOLLM2, mesh_of(4, 2))
    assert (axes.query, axes.kv) == (None, None)
    assert axes.report == (
        "attention on tensor=2: 9 query heads whole on every device, 3 key/value heads whole on every device"
    )
    some = head_axis(dataclasses.replace(SMOLLM2, num_heads=12), mesh_of(2, 4))
    assert (some.query, some.kv) == ("heads", None)
    assert some.report == "attention on tensor=4: 12 query heads split over 4, 3 key/value heads whole on every device"


def test_every_path_of_the_table_is_unique(tiny):
    rows = parameters._table(tiny)
    assert len({path for path, _ in rows}) == len(rows)
