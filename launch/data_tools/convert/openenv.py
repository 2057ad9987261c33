"""The episodes of `openenv collect` (OpenEnv 0.10, `openenv.core.harness.collect.EpisodeRecord`), one a line.

A record is kept in the row's `openenv_extra` but for what the row says itself: messages, reward, COLBENCH.
"""

from __future__ import annotations

from typing import Any

from colbench_env.json_fields import read_list, read_number, read_object, read_required, read_text
from colbench_env.types import BadInput
from launch.data_tools.convert.chat_messages import CHAT, read_messages, write_messages
from launch.data_tools.convert.dialogue import (
    COLBENCH,
    Dialogue,
    beside_of,
    check_once,
    digest,
    join_row,
    pop_extra,
    split_row,
    with_extra,
)
from launch.data_tools.convert.place import Place

NAME = "openenv"


def read(record: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a trajectory of an episode. Raises BadInput."""
    location = place.location
    read_text(record, "episode_id", location)
    read_number(read_required(record, "reward", location), f"{location}: 'reward'")
    values = read_list(record, "messages", location)
    rest = {key: value for key, value in record.items() if key not in ("messages", "reward")}
    rest["extra"] = dict(read_object(rest.get("extra", {}), f"{location}: 'extra'"))
    if rest.get("tool_trace"):
        raise BadInput(f"{location}: 'tool_trace' has calls of tools, expected none: rows hold text alone")
    beside = beside_of(rest["extra"], f"{location}: 'extra'")
    dialogue = read_messages(values, CHAT, beside, location, "messages")
    check_once(dialogue, location)
    row = join_row(dialogue, NAME, location) | {"reward": record["reward"]}
    return row if rest == _fresh(row, dialogue) else with_extra(row, NAME, rest, location)


def write(row: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make an episode of a trajectory. Raises BadInput for one that is not graded, as an episode has a reward."""
    row = dict(row)
    rest = pop_extra(row, NAME, ("messages", "reward"))
    reward = row.pop("reward", None)
    if reward is None:
        raise BadInput(f"{place.location}: the row has no reward, which an episode of OpenEnv must have")
    dialogue = split_row(row, NAME, CHAT.keys, place.location)
    if not isinstance(rest.get("episode_id"), str) or not isinstance(rest.get("extra"), dict):
        if rest:
            raise BadInput(f"{place.location}: 'openenv_extra' has no 'episode_id' and 'extra' of an episode")
        rest = _fresh(row, dialogue)
    extra = rest["extra"] | ({COLBENCH: dialogue.beside} if dialogue.beside else {})
    return {"messages": write_messages(dialogue, CHAT), "reward": reward} | rest | {"extra": extra}


def _fresh(row: dict[str, Any], dialogue: Dialogue) -> dict[str, Any]:
    """Return the rest of an episode that no other tool has written; its id is a hash of what it says."""
    return {
        "episode_id": digest(dialogue.system, dialogue.messages)[:32],
        "done": True,
        "tool_trace": [],
        "metrics": {"turns": len(dialogue.messages) // 2, "tool_calls": 0},
        "verify_metrics": {},
        "artifacts": {},
        "task": row["task"]["problem_description"],
        "extra": {},
    }
