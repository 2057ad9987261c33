"""Shape and constants of a Llama network, read from and written to a Hugging Face `config.json`."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar


class ModelError(ValueError):
    """A model that cannot be built, sharded, loaded or saved as asked; one sentence naming names and numbers."""


Config = TypeVar("Config")


@dataclass(frozen=True)
class Llama3RopeScaling:
    """Llama 3.1's stretching of rotary wavelengths (see `models.rope.inverse_frequencies`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ModelError(f"rope scaling factor {self.factor} is below 1")
        if not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ModelError(
                f"rope scaling needs 0 < low_freq_factor < high_freq_factor, "
                f"got {self.low_freq_factor} and {self.high_freq_factor}"
            )
        if self.original_max_position_embeddings < 1:
            raise ModelError(
                f"rope scaling original_max_position_embeddings {self.original_max_position_embeddings} is below 1"
            )


@dataclass(frozen=True)
class LlamaConfig:
    """Everything that decides the shapes and the arithmetic of a Llama network.

    `bos_token_id` and `eos_token_ids` are carried only so that saving a loaded model loses nothing.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: Llama3RopeScaling | None = None
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_size", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ModelError(f"{self.num_heads} query heads do not divide into {self.num_kv_heads} key/value heads")
        if self.head_size % 2:
            raise ModelError(f"head size {self.head_size} is odd; rotary embeddings turn pairs")

    def to_hf(self) -> dict[str, Any]:
        """The settings as a `config.json` dictionary that every version of transformers reads.

        Rope settings are written in the older keys (`rope_theta`, `rope_scaling`), which transformers 5 also reads.
        """
        scaling = self.rope_scaling
        eos = list(self.eos_token_ids)
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_size,
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None if scaling is None else {"rope_type": "llama3", **vars(scaling)},
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos[0] if len(eos) == 1 else (eos or None),
        }


def from_hf(source: str | Path | Mapping[str, Any]) -> LlamaConfig:
    """The configuration held in a `config.json`: its dictionary, its path, or the directory it lies in.

    Raises ModelError where the file is missing or describes a network that `models.llama` does not compute.
    """
    return read_config(source, _from_dict, "a model")


def read_config(source: str | Path | Mapping[str, Any], made: Callable[[Any], Config], what: str) -> Config:
    """What `made` makes of a configuration: its dictionary, the path of a `config.json`, or the directory it lies in.

    what: whose directory it is, for the sentences. Raises ModelError, with the file in front of what `made` says.
    """
    if isinstance(source, Mapping):
        return made(source)
    path = Path(source)
    if not path.exists() and path.suffix != ".json":
        raise ModelError(f"{path}: no such model directory")
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ModelError(f"{path}: no such file; {what} directory holds config.json and model.safetensors")
    try:
        return made(json.loads(path.read_text(encoding="utf-8")))
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error


def _from_dict(raw: Mapping[str, Any]) -> LlamaConfig:
    _refuse_other_architectures(raw)
    try:
        num_heads, hidden_size = raw["num_attention_heads"], raw["hidden_size"]
        rope = _rope_settings(raw)
        eos = raw.get("eos_token_id")
        return LlamaConfig(
            vocab_size=raw["vocab_size"],
            hidden_size=hidden_size,
            intermediate_size=raw["intermediate_size"],
            num_layers=raw["num_hidden_layers"],
            num_heads=num_heads,
            num_kv_heads=raw.get("num_key_value_heads") or num_heads,
            head_size=raw.get("head_dim") or _even_share(hidden_size, num_heads),
            max_position_embeddings=raw["max_position_embeddings"],
            rms_norm_eps=float(raw["rms_norm_eps"]),
            rope_theta=float(rope["rope_theta"]),
            rope_scaling=_rope_scaling(rope),
            tie_word_embeddings=raw.get("tie_word_embeddings", False),
            initializer_range=float(raw.get("initializer_range", 0.02)),
            bos_token_id=raw.get("bos_token_id"),
            eos_token_ids=() if eos is None else tuple(eos) if isinstance(eos, list) else (eos,),
        )
    except KeyError as error:
        raise ModelError(f"setting {error} is missing") from error


def _refuse_other_architectures(raw: Mapping[str, Any]) -> None:
    window, length = raw.get("sliding_window"), raw.get("max_position_embeddings", 0)
    if raw.get("model_type") == "mistral":  # the same arithmetic, where its window holds every token
        if window is not None and window < length:
            raise ModelError(
                f"sliding_window is {window}, below max_position_embeddings {length}; attention within a window is not "
                "supported"
            )
        raw = {**raw, "model_type": "llama"}
    required = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
    for name, value in required.items():
        found = raw.get(name, None if name == "model_type" else value)
        if found != value:
            raise ModelError(f"{name} is {found!r}; only Llama networks with {name} {value!r} are supported")
    if raw.get("quantization_config"):
        raise ModelError("quantization_config is set; only float32, bfloat16 and float16 weights are supported")


def _even_share(hidden_size: int, num_heads: int) -> int:
    if hidden_size % num_heads:
        raise ModelError(f"hidden_size {hidden_size} does not divide into {num_heads} heads and head_dim is not given")
    return hidden_size // num_heads


def _rope_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Rope settings in transformers 5's form (`rope_parameters`), whichever form the file has."""
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    return {"rope_theta": raw.get("rope_theta", 10000.0), **scaling}


def _rope_scaling(rope: Mapping[str, Any]) -> Llama3RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise ModelError(f"rope_type is {kind!r}; only 'default' and 'llama3' are supported")
    return Llama3RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_max_position_embeddings=rope["original_max_position_embeddings"],
    )
