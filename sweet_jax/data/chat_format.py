"""The fixed strings of a chat template, read from its rendering of a probe dialogue; and the date it may show."""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from colbench_env.types import BadInput

# The date that Llama 3.1 and 3.2 show by default. Fixed, so that prompts are the same on every day.
PROMPT_DATE = datetime.date(2024, 7, 26)
# The messages of the probe dialogue; they stand in no template.
USER_PROBE, AGENT_PROBE, REPLY_PROBE, SYSTEM_PROBE = "zqprobeasked", "zqprobesaid", "zqprobereplied", "zqprobetold"
Render = Callable[[Sequence[tuple[str, str]], bool], str]  # (role, content) of each message, generation prompt -> text

# A macro, since templates get variables and no functions. `sweet_jax_date` maps each code, without its "%", to a text.
_STRFTIME_NOW = (
    "{% macro strftime_now(format) %}"
    "{% for part in format.split('%%') %}{{ '' if loop.first else '%' }}{% for piece in part.split('%') %}"
    "{% if loop.first %}{{ piece }}"
    "{% elif piece[:1] in sweet_jax_date %}{{ sweet_jax_date[piece[:1]] }}{{ piece[1:] }}"
    "{% elif piece[:2] in sweet_jax_date %}{{ sweet_jax_date[piece[:2]] }}{{ piece[2:] }}"
    "{% else %}{{ raise_exception('strftime_now has no code %' ~ piece[:2] ~ ' for a date: ' ~ format) }}"
    "{% endif %}{% endfor %}{% endfor %}{% endmacro +%}"
)
_FLAGS = ("", "-", "_", "0", "^", "#", "E", "O")
_LETTERS = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZf"  # %s depends on the time zone of the machine


@dataclass(frozen=True)
class ChatFormat:
    """The fixed strings of a chat template.

    opening: how every dialogue begins: a special token, else `before`.
    bos: the begin-of-text token, if the template writes one that is not part of its headers, else "". (SmolLM2 names
         <|im_start|>, the start of each ChatML header, its begin-of-text token: there is none to keep in front.)
    before: the text before the first user message.
    system: the text before a system prompt, and from there to the first user message; None where the template takes no
            system prompt or rewrites it.
    header: from the end of a user message to the agent's content: the user's end of turn and the assistant header.
    begun: what a generation prompt writes after the header, as the agent's first text ("<think>\\n"); mostly "".
    lead: blanks between the header and the agent's content in a dialogue, which belong to the turn.
    tail: from the agent's content to `end`, that token included.
    end: the end-of-turn token.
    reply: from `end` to the next user message.
    after: what a finished dialogue has after the last `end` (ChatML: a newline), never an action token.
    """

    opening: str
    bos: str
    before: str
    system: tuple[str, str] | None
    header: str
    begun: str
    lead: str
    tail: str
    end: str
    reply: str
    after: str

    @property
    def prompt_end(self) -> str:
        """The end of a generation prompt, from the end of the user message."""
        return self.header + self.begun

    @property
    def human_end(self) -> str:
        """The end of the user's turn, where it is the same token as the agent's; else ""."""
        return self.header[: self.header.find(self.end) + len(self.end)] if self.end in self.header else ""


def set_template_date(template: str, date: datetime.date) -> tuple[str, dict[str, dict[str, str]]]:
    """Make a template show `date` as today's; returns the template and the variables to render it with."""
    if "strftime_now" not in template:
        return template, {}
    day = datetime.datetime.combine(date, datetime.time())
    shown = {flag + letter: day.strftime(f"%{flag}{letter}") for flag in _FLAGS for letter in _LETTERS}
    known = {code: value for code, value in shown.items() if "%" not in value}
    return _STRFTIME_NOW + template, {"sweet_jax_date": known | {"": "%"}}  # "" follows a "%" that ends the format


def read_format(name: str, render: Render, tokens: Sequence[str], bos: str) -> ChatFormat:
    """Read the fixed strings of a template from what `render` makes of probe dialogues.

    name: of the tokenizer, for errors.
    tokens: its special and added tokens, the longest first.
    bos: its begin-of-text token, "" for none.
    BadInput where there is no assistant header, no token that ends an agent's turn, or where a longer dialogue does not
    begin as a finished exchange does: then turns could not be sampled one after another.
    """
    prompt = render([("user", USER_PROBE)], True)
    before, user, prompt_end = prompt.partition(USER_PROBE)
    exchange = [("user", USER_PROBE), ("assistant", AGENT_PROBE)]
    longer = render([*exchange, ("user", REPLY_PROBE)], True)
    if not user or not longer.startswith(before + USER_PROBE):
        raise BadInput(
            f"{name}: the chat template does not begin a longer dialogue as it begins a prompt: {_cut(prompt)}"
        )
    between, content, rest = longer.removeprefix(before + USER_PROBE).partition(AGENT_PROBE)
    if not content:
        raise BadInput(
            f"{name}: the chat template has no assistant header that the agent's words follow: it does not show what "
            f"the agent said once the human has replied: {_cut(longer)}"
        )
    header, begun, lead = _header(name, prompt_end, between)
    frame, reply, next_prompt_end = rest.partition(REPLY_PROBE)
    if not reply or next_prompt_end != prompt_end:
        raise BadInput(
            f"{name}: the chat template ends the second prompt with {next_prompt_end!r} and the first with "
            f"{prompt_end!r}, expected the same"
        )
    if frame == between:
        raise BadInput(
            f"{name}: the chat template has no assistant header: it marks the human's turns and the agent's alike"
        )
    finished = render(exchange, False).rpartition(AGENT_PROBE)[2]
    tail, end = _tail(name, frame, finished, tokens)
    if before.removeprefix(bos).startswith(end):
        raise BadInput(f"{name}: the chat template ends an agent turn with {tail!r}, and turns begin with {end!r}")
    bos = bos if before.startswith(bos) and bos not in header else ""
    opening = next((token for token in tokens if before.startswith(token)), before)
    return ChatFormat(
        opening=opening, bos=bos, before=before, system=_system(render, prompt_end), header=header, begun=begun,
        lead=lead, tail=tail, end=end, reply=frame[len(tail) :], after=finished[len(tail) :],
    )  # fmt: skip


def _header(name: str, prompt_end: str, between: str) -> tuple[str, str, str]:
    """Read (header, begun, lead) from the end of a prompt and the text between two turns."""
    if prompt_end and between.startswith(prompt_end) and not between[len(prompt_end) :].strip():
        return prompt_end, "", between[len(prompt_end) :]
    if between and prompt_end.startswith(between):
        return between, prompt_end[len(between) :], ""
    raise BadInput(
        f"{name}: the chat template has no assistant header that a generation prompt ends with: the prompt ends with "
        f"{prompt_end!r}, and the agent's words stand behind {between!r}"
    )


def _tail(name: str, frame: str, finished: str, tokens: Sequence[str]) -> tuple[str, str]:
    """Read (tail, end) from the text between the agent's and the user's messages, and after the last agent message."""
    found = [(position, -len(token), token) for token in tokens if (position := frame.find(token)) >= 0]
    if not found:
        raise BadInput(f"{name}: the chat template ends an agent turn with {finished!r}, not a special token")
    position, _, end = min(found)
    tail = frame[:position] + end
    if not finished.startswith(tail):
        raise BadInput(
            f"{name}: the chat template ends an agent turn with {finished!r}, not a special token that also stands "
            f"there when the human replies: {frame!r}"
        )
    return tail, end


def _system(render: Render, prompt_end: str) -> tuple[str, str] | None:
    try:
        text = render([("system", SYSTEM_PROBE), ("user", USER_PROBE)], True)
    except BadInput:
        return None
    first, system, rest = text.partition(SYSTEM_PROBE)
    second, user, end = rest.partition(USER_PROBE)
    return (first, second) if system and user and end == prompt_end else None


def _cut(text: str) -> str:
    return repr(text if len(text) <= 300 else f"…{text[-299:]}")
