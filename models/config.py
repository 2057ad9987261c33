"""Shape and constants of a network of the Llama kind, read from and written to a Hugging Face `config.json`."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from models.families import FAMILIES, read_family
from models.json_settings import ModelError, count, flag, number, read_object, token_ids
from models.rope_config import Llama3RopeScaling, rope_from_hf

Config = TypeVar("Config")
Default = TypeVar("Default", int, None)

MAX_LAYERS = 10_000  # a name is made for every tensor of every layer


@dataclass(frozen=True)
class LlamaConfig:
    """Everything that decides the shapes and the arithmetic of a network.

    family: which of `models.families` it is of. `bos_token_id` and `eos_token_ids` are carried only so that saving a
    loaded model loses nothing.
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
    family: str = "llama"

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads")
        for name in (*sizes, "head_size", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ModelError(f"{self.num_heads} query heads do not divide into {self.num_kv_heads} key/value heads")
        if self.family not in FAMILIES:
            raise ModelError(f"family {self.family!r} is none of {', '.join(FAMILIES)}")
        if self.head_size % 2:
            raise ModelError(f"head size {self.head_size} is odd; rotary embeddings turn pairs")

    def to_hf(self) -> dict[str, Any]:
        """Return the settings as a `config.json` dictionary that every version of transformers reads.

        Rope settings are written in the older keys (`rope_theta`, `rope_scaling`), which transformers 5 also reads.
        """
        scaling = self.rope_scaling
        eos = list(self.eos_token_ids)
        return {
            "architectures": [FAMILIES[self.family].architecture],
            "model_type": self.family,
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
            **FAMILIES[self.family].constant,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": eos[0] if len(eos) == 1 else (eos or None),
        }


def from_hf(source: str | Path | Mapping[str, Any]) -> LlamaConfig:
    """Read a configuration from a `config.json`: its dictionary, its path, or the directory it lies in.

    Raises ModelError where the file is missing or describes a network that `models.llama` does not compute.
    """
    return read_config(source, _from_dict, "a model")


def read_config(source: str | Path | Mapping[str, Any], made: Callable[[Any], Config], what: str) -> Config:
    """Make a configuration with `made` from a dictionary, the path of a `config.json`, or the directory it lies in.

    what: whose directory it is, for the sentences. Raises ModelError, with the file in front of what `made` says.
    """
    if isinstance(source, Mapping):
        return made(source)
    path = Path(source)
    if not path.exists() and path.suffix != ".json":
        raise ModelError(f"{path}: no such model directory")
    if path.is_file() and path.suffix != ".json":
        raise ModelError(f"{path}: a file, expected {what} directory, which holds config.json and model.safetensors")
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ModelError(f"{path}: no such file; {what} directory holds config.json and model.safetensors")
    raw = read_object(path)
    try:
        return made(raw)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def check_config_file(directory: str | Path) -> None:
    """Raise ModelError where the `config.json` of a directory is damaged, or has a setting that transformers refuses.

    For whoever loads a tokenizer, which reads that file, too. A directory without it is right, and so is a network that
    is not computed here.
    """
    if (Path(directory) / "config.json").is_file():
        read_config(directory, _check_as_transformers, "a model")


def _check_as_transformers(raw: Mapping[str, Any]) -> None:
    """Raise ModelError where transformers knows the model type and refuses a setting. No code of the model is run."""
    from transformers import CONFIG_MAPPING

    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        return
    try:
        CONFIG_MAPPING[kind].from_dict(copy.deepcopy(dict(raw)))
    except Exception as error:  # a validation error of its own, or whatever its arithmetic raises
        reason = " ".join(line.strip() for line in str(error).splitlines()) or type(error).__name__
        raise ModelError(f"transformers refuses a setting: {reason}") from error


def _from_dict(raw: Mapping[str, Any]) -> LlamaConfig:
    family, settings = read_family(raw)
    num_heads, hidden_size = count(settings, "num_attention_heads"), count(settings, "hidden_size")
    rope = rope_from_hf(raw)
    config = LlamaConfig(
        vocab_size=count(settings, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=count(settings, "intermediate_size"),
        num_layers=count(settings, "num_hidden_layers", most=MAX_LAYERS),
        num_heads=num_heads,
        num_kv_heads=_count_or(settings, "num_key_value_heads", num_heads),
        head_size=_count_or(settings, "head_dim", 0) or _even_share(hidden_size, num_heads),
        max_position_embeddings=count(settings, "max_position_embeddings"),
        rms_norm_eps=number(settings, "rms_norm_eps", above=0.0),
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        tie_word_embeddings=flag(settings, "tie_word_embeddings"),
        initializer_range=number(settings, "initializer_range"),
        bos_token_id=_count_or(settings, "bos_token_id", None, least=0),
        eos_token_ids=token_ids(settings, "eos_token_id"),
        family=family,
    )
    _check_as_transformers(raw)
    return config


def _count_or(settings: Mapping[str, Any], name: str, other: Default, least: int = 1) -> int | Default:
    """Read a count, or return `other` where the setting is null or missing."""
    return other if settings.get(name) is None else count(settings, name, least)


def _even_share(hidden_size: int, num_heads: int) -> int:
    if hidden_size % num_heads:
        raise ModelError(f"hidden_size {hidden_size} does not divide into {num_heads} heads and head_dim is not given")
    return hidden_size // num_heads
