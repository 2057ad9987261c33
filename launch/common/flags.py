"""What holds for the values of all flags of all commands, whatever they mean."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import tyro

FLAT = tyro.conf.arg(name="")
"""Marks a dataclass within another whose flags have no prefix of their own."""
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
    """Every flag of the configuration with its value, as tyro names them: ("--critic.batch-size", 8)."""
    for field, name, _ in named_fields(type(config)):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from flags_of(value, f"{prefix}{name}." if name else prefix)
        else:
            yield f"--{prefix}{name}".replace("_", "-"), value


def named_fields(kind: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], str, Any]]:
    """Every field of a dataclass, its name on the command line ("" for a block that is FLAT), and its type."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        renamed = [mark.name for mark in getattr(hints[field.name], "__metadata__", ()) if hasattr(mark, "name")]
        name = next((name for name in renamed if name is not None), field.name)
        yield field, name, plain_type(hints[field.name])


def plain_type(hint: Any) -> Any:
    """The type without its marks."""
    return hint.__origin__ if hasattr(hint, "__metadata__") else hint


def prefix_of(kind: type[Any], block: str) -> str:
    """The prefix that flags of a block have: "policy." for "policy.training", which is FLAT."""
    prefix = ""
    for part in block.split(".") if block else ():
        name, kind = next((name, hint) for field, name, hint in named_fields(kind) if field.name == part)
        prefix += f"{name}." if name else ""
    return prefix


def _given_empty(argv: Sequence[str]) -> set[str]:
    flags = [flag for flag, after in zip(argv, [*argv[1:], "--"], strict=False) if after == ""]
    flags += [argument.removesuffix("=") for argument in argv if argument.endswith("=")]
    return {flag.replace("_", "-") for flag in flags}
