"""Shape and constants of a CLIP network (arXiv:2103.00020), read from a Hugging Face `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import ModelError, read_config

ACTIVATIONS = ("quick_gelu", "gelu")
LEGACY_EOS = 2
"""What early configurations call the end of a text; the true id is then the largest of a row (`models.clip`)."""

TOWER = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
VISION_DEFAULTS: Mapping[str, Any] = {
    **TOWER,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
TEXT_DEFAULTS: Mapping[str, Any] = {
    **TOWER,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
"""What transformers takes for a setting that a file leaves out, and it leaves out those that have this value."""


@dataclass(frozen=True)
class TowerConfig:
    """The transformer of one side: pre-norm layers, each with attention of `num_heads` heads and an mlp."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    activation: str
    layer_norm_eps: float

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ModelError(f"hidden_size {self.hidden_size} does not divide into {self.num_heads} heads")
        if self.activation not in ACTIVATIONS:
            raise ModelError(f"hidden_act is {self.activation!r}, supported are {', '.join(ACTIVATIONS)}")

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True)
class VisionConfig:
    """The side of images: squares of `image_size` pixels, cut into squares of `patch_size`; what is left over at the
    right and the bottom is not seen."""

    tower: TowerConfig
    image_size: int
    patch_size: int
    num_channels: int

    def __post_init__(self) -> None:
        if self.patch_size > self.image_size:
            raise ModelError(f"patch_size {self.patch_size} is larger than image_size {self.image_size}")

    @property
    def patches(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """The class token and the patches."""
        return 1 + self.patches**2


@dataclass(frozen=True)
class TextConfig:
    """The side of texts: a causal transformer whose output is read at the end-of-text token."""

    tower: TowerConfig
    vocab_size: int
    max_position_embeddings: int
    eos_token_id: int


@dataclass(frozen=True)
class ClipConfig:
    """Both sides, and the size of the space in which their embeddings are compared."""

    vision: VisionConfig
    text: TextConfig
    projection_dim: int


def clip_from_hf(source: str | Path | Mapping[str, Any]) -> ClipConfig:
    """The configuration held in a `config.json`: its dictionary, its path, or the directory it lies in.

    Raises ModelError where the file is missing or describes a network that `models.clip` does not compute.
    """
    return read_config(source, _from_dict, "a CLIP")


def _from_dict(raw: Any) -> ClipConfig:
    kind = raw.get("model_type") if isinstance(raw, Mapping) else None
    if kind != "clip":
        raise ModelError(f"model_type is {kind!r}, a CLIP directory has 'clip'")
    vision, text = _side(raw, "vision_config", VISION_DEFAULTS), _side(raw, "text_config", TEXT_DEFAULTS)
    return ClipConfig(
        vision=VisionConfig(
            tower=_tower(vision, "vision_config"),
            image_size=_count(vision, "image_size", "vision_config"),
            patch_size=_count(vision, "patch_size", "vision_config"),
            num_channels=_count(vision, "num_channels", "vision_config"),
        ),
        text=TextConfig(
            tower=_tower(text, "text_config"),
            vocab_size=_count(text, "vocab_size", "text_config"),
            max_position_embeddings=_count(text, "max_position_embeddings", "text_config"),
            eos_token_id=_count(text, "eos_token_id", "text_config", least=0),
        ),
        projection_dim=_count({"projection_dim": 512, **raw}, "projection_dim"),
    )


def _side(raw: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one side. Those of the older `NAME_dict`, where a file has one, go first with its defaults."""
    settings, older = raw.get(name) or {}, raw.get(f"{name}_dict")
    for key, value in ((name, settings), (f"{name}_dict", older or {})):
        if not isinstance(value, Mapping):
            raise ModelError(f"{key} is {value!r}, expected a dictionary")
    return {**defaults, **settings} if older is None else {**settings, **defaults, **older}


def _tower(settings: Mapping[str, Any], side: str) -> TowerConfig:
    eps = settings["layer_norm_eps"]
    if isinstance(eps, bool) or not isinstance(eps, int | float) or eps <= 0:
        raise ModelError(f"{side}: layer_norm_eps is {eps!r}, expected a number above 0")
    try:
        return TowerConfig(
            hidden_size=_count(settings, "hidden_size"),
            intermediate_size=_count(settings, "intermediate_size"),
            num_layers=_count(settings, "num_hidden_layers"),
            num_heads=_count(settings, "num_attention_heads"),
            activation=settings["hidden_act"],
            layer_norm_eps=float(eps),
        )
    except ModelError as error:
        raise ModelError(f"{side}: {error}") from error


def _count(settings: Mapping[str, Any], name: str, side: str | None = None, least: int = 1) -> int:
    value = settings[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        where = f"{side}: " if side else ""
        raise ModelError(f"{where}{name} is {value!r}, expected a whole number of at least {least}")
    return value
