"""The rollouts of verifiers 0.1 (`vf-eval`, results.jsonl): `prompt` and `completion` as messages, `reward`.

They are read; a row that was read from one is written as one again. A record is kept in the row's `verifiers_extra`
but for what the row says itself, with the number of messages of its `prompt` in place of these.
"""

from __future__ import annotations

from typing import Any

from colbench_env.json_fields import quote, read_list, read_number, read_required
from colbench_env.types import BadInput
from launch.data_tools.convert.chat_messages import CHAT, read_messages, write_messages
from launch.data_tools.convert.dialogue import COLBENCH, beside_of, check_once, join_row, split_row, with_extra
from launch.data_tools.convert.place import Place

NAME = "verifiers"


def read(record: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a trajectory of a rollout. Raises BadInput."""
    location = place.location
    if record.get("error") is not None:
        raise BadInput(f"{location}: the rollout failed ({quote(str(record['error']))}), expected no 'error'")
    read_number(read_required(record, "reward", location), f"{location}: 'reward'")
    prompt, completion = (read_list(record, key, location) for key in ("prompt", "completion"))
    rest = {key: value for key, value in record.items() if key not in ("prompt", "completion", "reward")}
    beside = beside_of(rest, location)
    dialogue = read_messages(prompt + completion, CHAT, beside, location, "prompt + completion")
    check_once(dialogue, location)
    row = join_row(dialogue, NAME, location) | {"reward": record["reward"]}
    return with_extra(row, NAME, rest | {"prompt": len(prompt)}, location)


def write(row: dict[str, Any], rest: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a rollout of a trajectory and the `rest` of the rollout that it was read from. Raises BadInput."""
    row = dict(row)
    reward = row.pop("reward", None)
    dialogue = split_row(row, NAME, CHAT.keys, place.location)
    messages = write_messages(dialogue, CHAT)
    cut = rest.pop("prompt")
    if isinstance(cut, bool) or not isinstance(cut, int) or not 0 <= cut <= len(messages):
        raise BadInput(f"{place.location}: verifiers_extra: 'prompt' is {cut!r}, expected how many messages it has")
    if reward is None:
        raise BadInput(f"{place.location}: the row has no reward, which a rollout of verifiers 0.1 must have")
    record = {"prompt": messages[:cut], "completion": messages[cut:], "reward": reward} | rest
    return record | ({COLBENCH: dialogue.beside} if dialogue.beside else {})
