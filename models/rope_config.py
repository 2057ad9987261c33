"""Settings of rotary embeddings in a Hugging Face `config.json`, in the older keys or those of transformers 5.

Older: `rope_theta` and `rope_scaling`. Newer: `rope_parameters`, which holds `rope_theta`. A file may have both
where they say the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.json_settings import ModelError, count, format_value, number

DEFAULT_THETA = 10000.0
OBJECTS = ("rope_scaling", "rope_parameters")
KINDS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""The kinds that are computed, and what each has besides its name and `rope_theta`."""
ALWAYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")


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
class RopeSettings:
    """The base of the wavelengths, and how they are stretched."""

    theta: float
    scaling: Llama3RopeScaling | None


def rope_from_hf(raw: Mapping[str, Any]) -> RopeSettings:
    """Read the rope settings of a configuration. Raises ModelError for what is not computed and for two that
    disagree."""
    given = {}
    for name in OBJECTS:
        value = raw.get(name)
        if value is not None and not isinstance(value, Mapping):
            raise ModelError(f"{name} is {format_value(value)}, expected an object or null")
        if value:
            given[name] = value
    read = {name: _read(name, value, raw) for name, value in given.items()}
    if len(set(read.values())) > 1:
        settings = " and ".join(f"{name} {format_value(value)}" for name, value in given.items())
        raise ModelError(f"{settings} say different things; delete one")
    return next(iter(read.values()), None) or _read("rope_parameters", {}, raw)


def _read(name: str, rope: Mapping[str, Any], raw: Mapping[str, Any]) -> RopeSettings:
    """Read the rope settings in the object of that name, together with those next to it."""
    inside = {f"{name}.{key}": value for key, value in rope.items()}
    named = _agree(inside, f"{name}.rope_type", inside, f"{name}.type")
    kind = "default" if named is None else named
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(f"{name}: rope_type is {format_value(kind)}; only 'default' and 'llama3' are supported")
    used = {f"{name}.{key}" for key in (*ALWAYS, *KINDS[kind])}
    if unused := sorted(key for key in inside.keys() - used if inside[key] is not None):
        reason = f"{name} has no rope_type" if named is None else f"rope_type {kind!r} has no use for it"
        raise ModelError(f"{', '.join(unused)}: {reason}")
    if (part := _agree(inside, f"{name}.partial_rotary_factor", raw, "partial_rotary_factor")) not in (None, 1):
        raise ModelError(
            f"partial_rotary_factor is {format_value(part)}; only rotary embeddings of whole heads are supported"
        )
    theta = _agree(inside, f"{name}.rope_theta", raw, "rope_theta")
    theta = DEFAULT_THETA if theta is None else number({"rope_theta": theta}, "rope_theta", above=0.0)
    if kind == "default":
        return RopeSettings(theta, None)
    original, outside = f"{name}.original_max_position_embeddings", "original_max_position_embeddings"
    _agree(inside, original, raw, outside)
    only_outside = (
        inside.get(original) is None and raw.get(outside) is not None
    )  # transformers takes it from there, too
    return RopeSettings(
        theta,
        Llama3RopeScaling(
            factor=number(inside, f"{name}.factor"),
            low_freq_factor=number(inside, f"{name}.low_freq_factor"),
            high_freq_factor=number(inside, f"{name}.high_freq_factor"),
            original_max_position_embeddings=count(raw, outside) if only_outside else count(inside, original),
        ),
    )


def _agree(first: Mapping[str, Any], name: str, second: Mapping[str, Any], other: str) -> Any:
    """Return the value of a setting that may stand in two places; None where neither has one."""
    one, two = first.get(name), second.get(other)
    if one is not None and two is not None and one != two:
        raise ModelError(
            f"{name} is {format_value(one)} and {other} is {format_value(two)}; both set the same thing, delete one"
        )
    return two if one is None else one
