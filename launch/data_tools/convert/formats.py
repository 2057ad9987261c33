"""The table of formats: which kinds of rows each holds, its reader and its writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from launch.data_tools.config import FormatName, Kind
from launch.data_tools.convert import messages, openenv, sharegpt, trl, verifiers
from launch.data_tools.convert.place import Place

Convert = Callable[[dict[str, Any], Place], dict[str, Any]]


@dataclass(frozen=True)
class Format:
    """A format of other tools.

    kinds: of our rows that it holds. read: a record to a row as JSON, which is still to be checked. write: a row as
    JSON, checked before, to a record. Both raise BadInput for what the other side has no place for.
    """

    kinds: tuple[Kind, ...]
    read: Convert
    write: Convert


FORMATS: dict[FormatName, Format] = {
    "messages": Format(("trajectories",), messages.read, messages.write),
    "sharegpt": Format(("trajectories",), sharegpt.read, sharegpt.write),
    "verifiers": Format(("trajectories",), verifiers.read, verifiers.write),
    "openenv": Format(("trajectories",), openenv.read, openenv.write),
    "trl": Format(("critic-pairs", "turn-pairs"), trl.read, trl.write),
}
