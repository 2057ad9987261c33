"""OpenAI's chat format, one dialogue a line: `{"messages": [{"role": ..., "content": ...}, ...]}`.

Other columns of a record are kept in the row's `messages_extra`, other keys of a message in the turn's.
"""

from __future__ import annotations

from typing import Any

from colbench_env.json_fields import read_list
from launch.data_tools.convert.chat_messages import CHAT, Spelling, read_messages, write_messages
from launch.data_tools.convert.dialogue import COLBENCH, beside_of, join_row, pop_extra, split_row, with_extra
from launch.data_tools.convert.place import Place


def read(record: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a trajectory of a record. Raises BadInput."""
    return read_column(record, place, "messages", "messages", CHAT)


def write(row: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a record of a trajectory. Raises BadInput."""
    return write_column(row, place, "messages", "messages", CHAT)


def read_column(record: dict[str, Any], place: Place, name: str, column: str, spelling: Spelling) -> dict[str, Any]:
    """Make a trajectory of a record of the format `name`, which has its messages in `column`. Raises BadInput."""
    values = read_list(record, column, place.location)
    extra = {key: value for key, value in record.items() if key != column}
    beside = beside_of(extra, place.location)
    dialogue = read_messages(values, spelling, beside, place.location, column)
    return with_extra(join_row(dialogue, name, place.location), name, extra, place.location)


def write_column(row: dict[str, Any], place: Place, name: str, column: str, spelling: Spelling) -> dict[str, Any]:
    """Make a record of the format `name` of a trajectory. Raises BadInput."""
    row = dict(row)
    extra = pop_extra(row, name, (column, COLBENCH))
    dialogue = split_row(row, name, spelling.keys, place.location)
    record: dict[str, Any] = {column: write_messages(dialogue, spelling)} | extra
    return record | ({COLBENCH: dialogue.beside} if dialogue.beside else {})
