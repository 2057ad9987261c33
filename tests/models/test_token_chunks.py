"""Tokens that are computed some at a time give what all at once give."""

import jax
import numpy as np
import pytest

from models.token_chunks import map_tokens

pytestmark = pytest.mark.slow


def mlp(weight):
    return lambda x_btd: jax.nn.silu(x_btd @ weight) ** 2


@pytest.mark.parametrize(
    ("shape", "pieces"), [((2, 768), 3), ((1, 640), 2), ((1, 320), 1), ((3, 100), 1), ((1, 131), 1)]
)
@pytest.mark.parametrize("mesh_shape", [(1, 1), (2, 2)])
def test_values_and_gradients_are_those_of_all_tokens_at_once(mesh_of, shape, pieces, mesh_shape):
    mesh = mesh_of(*mesh_shape)
    x_btd, weight = jax.random.normal(jax.random.key(0), (*shape, 4)), jax.random.normal(jax.random.key(1), (4, 6))
    seen = []

    def apply(weight):
        def counted(x_btd):
            seen.append(x_btd.shape)
            return mlp(weight)(x_btd)

        return counted

    def found(weight, x_btd):
        return map_tokens(apply(weight), x_btd, mesh)

    np.testing.assert_allclose(found(weight, x_btd), mlp(weight)(x_btd), rtol=1e-5)
    tokens = shape[0] * shape[1]
    whole = mesh.size > 1 or pieces == 1
    assert seen[0] == ((*shape, 4) if whole else (1, tokens // pieces, 4))
    one = jax.grad(lambda *given: (found(*given) * 2).sum(), (0, 1))(weight, x_btd)
    other = jax.grad(lambda weight, x_btd: (mlp(weight)(x_btd) * 2).sum(), (0, 1))(weight, x_btd)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
