"""A loss for tests of gradients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from models.llama import Llama, logits
from models.parameters import Params


def next_token_loss(model: Llama) -> Callable[[Params, jax.Array], jax.Array]:
    """Give the function of parameters and tokens [B, T] that is the mean log-probability of the next token."""

    def loss(params: Params, tokens_bt: jax.Array) -> jax.Array:
        positions_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
        hidden_btd = model.apply({"params": params}, tokens_bt, positions_bt).hidden_btd
        logp_btv = jax.nn.log_softmax(logits(hidden_btd, params, model.config, model.mesh))
        return jnp.take_along_axis(logp_btv[:, :-1], tokens_bt[:, 1:, None], axis=-1).mean()

    return loss
