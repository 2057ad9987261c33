"""Settings of commands: dataclass fields with their names on the command line and in config files, marks and help."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from sweet_jax.train.settings import ADVANCED as ADVANCED

FLAT = tyro.conf.arg(name="")
"""Marks a dataclass within another whose flags have no prefix of their own."""
FILE_ONLY = tyro.conf.Suppress
"""Marks what a config file may set and the command line may not."""
SHARED = "training"
"""Marks a FLAT block whose settings `--training.NAME` sets in every block that has it."""
MOST = 2**31 - 1  # numpy's and jax's 32-bit integers hold no more


class Only:
    """Mark of a setting that means something only where other settings have these values: Only(algorithm="sweet")."""

    def __init__(self, **values: str | tuple[str, ...]):
        self.values = {name: (value,) if isinstance(value, str) else value for name, value in values.items()}

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Return whether the settings have these values."""
        return all(chosen.get(name) in allowed for name, allowed in self.values.items())


class Unless(Only):
    """Mark of a setting that means nothing where others have these values: Unless({"lora.rank": "0"})."""

    def __init__(self, values: Mapping[str, str]):
        super().__init__(**values)

    def holds(self, chosen: Mapping[str, Any]) -> bool:
        """Return whether no setting has its value; numbers are compared as they are written."""
        return not any(str(chosen.get(name)) in values for name, values in self.values.items())


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a configuration or of a block in it."""

    name: str
    """As in a config file: "critic.learning_rate"."""
    path: tuple[str, ...]
    """Names of the fields that lead to it: ("critic", "training", "learning_rate")."""
    type: Any
    marks: tuple[Any, ...]
    """Its marks and those of the blocks that it is in."""
    owner: type[Any]
    """The dataclass that has the field."""

    @property
    def flag(self) -> str:
        """Return the flag: "--critic.learning-rate"."""
        return f"--{self.name}".replace("_", "-")

    @property
    def help(self) -> str:
        """Return the docstring under the field; empty where there is none."""
        return " ".join(_docstrings(self.owner).get(self.path[-1], "").split())

    @property
    def shared_name(self) -> str:
        """Return the name that sets it and its like in other blocks, "training.learning_rate"; empty: none."""
        return f"{SHARED}.{self.path[-1]}" if SHARED in self.marks else ""

    def value(self, config: Any) -> Any:
        """Return the value in a configuration."""
        return functools.reduce(getattr, self.path, config)


_SETTINGS: dict[type[Any], tuple[Setting, ...]] = {}
_DOCSTRINGS: dict[type[Any], dict[str, str]] = {}


def settings(kind: type[Any]) -> tuple[Setting, ...]:
    """Return every setting of a configuration, in order."""
    if kind not in _SETTINGS:
        _SETTINGS[kind] = tuple(_walk(kind, "", (), ()))
    return _SETTINGS[kind]


def _walk(kind: type[Any], prefix: str, path: tuple[str, ...], marks: tuple[Any, ...]) -> Iterator[Setting]:
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        own: tuple[Any, ...] = getattr(hint, "__metadata__", ())
        of = hint.__origin__ if own else hint
        name = next((mark.name for mark in own if getattr(mark, "name", None) is not None), field.name)
        if dataclasses.is_dataclass(of):
            inner = f"{prefix}{name}." if name else prefix
            yield from _walk(of, inner, (*path, field.name), (*marks, *own))  # type: ignore[arg-type]
        else:
            yield Setting(prefix + name, (*path, field.name), of, (*marks, *own), kind)


def _docstrings(kind: type[Any]) -> dict[str, str]:
    """Return the string under each field of a dataclass."""
    if kind not in _DOCSTRINGS:
        _DOCSTRINGS[kind] = _read_docstrings(kind)
    return _DOCSTRINGS[kind]


def _read_docstrings(kind: type[Any]) -> dict[str, str]:
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: text.value.value
        for field, text in zip(body, body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def flags_of(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield every flag of the configuration with its value: ("--critic.batch-size", 8)."""
    for setting in settings(type(config)):
        yield setting.flag, setting.value(config)


def with_prefix(kind: type[Any], block: str, sentence: str) -> str:
    """Return what a block says of its settings with their whole names: "policy." in front for "policy.training"."""
    inside = next((each.name for each in settings(kind) if ".".join(each.path[:-1]) == block), "")
    prefix = inside.removesuffix(inside.split(".")[-1])
    return sentence if prefix in sentence or sentence.startswith("--") else f"{prefix}{sentence}"


def spread(kind: type[Any], argv: Sequence[str]) -> list[str]:
    """Return the arguments with `--training.NAME` as the flags that it stands for, in front of all others: they win."""
    shared: dict[str, list[str]] = {}
    for setting in settings(kind):
        if setting.shared_name:
            shared.setdefault(f"--{setting.shared_name}".replace("_", "-"), []).append(setting.flag)
    front, rest, words = [], [], iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        flags = shared.get(flag.replace("_", "-"))
        if flags is None:
            rest.append(word)
        elif equals or (value := next(words, "")):
            front += [f"{each}={value}" for each in flags]
        else:
            rest += flags[:1]  # without a value, as the parser will say
    return [*front, *rest]


def check_values(config: Any, argv: Sequence[str]) -> None:
    """Raise BadInput for values that no setting may have.

    These are a number that is not finite or beyond 32 bits, a negative seed, text that is not UTF-8 (a path may be),
    and a path that was given and is empty (which would be the current directory).
    """
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


def _given_empty(argv: Sequence[str]) -> set[str]:
    flags = [flag for flag, after in zip(argv, [*argv[1:], "--"], strict=False) if after == ""]
    flags += [argument.removesuffix("=") for argument in argv if argument.endswith("=")]
    return {flag.replace("_", "-") for flag in flags}
