"""A chat completion as a client asks for it, read from JSON; what cannot be honoured is refused by name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from colbench_env.types import BadInput
from sweet_jax.sampler import Sampling

MOST_SAMPLES, MOST_STOPS, MOST_TOPS = 128, 4, 20
IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key")  # they would change no answer
NEUTRAL = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "tools": ([],), "functions": ([],),
    "tool_choice": ("none", "auto"), "response_format": ({"type": "text"},), "store": (False,),
    "modalities": (["text"],), "parallel_tool_calls": (True, False), "service_tier": ("auto", "default"),
}  # fmt: skip
"""Parameters that are not served, and their values that ask for nothing."""


class Refused(Exception):
    """A request that cannot be answered: an HTTP status and the parts of OpenAI's error object."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def to_json(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Asked:
    """What the client wants. max_tokens: None for as many as there is room. tops: None without log-probs."""

    messages: list[dict[str, str]]
    stream: bool
    include_usage: bool
    stop: tuple[str, ...]
    seed: int | None
    n: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int | None
    tops: int | None

    def sampling(self, max_new_tokens: int) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, max_new_tokens)


def read_asked(body: bytes, model: str) -> Asked:
    """The request in the body of a POST; Refused for anything else, or another model."""
    try:
        asked = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON in UTF-8: {error}") from error
    if not isinstance(asked, dict):
        raise Refused(400, f"the body must be a JSON object, not {_kind(asked)}")
    asked = {name: value for name, value in asked.items() if value is not None}
    fields = _Fields(asked)
    wanted = fields.take("model", str)
    if wanted is None:
        raise Refused(400, "model is missing", param="model")
    if wanted != model:
        raise Refused(404, f"there is no model {_shown(wanted)}, only {model!r}", "model_not_found", "model")
    options = fields.take("stream_options", dict) or {}
    if unknown := options.keys() - {"include_usage", "include_obfuscation"}:
        raise Refused(
            400, f"stream_options.{min(unknown)[:80]!a} is not served", "unsupported_parameter", "stream_options"
        )
    include_usage = _Fields(options, "stream_options.").take("include_usage", bool, False)
    stream = fields.take("stream", bool, False)
    if options and not stream:
        raise Refused(400, "stream_options is for streams: set stream to true", param="stream_options")
    most = [fields.number(name, int, None, 1, 2**31) for name in ("max_tokens", "max_completion_tokens")]
    if None not in most and most[0] != most[1]:
        raise Refused(400, f"max_tokens is {most[0]} and max_completion_tokens {most[1]}: give one", param="max_tokens")
    logprobs, tops = fields.take("logprobs", bool, False), fields.number("top_logprobs", int, None, 0, MOST_TOPS)
    if tops is not None and not logprobs:
        raise Refused(400, "top_logprobs needs logprobs to be true", param="top_logprobs")
    seed = fields.take("seed", int)
    found = Asked(
        messages=_messages(fields.take("messages", list)),
        stream=stream,
        include_usage=include_usage,
        stop=_stops(fields.pop("stop")),
        seed=None if seed is None else seed % 2**32,
        n=fields.number("n", int, 1, 1, MOST_SAMPLES),
        temperature=fields.number("temperature", float, 1.0, 0, 2),
        top_p=fields.number("top_p", float, 1.0, 0, 1),
        top_k=fields.number("top_k", int, 0, 0, 2**31 - 1),
        max_tokens=next((each for each in most if each is not None), None),
        tops=(tops or 0) if logprobs else None,
    )
    fields.refuse_rest()
    try:
        found.sampling(1)
    except BadInput as error:
        raise Refused(400, str(error)) from error
    return found


class _Fields:
    """The fields of a JSON object that have not been read yet."""

    def __init__(self, fields: dict[str, Any], where: str = ""):
        self._left, self._where = dict(fields), where

    def pop(self, name: str) -> Any:
        return self._left.pop(name, None)

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        value = self._left.pop(name, None)
        if value is None:
            return default
        whole = isinstance(value, bool) and kind is not bool
        if whole or not isinstance(value, (int, float) if kind is float else kind):
            name = self._where + name
            raise Refused(400, f"{name} must be {_NAMES[kind]}, not {_kind(value)}", "invalid_type", name)
        return value

    def number(self, name: str, kind: type, default: Any, least: float, most: float) -> Any:
        value = self.take(name, kind, default)
        if value is not None and not least <= value <= most:  # NaN is neither
            raise Refused(400, f"{name} is {_shown(value)}, it must be at least {least} and at most {most}", None, name)
        return value if value is None else kind(value)

    def refuse_rest(self) -> None:
        for name, value in self._left.items():
            if name in IGNORED or any(value == neutral for neutral in NEUTRAL.get(name, ())):
                continue
            raise Refused(400, f"{_shown(name)} = {_shown(value)} is not served", "unsupported_parameter", name[:99])


_NAMES = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), "null")


def _shown(value: Any) -> str:
    """The value for a message: short, and with nothing that is no UTF-8. (Python writes no number of 5,000 digits.)"""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):
        return f"{_kind(value)} too long to be shown"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _messages(given: list[Any] | None) -> list[dict[str, str]]:
    if not given:
        raise Refused(400, "messages is missing or empty", param="messages")
    found = []
    for place, message in enumerate(given):
        where = f"messages[{place}]"
        if not isinstance(message, dict):
            raise Refused(400, f"{where} must be an object, not {_kind(message)}", "invalid_type", where)
        fields = _Fields({name: value for name, value in message.items() if value is not None}, f"{where}.")
        role, content = fields.take("role", str), fields.pop("content")
        fields.refuse_rest()
        if role not in ("system", "user", "assistant"):
            raise Refused(400, f"{where}.role is {_shown(role)}, it must be system, user or assistant", None, where)
        found.append({"role": role, "content": _content(content, f"{where}.content")})
    return found


def _content(content: Any, where: str) -> str:
    if isinstance(content, list) and content:
        texts = []
        for part in content:
            if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise Refused(400, f"{where} holds something else than text", "unsupported_content", where)
            texts.append(part["text"])
        content = "".join(texts)
    if not isinstance(content, str):
        raise Refused(400, f"{where} must be a string or a list of texts, not {_kind(content)}", "invalid_type", where)
    return _utf8(content, where)


def _stops(given: Any) -> tuple[str, ...]:
    stops = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise Refused(400, f"stop must be a string or up to {MOST_STOPS} of them, none empty", None, "stop")
    return tuple(_utf8(stop, "stop") for stop in stops)


def _utf8(text: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(400, f"{where} holds a lone surrogate at {error.start}, which is no text", None, where) from error
    return text
