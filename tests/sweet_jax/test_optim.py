"""The optimiser against optax's own, with moments in float32 and in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sweet_jax.train.optim import learning_rate, make_optimizer
from sweet_jax.train.settings import Training

STEPS = 20
PARAMS = {"w": jax.random.normal(jax.random.key(0), (30, 20)), "b": jnp.ones(7)}


def gradients(step):
    return jax.tree.map(lambda x: jax.random.normal(jax.random.key(step + 1), x.shape) * (1 + x), PARAMS)


def trained(optimizer):
    @jax.jit
    def update(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(STEPS):
        params, state = update(params, state, gradients(step))
    return params, state


def moments(state):
    adam = next(part for part in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(part))
    return adam.mu, adam.nu


def is_adam(part):
    return isinstance(part, optax.ScaleByAdamState)


@pytest.mark.slow
def test_float32_moments_give_the_updates_of_optax_adamw():
    training = Training(learning_rate=1e-2, weight_decay=0.1)
    rate = lambda step: learning_rate(training, STEPS, step)  # noqa: E731
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.1))
    found, expected = trained(make_optimizer(training, STEPS))[0], trained(theirs)[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), found, expected)
    assert float(jnp.abs(found["w"] - PARAMS["w"]).max()) > 0.05


@pytest.mark.slow
def test_bfloat16_moments_are_half_as_large_and_move_the_parameters_nearly_as_far():
    wide, narrow = (Training(learning_rate=1e-2, moment_dtype=name) for name in ("float32", "bfloat16"))
    (expected, kept), (found, small) = trained(make_optimizer(wide, STEPS)), trained(make_optimizer(narrow, STEPS))
    assert {x.dtype for x in jax.tree.leaves(moments(small))} == {jnp.dtype(jnp.bfloat16)}
    sizes = [sum(x.nbytes for x in jax.tree.leaves(moments(state))) for state in (small, kept)]
    assert 2 * sizes[0] == sizes[1]
    for name, start in PARAMS.items():
        moved, off = expected[name] - start, found[name] - expected[name]
        # bfloat16 keeps 8 bits: a rounding of each moment is at most 2^-8 of it.
        assert float(jnp.linalg.norm(off)) < 2**-6 * float(jnp.linalg.norm(moved))
        assert found[name].dtype == jnp.float32
