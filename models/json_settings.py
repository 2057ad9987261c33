"""Settings of JSON files: read with their types at one place, so that a wrong one is named and never computed with.

`count`, `number`, `flag` and `token_ids` each take one setting of an object and raise ModelError, one sentence with the
setting, its value and what was expected, where it is missing or of another type.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_COUNT = 2**31 - 1  # sizes are int32 in XLA and in the files
MAX_NUMBER = 3.4e38  # of float32
MAX_SHOWN = 80  # characters of a value in a sentence


class ModelError(ValueError):
    """A model that cannot be built, sharded, loaded or saved as asked; one sentence naming names and numbers."""


def read_object(path: Path) -> dict[str, Any]:
    """Read the object that a JSON file holds. Raises ModelError where the file cannot be read or holds something
    else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ModelError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise ModelError(f"{path}: not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: holds {format_value(found)}, expected an object")
    return found


def format_value(value: Any) -> str:
    """Format a value for a sentence: null for None, and at most a line of it."""
    try:
        text = "null" if value is None else repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def count(settings: Mapping[str, Any], name: str, least: int = 1, most: int = MAX_COUNT) -> int:
    """Read a whole number from `least` to `most`; 4.0, "4" and true are none."""
    value = _given(settings, name)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        bounds = f"from {least} to {most}" if most < MAX_COUNT or (whole and value > most) else f"of at least {least}"
        raise ModelError(f"{name} is {format_value(value)}, expected a whole number {bounds}")
    return value


def number(settings: Mapping[str, Any], name: str, above: float | None = None) -> float:
    """Read a finite number of float32, above `above` where that is given."""
    value = _given(settings, name)
    right = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
    if not right or (above is not None and value <= above):
        bound = "" if above is None else f" above {above:g}"
        raise ModelError(f"{name} is {format_value(value)}, expected a finite number{bound}")
    return float(value)


def flag(settings: Mapping[str, Any], name: str) -> bool:
    """Read a setting that is true or false."""
    value = _given(settings, name)
    if not isinstance(value, bool):
        raise ModelError(f"{name} is {format_value(value)}, expected true or false")
    return value


def token_ids(settings: Mapping[str, Any], name: str) -> tuple[int, ...]:
    """Read the token ids that the setting names: one, a list of them, or none where it is null or missing."""
    value = settings.get(name)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= MAX_COUNT for token in ids):
        raise ModelError(f"{name} is {format_value(value)}, expected a token id, a list of them, or null")
    return tuple(ids)


def _given(settings: Mapping[str, Any], name: str) -> Any:
    if name not in settings:
        raise ModelError(f"setting {name!r} is missing")
    return settings[name]
