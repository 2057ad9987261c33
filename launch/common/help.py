"""What `--help` and `--help-all` print: a setting in a line or two, with its meaning and its default."""

from __future__ import annotations

import inspect
import shutil
import textwrap
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from launch.common.flags import ADVANCED, FILE_ONLY, SHARED, Only, Setting, settings

COLUMN = 32  # where the explanations begin
ALWAYS = (
    ("-h, --help", "Show the settings that are used most."),
    ("--help-all", "Show every setting."),
    ("--config FILE", "Take settings from YAML or JSON, as the config.json of a run; flags win."),
)


def is_asked(argv: Sequence[str]) -> bool:
    """Return whether the arguments ask for help."""
    return any(argument in ("-h", "--help", "--help-all") for argument in argv)


def help_text(config: Any, command: str, chosen: Mapping[str, Any], everything: bool) -> str:
    """Return the help of a command.

    config: has the defaults, with tyro.MISSING where there is none. chosen: values of the settings that `Only` names.
    everything: also settings that are ADVANCED.
    """
    kind = type(config)
    shown = [setting for setting in shown_settings(kind, chosen) if everything or ADVANCED not in setting.marks]
    words = [f" {_metavar(setting)}" for setting in shown if _positional(setting)]
    lines = [f"usage: python -m {command} [-h] [OPTIONS]{''.join(words)}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
    for left, text in ALWAYS:
        lines += _entry(left, text)
    for title, rows in _blocks(shown, config).items():
        lines += ["", title]
        for left, text in rows:
            lines += _entry(left, text)
    return "\n".join(lines)


def shown_settings(kind: type[Any], chosen: Mapping[str, Any]) -> list[Setting]:
    """Return the settings that flags can set and that mean something with these choices."""
    return [
        setting
        for setting in settings(kind)
        if FILE_ONLY not in setting.marks
        and all(mark.holds(chosen) for mark in setting.marks if isinstance(mark, Only))
    ]


def _blocks(shown: Sequence[Setting], config: Any) -> dict[str, list[tuple[str, str]]]:
    """Return flag and text of each setting below the title of its block; those of several blocks once."""
    alike: dict[str, list[Setting]] = {}
    for setting in shown:
        alike.setdefault(setting.shared_name or setting.name, []).append(setting)
    blocks: dict[str, list[tuple[str, str]]] = {}
    for name, those in alike.items():
        first, owners = those[0], [setting.name.partition(".")[0] for setting in those]
        if len(those) > 1:
            title = f"{SHARED}: {' and '.join(owners)} alike; {' and '.join(f'--{each}.NAME' for each in owners)} win"
        elif "." in (name := first.name):
            title = f"{name.partition('.')[0]}: {inspect.cleandoc(first.owner.__doc__ or '').splitlines()[0]}"
        else:
            title = "settings:"
        values = [_shown(setting.value(config)) for setting in those]
        if len(set(values)) > 1:
            values = [f"{owner} {value}" for owner, value in zip(owners, values, strict=True)]
        else:
            del values[1:]
        usual = f" ({', '.join(values)})" if any(values) else ""
        blocks.setdefault(title, []).append((_left(first, name), first.help + usual))
    return blocks


def _left(setting: Setting, name: str) -> str:
    block, dot, last = name.replace("_", "-").rpartition(".")
    if _positional(setting):
        return _metavar(setting)
    return f"--{block}{dot}[no-]{last}" if setting.type is bool else f"--{block}{dot}{last} {_metavar(setting)}"


def _positional(setting: Setting) -> bool:
    return tyro.conf.Positional in setting.marks


def _metavar(setting: Setting) -> str:
    """Return what stands for the value: {a,b} for choices, else PATH, NUMBER or TEXT."""

    def of(hint: Any) -> str:
        options = typing.get_args(hint)
        if typing.get_origin(hint) is Literal:
            return f"{{{','.join(options)}}}"
        if typing.get_origin(hint) is tuple:
            return f"{of(options[0])} ..."
        if options:
            return of(next(option for option in options if option is not type(None)))
        return {int: "INT", float: "FLOAT", Path: "PATH"}.get(hint, "TEXT")

    return setting.name.upper() if _positional(setting) else of(setting.type)


def _shown(value: Any) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case tuple():
            return " ".join(value)
    if value is tyro.MISSING:
        return "required"
    return "" if value is None else str(value)


def _entry(left: str, text: str) -> list[str]:
    width = min(max(shutil.get_terminal_size((110, 24)).columns, 80), 120)
    lines = textwrap.wrap(text, width - COLUMN) or [""]
    if len(left) > COLUMN - 4:
        return [f"  {left}", *(" " * COLUMN + line for line in lines)]
    return [f"  {left:<{COLUMN - 2}}{lines[0]}", *(" " * COLUMN + line for line in lines[1:])]
