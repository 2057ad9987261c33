"""The families of networks: how each differs from Llama, what its `config.json` leaves unsaid, and what is refused.

A family is an entry of FAMILIES, rows of the parameter table (`models.parameters`), names of tensors
(`models.hf_io`) and a line in the block (`models.llama`); docs/families.md goes through it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.json_settings import ModelError, count, flag, format_value

COMMON: Mapping[str, Any] = {"initializer_range": 0.02, "tie_word_embeddings": False, "hidden_act": "silu"}
NO_BIAS: Mapping[str, Any] = {"attention_bias": False, "mlp_bias": False}
QWEN: Mapping[str, Any] = {
    "num_key_value_heads": 32, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What sets a family apart.

    architecture: the class of transformers. defaults: what transformers takes for a setting that a file leaves out.
    constant: settings that are written as they stand here, and refused with another value. saved_as: its name in the
    files that we write, where another family says the same.
    qkv_bias: vectors that are added to queries, keys and values. qk_norm: queries and keys are normalised, each head by
    itself, before they are turned.
    """

    architecture: str
    defaults: Mapping[str, Any]
    constant: Mapping[str, Any]
    saved_as: str
    qkv_bias: bool = False
    qk_norm: bool = False


FAMILIES: dict[str, Family] = {
    "llama": Family("LlamaForCausalLM", {**COMMON, **NO_BIAS}, NO_BIAS, "llama"),
    # Mistral's arithmetic is Llama's where its window holds every token.
    "mistral": Family(
        "MistralForCausalLM", {**COMMON, "num_key_value_heads": 8, "sliding_window": 4096}, NO_BIAS, "llama"
    ),
    "qwen2": Family("Qwen2ForCausalLM", {**COMMON, **QWEN}, {}, "qwen2", qkv_bias=True),
    "qwen3": Family(
        "Qwen3ForCausalLM", {**COMMON, **QWEN, "head_dim": 128}, {"attention_bias": False}, "qwen3", qk_norm=True
    ),
}
"""model_type -> Family."""


def add_family(model_type: str, family: Family) -> None:
    """Make a family of this process's FAMILIES. Raises ModelError where another one has the name."""
    if FAMILIES.setdefault(model_type, family) != family:
        raise ModelError(f"model_type {format_value(model_type)} is a family already, expected another name")


def read_family(raw: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of the family that computes what a `config.json` describes, and its settings with the defaults.

    Raises ModelError for another model type, biases or an activation that are not computed, quantised weights, and a
    window of attention that a row could exceed.
    """
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        names = ", ".join(FAMILIES)
        raise ModelError(f"model_type is {format_value(kind)}; only networks with model_type {names} are supported")
    family = FAMILIES[kind]
    settings = {**family.defaults, **raw}
    _check_window(kind, settings)
    for name, wanted in family.constant.items():
        if flag({name: wanted, **settings}, name) != wanted:
            raise ModelError(f"{name} is {settings[name]}; only {kind} networks without these biases are supported")
    if settings["hidden_act"] != "silu":
        raise ModelError(
            f"hidden_act is {format_value(settings['hidden_act'])}; only networks with 'silu' are supported"
        )
    if settings.get("quantization_config"):
        raise ModelError("quantization_config is set; only float32, bfloat16 and float16 weights are supported")
    return family.saved_as, settings


def _check_window(kind: str, settings: Mapping[str, Any]) -> None:
    """Raise ModelError where some layer sees fewer tokens than a row may have."""
    if settings.get("sliding_window") is None or kind == "llama":
        return
    if "use_sliding_window" in settings and not flag(settings, "use_sliding_window"):
        return
    layers, types = count(settings, "num_hidden_layers"), settings.get("layer_types")
    windowed = count(settings, "max_window_layers", least=0) < layers if "max_window_layers" in settings else True
    if isinstance(types, list):
        windowed = "sliding_attention" in types
    window, length = count(settings, "sliding_window"), count(settings, "max_position_embeddings")
    if windowed and window < length:
        raise ModelError(
            f"sliding_window is {window}, below max_position_embeddings {length}; attention within a window is not "
            "supported"
        )
