"""What holds for the values of all flags of all commands, whatever they mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

MOST = 2**31 - 1  # numpy's and jax's 32-bit integers hold no more


def check_values(config: Any, argv: Sequence[str]) -> None:
    """BadInput for a number that is not finite or beyond what 32 bits hold, for a negative seed, for text that is not
    UTF-8 (a path may be), and for a path that was given and is empty (which would be the current directory)."""
    from colbench_env.types import BadInput, replace_lone_surrogates

    empty = _given_empty(argv)
    for flag, value in flags_of(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput(f"{flag} is {value}, it must be a finite number")
        if isinstance(value, int) and abs(value) > MOST:
            shown = f"{value:.6g}" if abs(value) < 10**300 else "beyond 1e+300"
            raise BadInput(f"{flag} is {shown}, it must be at most {MOST}")
        if flag.endswith("-seed") and value < 0:
            raise BadInput(f"{flag} is {value}, it must not be negative")
        if isinstance(value, str) and not value.isascii() and replace_lone_surrogates(value) != value:
            raise BadInput(f"{flag}={value}: the bytes are no UTF-8")
        if isinstance(value, Path) and flag in empty:
            raise BadInput(f"{flag} is empty, expected a path")


def flags_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every flag of the configuration with its value, as tyro names them: ("--critic.training.batch-size", 8)."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        renamed = [mark.name for mark in getattr(hints[field.name], "__metadata__", ()) if hasattr(mark, "name")]
        name = next((name for name in renamed if name is not None), field.name)
        if dataclasses.is_dataclass(value):
            yield from flags_of(value, f"{prefix}{name}." if name else prefix)
        else:
            yield f"--{prefix}{name}".replace("_", "-"), value


def _given_empty(argv: Sequence[str]) -> set[str]:
    flags = [flag for flag, after in zip(argv, [*argv[1:], "--"], strict=False) if after == ""]
    flags += [argument.removesuffix("=") for argument in argv if argument.endswith("=")]
    return {flag.replace("_", "-") for flag in flags}
