"""Readers of one key of a JSON object. Each raises BadInput with the place, what it found and what it wanted."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from colbench_env.errors import BadInput
from colbench_env.terminal_text import shorten

MAX_NAMES, MAX_QUOTED = 12, 60  # keys of a row, and characters of one string of it, in a sentence


def read_object(row: object, location: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise BadInput(f"{location}: found {name_kind(row)}, expected a JSON object")
    return row


def read_required(row: Mapping[str, Any], key: str, location: str) -> Any:
    if key not in row:
        raise BadInput(f"{location}: {quote(key)} is missing, the row has {_list_names(row)}")
    return row[key]


def read_text(row: Mapping[str, Any], key: str, location: str) -> str:
    value = read_required(row, key, location)
    if not isinstance(value, str):
        raise BadInput(f"{location}: {quote(key)} is {name_kind(value)}, expected a string")
    return value


def read_filled_text(row: Mapping[str, Any], key: str, location: str) -> str:
    value = read_text(row, key, location)
    if not value.strip():
        raise BadInput(f"{location}: {quote(key)} is empty, expected some text")
    return value


def read_optional_text(row: Mapping[str, Any], key: str, location: str) -> str | None:
    return None if row.get(key) is None else read_text(row, key, location)


def read_list(row: Mapping[str, Any], key: str, location: str) -> list[Any]:
    value = read_required(row, key, location)
    if not isinstance(value, list):
        raise BadInput(f"{location}: {key!r} is {name_kind(value)}, expected a list")
    return value


def read_texts(row: Mapping[str, Any], key: str, location: str) -> tuple[str, ...]:
    values = read_list(row, key, location)
    for position, value in enumerate(values):
        if not isinstance(value, str):
            raise BadInput(f"{location}: {key!r}[{position}] is {name_kind(value)}, expected a string")
    return tuple(values)


def read_number(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadInput(f"{place} is {name_kind(value)}, expected a number")
    if not abs(value) < math.inf or (isinstance(value, int) and abs(value) > 2**1023):
        raise BadInput(f"{place} is not a finite number")
    return float(value)


def read_numbers(row: Mapping[str, Any], key: str, count: int, location: str) -> tuple[float, ...]:
    values = read_list(row, key, location)
    if len(values) != count:
        raise BadInput(f"{location}: {key!r} has {len(values)} numbers for {count} candidates in 'additional_outputs'")
    return tuple(read_number(value, f"{location}: {key!r}[{position}]") for position, value in enumerate(values))


def read_test_cases(row: Mapping[str, Any], location: str) -> dict[str, str]:
    cases = row.get("test_cases")
    if cases is None:
        return {}
    if not isinstance(cases, dict):
        raise BadInput(f"{location}: 'test_cases' is {name_kind(cases)}, expected an object of call expressions")
    for name in cases:
        read_filled_text(cases, name, f"{location}: test_cases")
    return dict(cases)


def _list_names(row: Mapping[str, Any]) -> str:
    more = [f"{len(row) - MAX_NAMES} more"] if len(row) > MAX_NAMES else []
    return ", ".join([*map(quote, itertools.islice(row, MAX_NAMES)), *more]) or "no keys"


def quote(text: str) -> str:
    return repr(shorten(text, MAX_QUOTED))


def name_kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
