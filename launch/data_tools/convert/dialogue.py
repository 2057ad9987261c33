"""A trajectory as chat formats hold it: messages, and beside them what only our rows have.

What follows from the messages is not repeated beside them: the problem, the answer, empty records of turns. The rest
stands under the key COLBENCH of the foreign record, so that the way back gives the same row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colbench_env.dialogue import BackendRules
from colbench_env.json_fields import name_kind
from colbench_env.types import BadInput

COLBENCH = "colbench"
DIGEST = "messages_sha256"


@dataclass(frozen=True)
class Said:
    """A message of the user or the agent. extra: what else the foreign format says of it."""

    role: str
    content: str
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Dialogue:
    """A dialogue of a foreign record.

    system: the agent's system prompt, None where there is none. messages: user and agent in turn, the agent last.
    beside: of the row, what the messages do not say.
    """

    system: str | None
    messages: tuple[Said, ...]
    beside: dict[str, Any]


def extra_key(name: str) -> str:
    """Name the key of our rows under which a format's own values are kept."""
    return f"{name}_extra"


def pop_extra(row: dict[str, Any], name: str, reserved: Collection[str]) -> dict[str, Any]:
    """Take a format's own values out of a row; {} where it has none, or none that can stand beside `reserved` keys."""
    extra = row.get(extra_key(name))
    if not isinstance(extra, dict) or not extra or not extra.keys().isdisjoint(reserved):
        return {}
    del row[extra_key(name)]
    return extra


def with_extra(row: Mapping[str, Any], name: str, extra: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Put a format's own values into a row, under a key of their own. Raises BadInput where it is taken."""
    if extra and extra_key(name) in row:
        raise BadInput(
            f"{location}: {COLBENCH}: {extra_key(name)!r} is said here and by the record itself, expected once"
        )
    return dict(row) | ({extra_key(name): dict(extra)} if extra else {})


def split_row(row: Mapping[str, Any], name: str | None, reserved: Collection[str], location: str) -> Dialogue:
    """Split a row of a trajectory, which `Trajectory.from_json` can read.

    name: of the format whose own values are to stand in the messages again, None where they stand elsewhere.
    reserved: keys of its messages. Raises BadInput for a row with a key that is needed here.
    """
    beside = dict(row)
    check_free(beside, (DIGEST,), location)
    system = beside.pop("system") if isinstance(beside.get("system"), str) else None
    messages, recorded = [], []
    for entry in beside.pop("dialogue_history"):
        rest = {key: value for key, value in entry.items() if key not in ("role", "content")}
        messages.append(Said(entry["role"], entry["content"], pop_extra(rest, name, reserved) if name else {}))
        recorded.append(rest)
    task = dict(beside.pop("task"))
    if task["problem_description"] == messages[0].content:
        del task["problem_description"]
    if beside["answer"] == final_answer(messages):
        del beside["answer"]
    if task:
        beside["task"] = task
    if any(recorded):
        beside["dialogue_history"] = recorded
    if beside:
        beside[DIGEST] = digest(system, messages)
    return Dialogue(system, tuple(messages), beside)


def join_row(dialogue: Dialogue, name: str, location: str) -> dict[str, Any]:
    """Make the row of a dialogue. Raises BadInput where what stands beside the messages does not belong to them."""
    beside, messages = dict(dialogue.beside), dialogue.messages
    check_digest(beside, digest(dialogue.system, messages), location)
    if dialogue.system is not None:
        if "system" in beside:
            raise BadInput(f"{location}: {COLBENCH}: 'system' stands beside a system message, expected one of the two")
        beside["system"] = dialogue.system
    recorded = beside.pop("dialogue_history", None)
    if recorded is None:
        recorded = [{} for _ in messages]
    place = f"{location}: {COLBENCH}: 'dialogue_history'"
    if not isinstance(recorded, list) or not all(isinstance(entry, dict) for entry in recorded):
        raise BadInput(f"{place} is not a list of objects, expected one for each message")
    if len(recorded) != len(messages):
        raise BadInput(f"{place} has {len(recorded)} objects for {len(messages)} messages, expected one for each")
    if any(not entry.keys().isdisjoint(("role", "content")) for entry in recorded):
        raise BadInput(f"{place} repeats a message, expected what the messages do not say")
    task = beside.pop("task", {})
    if not isinstance(task, dict):
        raise BadInput(f"{location}: {COLBENCH}: 'task' is {name_kind(task)}, expected an object")
    if "problem_description" not in task and not messages[0].content.strip():
        raise BadInput(f"{location}: the first message of the user is blank, expected the problem")
    history = [
        {"role": said.role, "content": said.content} | with_extra(rest, name, said.extra, location)
        for said, rest in zip(messages, recorded, strict=True)
    ]
    answer = beside.pop("answer") if "answer" in beside else final_answer(messages)
    return {
        "task": {"problem_description": messages[0].content} | task,
        "dialogue_history": history,
        "answer": answer,
    } | beside


def final_answer(messages: Sequence[Said]) -> str:
    """Read the answer of a finished dialogue by the protocol: between markers in the last turn, else all of it."""
    return BackendRules().read(messages[-1].content, (), last=True).answer or ""


def digest(*said: Any) -> str:
    """Hash what was said. In: a system prompt or None, and messages. Out: 64 hexadecimal digits."""
    plain = json.dumps(said, default=lambda message: [message.role, message.content])
    return hashlib.sha256(plain.encode()).hexdigest()


def check_digest(beside: dict[str, Any], found: str, location: str) -> None:
    """Take the digest out of what stands beside messages. Raises BadInput where it is of other messages."""
    # A message that was edited elsewhere would be trained on as it was recorded here, or with its old token ids.
    if beside.pop(DIGEST, found) != found:
        raise BadInput(
            f"{location}: the messages are not those that {COLBENCH!r} was written with, expected them as they were; "
            f"without {COLBENCH!r} they are read as another tool's, and without its {DIGEST!r} they are taken as they "
            "are, with all that it says of them"
        )


def check_free(row: Mapping[str, Any], keys: Collection[str], location: str) -> None:
    """Raise BadInput where the row has one of the keys that converted records need for themselves."""
    for key in keys:
        if key in row:
            raise BadInput(f"{location}: the row has a key {key!r}, which converted records have for themselves")


def check_once(dialogue: Dialogue, location: str) -> None:
    """Raise BadInput where a reward stands under COLBENCH as well, of a format that has a place for rewards."""
    if dialogue.beside.get("reward") is not None:
        raise BadInput(f"{location}: {COLBENCH}: 'reward' is said here and by the record itself, expected it once")


def beside_of(record: dict[str, Any], place: str) -> dict[str, Any]:
    """Take what stands under COLBENCH out of a record or a part of it; {} where there is nothing. Raises BadInput."""
    beside = record.pop(COLBENCH, {})
    if not isinstance(beside, dict):
        raise BadInput(f"{place}: {COLBENCH!r} is {name_kind(beside)}, expected an object with keys of a row")
    return beside
