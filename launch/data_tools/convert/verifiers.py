"""The traces of verifiers 0.4 (`verifiers.v1`, traces.jsonl): an episode a line, with one trace of one branch.

An episode is kept in the row's `verifiers_extra` but for what the row says itself: the contents of its messages and
what stands under COLBENCH in the trace's `info`. Rewards stay there too: the row has their weighted sum.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from colbench_env.json_fields import name_kind, quote, read_list, read_number, read_object, read_required
from colbench_env.types import BadInput, Task
from launch.data_tools.convert import verifiers_results
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

NAME = "verifiers"


def read(record: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make a trajectory of an episode, or of a rollout of verifiers 0.1. Raises BadInput."""
    location = place.location
    if "traces" not in record and "completion" in record:
        return verifiers_results.read(record, place)
    rest = copy.deepcopy(record)
    traces = read_list(rest, "traces", location)
    if len(traces) != 1:
        raise BadInput(f"{location}: the episode has {len(traces)} traces, expected the one of the agent")
    trace = read_object(traces[0], f"{location}: traces[0]")
    _check_finished(rest, f"{location}: the episode")
    _check_finished(trace, f"{location}: the trace")
    info = read_object(trace.get("info", {}), f"{location}: 'info'")
    beside = beside_of(info, f"{location}: 'info'")
    dialogue = read_messages(_take_messages(trace, location), CHAT, beside, location, "nodes")
    row = join_row(dialogue, NAME, location)
    if (reward := _reward(trace, location)) is not None:
        check_once(dialogue, location)
        row["reward"] = reward
    return row if rest == _fresh(row, dialogue) else with_extra(row, NAME, rest, location)


def write(row: dict[str, Any], place: Place) -> dict[str, Any]:
    """Make an episode of a trajectory. Raises BadInput."""
    location = place.location
    row = dict(row)
    rest = copy.deepcopy(pop_extra(row, NAME, ()))
    if "prompt" in rest:
        return verifiers_results.write(row, rest, place)
    reward = row.pop("reward") if row.get("reward") is not None else None
    dialogue = split_row(row, None, (), location)
    graded = row if reward is None else row | {"reward": reward}
    record = rest or _fresh(graded, dialogue)
    messages = write_messages(dialogue, CHAT)
    try:
        (trace,) = record["traces"]
        if len(trace["nodes"]) != len(messages):
            raise BadInput(
                f"{location}: 'verifiers_extra' has {len(trace['nodes'])} nodes for {len(messages)} messages, "
                "expected one for each"
            )
        for node, message in zip(trace["nodes"], messages, strict=True):
            node["message"] = message | node["message"]
        if _reward(trace, location) != reward:
            trace["rewards"] = {} if reward is None else {"reward": {"score": reward, "weight": 1.0}}
        if dialogue.beside:
            trace.setdefault("info", {})[COLBENCH] = dialogue.beside
    except BadInput:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise BadInput(f"{location}: 'verifiers_extra' is not of an episode with one trace ({problem!r})") from None
    return record


def _take_messages(trace: dict[str, Any], location: str) -> list[dict[str, Any]]:
    """Take role and content out of the messages of a trace, which must be one path from its first node to its last."""
    messages = []
    for position, value in enumerate(read_list(trace, "nodes", location)):
        place = f"{location}: nodes[{position}]"
        node = read_object(value, place)
        if node.get("parent") != (position - 1 if position else None):
            raise BadInput(f"{place} does not follow the node before it, expected one branch of messages")
        message = read_object(read_required(node, "message", place), place)
        calls = {"tool_calls": message["tool_calls"]} if message.get("tool_calls") else {}
        messages.append({key: message[key] for key in CHAT.keys if key in message} | calls)
        node["message"] = {key: message[key] for key in message if key not in CHAT.keys}
    return messages


def _check_finished(record: Mapping[str, Any], what: str) -> None:
    if record.get("ok") is not True:
        errors = record.get("errors")
        last = errors[-1] if isinstance(errors, list) and errors else None
        reason = f" ({quote(str(last.get('message') or last.get('type')))})" if isinstance(last, dict) else ""
        raise BadInput(f"{what} failed{reason}, expected 'ok' true: rows are of whole dialogues")


def _reward(trace: Mapping[str, Any], location: str) -> float | None:
    """Sum the weighted rewards of a trace as verifiers does; None where none was computed."""
    values = []
    for name, reward in read_object(trace.get("rewards", {}), f"{location}: 'rewards'").items():
        place = f"{location}: reward {quote(name)}"
        if reward is None:
            continue
        if not isinstance(reward, dict):
            raise BadInput(f"{place} is {name_kind(reward)}, expected an object with 'score' and 'weight'")
        score = read_number(read_required(reward, "score", place), f"{place}: 'score'")
        values.append(score * read_number(reward.get("weight", 1.0), f"{place}: 'weight'"))
    return sum(values) if values else None


def _fresh(row: dict[str, Any], dialogue: Dialogue) -> dict[str, Any]:
    """Return an episode that no other tool has written, without contents; its ids are a hash of what is said.

    It has the keys without which verifiers does not read it, and those that say something.
    """
    problem, reward = row["task"], row.get("reward")
    system = {} if dialogue.system is None else {"system_prompt": dialogue.system}
    task_id = Task.from_trajectory_json(problem, "").task_id
    task = {"type": "Task", "data": {"id": task_id, "prompt": problem["problem_description"]} | system}
    roles = ([] if dialogue.system is None else ["system"]) + [said.role for said in dialogue.messages]
    name = digest(dialogue.system, dialogue.messages)[:32]
    return {
        "id": name,
        "env": {"id": COLBENCH},
        "task": task,
        "ok": True,
        "traces": [
            {
                "version": 1,
                "id": name,
                "task": task,
                "agent": {"config": {}},
                "nodes": [
                    ({"parent": position - 1} if position else {}) | {"message": {}, "sampled": role == "assistant"}
                    for position, role in enumerate(roles)
                ],
                "rewards": {} if reward is None else {"reward": {"score": reward, "weight": 1.0}},
                "info": {},
                "is_completed": True,
                "ok": True,
            }
        ],
    }
