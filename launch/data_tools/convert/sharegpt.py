"""ShareGPT's format, one dialogue a line: `{"conversations": [{"from": "human", "value": ...}, ...]}`."""

from __future__ import annotations

from typing import Any

from launch.data_tools.convert.chat_messages import SHAREGPT
from launch.data_tools.convert.messages import read_column, write_column
from launch.data_tools.convert.place import Place


def read(record: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a trajectory of a record. Raises BadInput."""
    return read_column(record, place, "sharegpt", "conversations", SHAREGPT)


def write(row: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a record of a trajectory. Raises BadInput."""
    return write_column(row, place, "sharegpt", "conversations", SHAREGPT)
