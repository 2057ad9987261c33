"""FLOPs of a step from the shapes alone. XLA's own count is of no use: it counts the body of a scan over layers once.

A product of [m, k] and [k, n] is 2 m k n. Counted: the projections, the mlp, the unembedding, and the scores and
weighted sums of causal attention, of which a token at position t has t + 1. Not counted: norms, softmax, rotary
embeddings, the optimiser (all below 1 %), and attention to masked tokens, which kernels skip and plain XLA computes.
The backward pass of a product is two products of the same size.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.config import LlamaConfig

RECOMPUTED = {"none": (False, False), "full": (True, True), "attention": (True, False), "dots": (False, True)}
"""Name of `models.llama.REMAT_POLICIES` -> whether products with weights and attention are computed again."""


@dataclass(frozen=True)
class Flops:
    """FLOPs of one step of all devices together. forward: what the loss, or the sampled tokens, need. backward: of the
    gradients. recomputed: what rematerialisation computes a second time."""

    forward: float
    backward: float = 0.0
    recomputed: float = 0.0

    @property
    def useful(self) -> float:
        """Without what is computed twice."""
        return self.forward + self.backward

    @property
    def total(self) -> float:
        """All that the devices compute."""
        return self.useful + self.recomputed


def layer_weights(config: LlamaConfig) -> int:
    """Count the weights that a token is multiplied with in all layers."""
    heads, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    attention = config.hidden_size * (2 * heads + 2 * kv)
    return config.num_layers * (attention + 3 * config.hidden_size * config.intermediate_size)


def attention_flops(config: LlamaConfig, keys: float) -> float:
    """Count scores and weighted sums of all layers for tokens that see `keys` tokens together."""
    return 4.0 * config.num_layers * config.num_heads * config.head_size * keys


def layer_flops(config: LlamaConfig, rows: int, length: int) -> float:
    """Count one forward pass of all layers over `rows` rows of `length` tokens."""
    keys = rows * length * (length + 1) / 2
    return 2.0 * layer_weights(config) * rows * length + attention_flops(config, keys)


def logit_flops(config: LlamaConfig, tokens: int) -> float:
    """Count the logits of that many tokens."""
    return 2.0 * config.hidden_size * config.vocab_size * tokens


def training_flops(config: LlamaConfig, rows: int, length: int, remat: str, adapters: bool = False) -> Flops:
    """Count a training step. The backward pass computes the logits again, and of the layers what `remat` does not keep.

    adapters: weights stay as they are (LoRA), so that their gradients are not computed; the adapters' own products,
    about 1 % of the weights', are not counted.
    """
    products, attention = RECOMPUTED[remat]
    weights = 2.0 * layer_weights(config) * rows * length
    scores = attention_flops(config, rows * length * (length + 1) / 2)
    logits = logit_flops(config, rows * length)
    forward = weights + scores + logits
    backward = weights + 2 * scores + logits if adapters else 2 * forward
    return Flops(forward, backward, products * weights + attention * scores + logits)


def scoring_flops(config: LlamaConfig, rows: int, length: int) -> Flops:
    """Count the log-probs of all tokens."""
    return Flops(layer_flops(config, rows, length) + logit_flops(config, rows * length))


def sampling_flops(config: LlamaConfig, prompts: int, length: int, samples: int, new_tokens: int) -> Flops:
    """Count `samples` turns of `new_tokens` tokens after each prompt. No turn ends early; a prompt is read once."""
    rows = prompts * samples
    keys = rows * new_tokens * (length + (new_tokens + 1) / 2)
    drawn = 2.0 * layer_weights(config) * rows * new_tokens + attention_flops(config, keys)
    return Flops(layer_flops(config, prompts, length) + logit_flops(config, prompts + rows * new_tokens) + drawn)
