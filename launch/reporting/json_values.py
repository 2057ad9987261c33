"""Reports as JSON values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


def to_json_value(value: Any) -> Any:
    """Convert to a JSON value: dataclasses to objects, NaN and infinity, which JSON cannot express, to null.

    In: {"loss": nan, "bins": (Bin(1, 2, 5),)}   Out: {"loss": None, "bins": [{"low": 1, "high": 2, "count": 5}]}
    """
    if hasattr(value, "to_json"):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        return {field.name: to_json_value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): to_json_value(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
