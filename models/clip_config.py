"""Shape and constants of a CLIP network (arXiv:2103.00020), read from a Hugging Face `config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.config import MAX_LAYERS, read_config
from models.json_settings import ModelError, count, format_value, number

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
    """Read a configuration from a `config.json`: its dictionary, its path, or the directory it lies in.

    Raises ModelError where the file is missing or describes a network that `models.clip` does not compute.
    """
    return read_config(source, _from_dict, "a CLIP")


def _from_dict(raw: Mapping[str, Any]) -> ClipConfig:
    if raw.get("model_type") != "clip":
        raise ModelError(f"model_type is {format_value(raw.get('model_type'))}, a CLIP directory has 'clip'")
    vision, text = _side(raw, "vision_config", VISION_DEFAULTS), _side(raw, "text_config", TEXT_DEFAULTS)
    return ClipConfig(
        vision=VisionConfig(
            tower=_tower(vision, "vision_config"),
            image_size=count(vision, "vision_config.image_size"),
            patch_size=count(vision, "vision_config.patch_size"),
            num_channels=count(vision, "vision_config.num_channels"),
        ),
        text=TextConfig(
            tower=_tower(text, "text_config"),
            vocab_size=count(text, "text_config.vocab_size"),
            max_position_embeddings=count(text, "text_config.max_position_embeddings"),
            eos_token_id=count(text, "text_config.eos_token_id", least=0),
        ),
        projection_dim=count({"projection_dim": 512, **raw}, "projection_dim"),
    )


def _side(raw: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the settings of one tower as "NAME.SETTING" -> value. Those of the older `NAME_dict`, where a file has
    one, come first with its defaults."""
    settings, older = ({} if raw.get(key) is None else raw[key] for key in (name, f"{name}_dict"))
    for key, value in ((name, settings), (f"{name}_dict", older)):
        if not isinstance(value, Mapping):
            raise ModelError(f"{key} is {format_value(value)}, expected an object")
    whole = {**defaults, **settings} if raw.get(f"{name}_dict") is None else {**settings, **defaults, **older}
    return {f"{name}.{key}": value for key, value in whole.items()}


def _tower(settings: Mapping[str, Any], side: str) -> TowerConfig:
    sizes: dict[str, Any] = {
        "hidden_size": count(settings, f"{side}.hidden_size"),
        "intermediate_size": count(settings, f"{side}.intermediate_size"),
        "num_layers": count(settings, f"{side}.num_hidden_layers", most=MAX_LAYERS),
        "num_heads": count(settings, f"{side}.num_attention_heads"),
        "layer_norm_eps": number(settings, f"{side}.layer_norm_eps", above=0.0),
    }
    try:
        return TowerConfig(activation=settings[f"{side}.hidden_act"], **sizes)
    except ModelError as error:
        raise ModelError(f"{side}: {error}") from error
