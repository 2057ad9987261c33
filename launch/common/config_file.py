"""Config files: settings by the names of their fields, in YAML or JSON, each with its line for a sentence about it."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import tyro
import yaml

from colbench_env.types import BadInput
from launch.common.flags import Setting, settings, with_prefix
from launch.common.old_names import OLD_BLOCKS, current_name

ALIKE = 0.8  # names that are less alike are hardly slips of the pen


@dataclasses.dataclass(frozen=True)
class Entry:
    """A setting that a file gives a value."""

    setting: Setting
    value: Any
    line: int

    def is_named_in(self, sentence: str) -> bool:
        """Return whether a sentence names the setting, as a flag or as a field."""
        names = re.escape(self.setting.flag), re.escape(self.setting.name), re.escape(self.setting.path[-1])
        return re.search(rf"(?<![\w.-])({'|'.join(names)})\b", sentence) is not None


def read_config(path: Path, kind: type[Any], command: str) -> list[Entry]:
    """Return the settings of a file for a command, in order; a shared one before those that it stands for.

    Raises BadInput with file, line and key for what is no setting, is there twice or has a value of another type.
    """
    entries: list[tuple[bool, Entry]] = []
    seen: dict[str, int] = {}
    for name, line, node in _leaves(_root(path), "", path, set(_blocks(kind))):
        location = f"{path}:{line}"
        found = _find(kind, name)
        if not found:
            raise BadInput(f"{location}: {_unknown(name, kind, command)}")
        key = name if len(found) > 1 else found[0].name
        if key in seen:
            raise BadInput(f"{location}: {name} is there twice, first in line {seen[key]}")
        seen[key] = line
        try:
            value = _convert(node, found[0].type)
        except ValueError as error:
            raise BadInput(f"{location}: {name} is {_shown(node)}, expected {error}") from None
        entries += [(key != setting.name, Entry(setting, value, line)) for setting in found]
    return [entry for _, entry in sorted(entries, key=lambda pair: not pair[0])]


def _root(path: Path) -> yaml.Node | None:
    from launch.common.files import check_readable

    check_readable(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return yaml.compose(text.replace("\t", " ") if text.lstrip().startswith("{") else text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{path}:{line}: the bytes are no UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadInput(f"{path}:{mark.line + 1 if mark else 1}: neither YAML nor JSON: {error.problem}") from None
    except RecursionError:
        raise BadInput(f"{path}:1: nested too deeply for settings") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{path}: neither YAML nor JSON: {' '.join(str(error).split())}") from None


def _leaves(node: yaml.Node | None, prefix: str, path: Path, blocks: set[str]) -> Iterator[tuple[str, int, yaml.Node]]:
    """Yield the name of each setting, the line that it begins in, and its value."""
    if node is None or node.tag.endswith(":null"):
        return
    if not isinstance(node, yaml.MappingNode):
        name = prefix.removesuffix(".") or "the file"
        raise BadInput(f"{path}:{node.start_mark.line + 1}: {name} is {_shown(node)}, expected settings as NAME: VALUE")
    for key, value in node.value:
        name = f"{prefix}{key.value if isinstance(key, yaml.ScalarNode) else _shown(key)}"
        if name in blocks:
            yield from _leaves(value, f"{name}.", path, blocks)
        else:
            yield name, key.start_mark.line + 1, value


def _blocks(kind: type[Any]) -> Iterator[str]:
    for setting in settings(kind):
        for name in (setting.name, setting.shared_name, ".".join(setting.path)):
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts)))
    yield from OLD_BLOCKS


def _find(kind: type[Any], name: str) -> list[Setting]:
    """Return the setting of that name, also one by its fields or one from before; of a shared name all of them."""
    wanted = current_name(name)
    return [
        setting for setting in settings(kind) if wanted in (setting.name, setting.shared_name, ".".join(setting.path))
    ]


def _unknown(name: str, kind: type[Any], command: str) -> str:
    def likeness(known: str) -> float:
        pairs = ((name, known), (name.split(".")[-1], known.split(".")[-1]))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    names = [setting.shared_name for setting in settings(kind)] + [setting.name for setting in settings(kind)]
    nearest = max(filter(None, names), key=likeness)
    other = "" if likeness(nearest) >= ALIKE else "; is the file for another command?"
    return f"{name} is no setting of python -m {command}, the nearest is {nearest}{other}"


def _shown(node: yaml.Node) -> str:
    match node:
        case yaml.ScalarNode():
            return "null" if node.tag.endswith(":null") else repr(node.value[:80]) if node.style else node.value[:80]
        case yaml.SequenceNode():
            return "a list"
    return "a block"


def _convert(node: yaml.Node, hint: Any) -> Any:
    """Return the value that a node has as that type. Raises ValueError with what was expected."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        of = next(option for option in options if option is not type(None))
        if node.tag.endswith(":null"):
            return None
        try:
            return _convert(node, of)
        except ValueError as error:
            raise ValueError(f"{error}, or null") from None
    if typing.get_origin(hint) is tuple:
        if not isinstance(node, yaml.SequenceNode):
            raise ValueError("a list")
        return tuple(_convert(item, options[0]) for item in node.value)
    text = _text(node) if isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":null") else None
    if typing.get_origin(hint) is Literal:
        if text not in options:
            raise ValueError(f"one of {', '.join(map(str, options))}")
        return text
    expected, make = _KINDS[hint]
    try:
        if text is None or (hint in (int, float, bool) and node.style):
            raise ValueError
        return make(text)
    except (KeyError, ValueError, OverflowError):
        raise ValueError(expected) from None


def _text(node: yaml.ScalarNode) -> str:
    """Return the text of a node; JSON writes letters beyond 16 bits as two escapes, for YAML two letters."""
    return node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError
    return Path(text)


_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_KINDS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ("a whole number", int),
    float: ("a finite number", _finite),
    bool: ("true or false", lambda text: _BOOLS[text.lower()]),
    str: ("text", str),
    Path: ("a path", _path),
}


def defaults(kind: type[Any]) -> Any:
    """Return a configuration of defaults that nobody has checked, with tyro.MISSING where a value has to be given."""
    bare = object.__new__(kind)
    for field in dataclasses.fields(kind):
        made = field.default_factory() if callable(field.default_factory) else field.default
        object.__setattr__(bare, field.name, tyro.MISSING if made is dataclasses.MISSING else made)
    return bare


def with_entries(config: Any, entries: Iterable[Entry]) -> Any:
    """Return the configuration with the settings of a file, still to be checked: flags may change them."""
    changed = copy.deepcopy(config)
    for entry in entries:
        *blocks, name = entry.setting.path
        block = changed
        for each in blocks:
            block = getattr(block, each)
        object.__setattr__(block, name, entry.value)
    return changed


def checked(config: Any) -> Any:
    """Return the configuration, made again with all its checks. Raises BadInput."""
    return _made(config, type(config), ())


def _made(block: Any, kind: type[Any], path: tuple[str, ...]) -> Any:
    values = {field.name: getattr(block, field.name) for field in dataclasses.fields(block)}
    for name, value in values.items():
        if dataclasses.is_dataclass(value):
            values[name] = _made(value, kind, (*path, name))
    try:
        return type(block)(**values)
    except BadInput as error:
        raise BadInput(with_prefix(kind, ".".join(path), str(error))) from None
