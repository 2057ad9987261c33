"""The layout of weights for sampling."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from models.inference import inference_params, inference_shapes, inference_shardings, inference_table
from models.parameters import flatten


@pytest.mark.parametrize("shape", [(1, 1), (4, 2), (2, 4)])
def test_every_layer_has_arrays_of_its_own_and_fused_ones(tiny, mesh_of, random_params, shape):
    mesh = mesh_of(*shape)
    params = random_params(tiny, mesh)
    flat = flatten(inference_params(params, tiny, mesh, jnp.float32))
    assert {path: x.shape for path, x in flat.items()} == {
        path: spec.shape for path, spec in inference_table(tiny, mesh).items()
    }
    attention, mlp = params["layers"]["attention"], params["layers"]["mlp"]
    heads = [np.asarray(attention[name][1]).T.reshape(2, -1, 32) for name in "qkv"]
    if shape == (2, 4):  # 2 key/value heads are not split over 4 devices
        assert "layers/1/attention/qkv" not in flat
        np.testing.assert_array_equal(flat["layers/1/attention/k"], attention["k"][1].T)
    else:
        fused = np.asarray(flat["layers/1/attention/qkv"]).reshape(2, -1, 32)
        np.testing.assert_array_equal(fused, np.concatenate(heads, axis=1))
    both = [np.asarray(mlp[name][1]).T.reshape(shape[1], -1, 32) for name in ("gate", "up")]
    fused = np.asarray(flat["layers/1/mlp/gate_up"]).reshape(shape[1], -1, 32)
    np.testing.assert_array_equal(fused, np.concatenate(both, axis=1))
    np.testing.assert_array_equal(flat["lm_head"], params["lm_head"].T)


def test_weights_are_split_over_tensor_only_and_matrices_cast(tiny, mesh_of, random_params):
    mesh = mesh_of(4, 2)
    shardings = inference_shardings(tiny, mesh)
    assert shardings["embedding"].spec == P("tensor", None)
    assert shardings["layers"]["0"]["attention"]["o"].spec == P(None, "tensor")
    assert shardings["layers"]["0"]["attention"]["qkv"].spec == P("tensor", None)
    shapes = flatten(inference_shapes(tiny, mesh, jnp.bfloat16))
    found = flatten(inference_params(random_params(tiny, mesh), tiny, mesh, jnp.bfloat16))
    assert {path: (x.shape, x.dtype, x.sharding) for path, x in shapes.items()} == {
        path: (x.shape, x.dtype, x.sharding) for path, x in found.items()
    }
    assert found["layers/0/mlp_norm"].dtype == jnp.float32 and found["lm_head"].dtype == jnp.bfloat16


@pytest.mark.parametrize("tied", [False, True])
def test_for_bfloat16_on_a_cpu_matrices_lie_the_other_way_round(tiny, mesh_of, random_params, tied):
    config, mesh = dataclasses.replace(tiny, tie_word_embeddings=tied), mesh_of(4, 2)
    params = random_params(config, mesh)
    half, whole = (flatten(inference_params(params, config, mesh, dtype)) for dtype in (jnp.bfloat16, jnp.float32))
    assert half.keys() - whole.keys() == ({"lm_head"} if tied else set())
    head = half.pop("lm_head")
    np.testing.assert_array_equal(head, whole["embedding" if tied else "lm_head"].astype(jnp.bfloat16).T)
    assert head.sharding.spec == P(None, "tensor")
    for path, x in half.items():
        turned = x.ndim == 2 and path != "embedding"
        kept = whole[path] if path.endswith("norm") else whole[path].astype(jnp.bfloat16)
        np.testing.assert_array_equal(x, kept.T if turned else kept.astype(x.dtype))
