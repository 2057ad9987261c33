"""Lists of chat messages in either spelling: `role` and `content`, or `from` and `value`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colbench_env.json_fields import name_kind, quote, read_object
from colbench_env.types import BadInput
from launch.data_tools.convert.dialogue import Dialogue, Said

CALLS = ("tool_calls", "function_call", "tool_call_id")


@dataclass(frozen=True)
class Spelling:
    """How a format spells a message. roles: its names of system, user and assistant, in this order."""

    role: str
    content: str
    roles: tuple[str, str, str]

    @property
    def keys(self) -> tuple[str, str]:
        """The keys that every message has."""
        return self.role, self.content

    def write(self, role: str, content: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Spell a message."""
        name = self.roles[("system", "user", "assistant").index(role)]
        return {self.role: name, self.content: content} | dict(extra)


CHAT = Spelling("role", "content", ("system", "user", "assistant"))
SHAREGPT = Spelling("from", "value", ("system", "human", "gpt"))


def write_messages(dialogue: Dialogue, spelling: Spelling) -> list[dict[str, Any]]:
    """Spell the messages of a dialogue, system prompt first."""
    opening = [] if dialogue.system is None else [spelling.write("system", dialogue.system, {})]
    return opening + [spelling.write(said.role, said.content, said.extra) for said in dialogue.messages]


def read_messages(values: list[Any], spelling: Spelling, beside: dict[str, Any], location: str, name: str) -> Dialogue:
    """Read a list of messages as a dialogue of our rows.

    name: of the list, in sentences. Raises BadInput for whatever our rows have no place for: see docs/conversion.md.
    """
    system: str | None = None
    messages: list[Said] = []
    user, agent = spelling.roles[1:]
    for position, value in enumerate(values):
        place = f"{location}: {name}[{position}]"
        said = _read(value, spelling, place)
        if said.role == "system":
            if position:
                raise BadInput(f"{place} is a system message, expected it first or not at all")
            if said.extra:
                keys = ", ".join(map(quote, said.extra))
                raise BadInput(f"{place} is a system message with {keys}, which a row has no place for")
            system = said.content
            continue
        expected = "assistant" if len(messages) % 2 else "user"
        if said.role != expected:
            wanted = {"user": user, "assistant": agent}
            raise BadInput(
                f"{place} is of {wanted[said.role]!r}, expected {wanted[expected]!r}: {user} opens, then the two "
                "alternate"
            )
        messages.append(said)
    if len(messages) % 2 or not messages:
        found = f"ends with {user!r}" if messages else f"has no message of {user!r}"
        raise BadInput(f"{location}: {quote(name)} {found}, expected a dialogue whose last message is of {agent!r}")
    return Dialogue(system, tuple(messages), beside)


def _read(value: object, spelling: Spelling, place: str) -> Said:
    message = dict(read_object(value, place))
    for key in CALLS:
        if message.get(key):
            raise BadInput(f"{place} has {key!r}, expected text alone: rows hold no calls of tools")
    for key in spelling.keys:
        if key not in message:
            raise BadInput(f"{place} has no {key!r}, expected {spelling.role!r} and {spelling.content!r}")
    role, content = message.pop(spelling.role), message.pop(spelling.content)
    if role not in spelling.roles:
        shown = quote(role) if isinstance(role, str) else name_kind(role)
        raise BadInput(f"{place}: {spelling.role!r} is {shown}, expected {', '.join(map(repr, spelling.roles))}")
    if not isinstance(content, str):
        parts = " of parts" if isinstance(content, list) else ""
        raise BadInput(f"{place}: {spelling.content!r} is {name_kind(content)}{parts}, expected a string")
    return Said(("system", "user", "assistant")[spelling.roles.index(role)], content, message)
