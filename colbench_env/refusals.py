"""Why an endpoint has refused a request: one reading of all shapes that an error has.

They differ by server; what is read of each:

    OpenAI, Azure, DeepSeek, Groq      {"error": {"message", "type", "param", "code"}}; `param` may be wrong
    LiteLLM                            the same with "None" for null, another server's error within `message`
    vLLM, SGLang                       the same, or {"object": "error", "message", "type", "param", "code"}, where
                                       `message` may be a list of pydantic's errors in Python's notation
    Mistral, Azure's model catalogue   {"message": {"detail": [{"loc": ["body", "seed"], "msg"}]}}, {"detail": ...}
    FastAPI, NIM                       {"detail": "..."} or {"detail": [{"loc": [...], "msg": "..."}]}
    Anthropic                          {"type": "error", "error": {"type", "message"}}
    Gemini                             [{"error": {"code", "message", "status"}}]
    llama.cpp, Ollama, TGI, xAI        {"error": {"message"}}, {"error": "..."} with "error_type" or "code"
    proxies, gateways, anything else   plain text, a page of HTML, nothing
"""

import html
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from colbench_env.terminal_text import shorten

_TOLD = ("message", "msg", "detail", "error", "description", "title", "errors", "details")  # where words are, by rank
_LIMIT = "max_(?:new_|completion_|output_)?tokens|max(?:New|Completion|Output)?Tokens"
_OTHER_NAMES = {"max_tokens": _LIMIT, "max_completion_tokens": _LIMIT, "top_p": "top[_-]?[pP]"}
_UNSUPPORTED = re.compile(
    r"unsupported|not (be )?(supported|permitted|allowed)|not support|unknown|unrecogni[sz]ed|unexpected|extra\b"
    r"|forbidden|extraneous|does(n't| not) (support|accept|take)",
    re.IGNORECASE,
)
_NO_SUCH_PATH = re.compile(
    r"\b(file|page|resource|path|route|url|uri|endpoint|method)\b.{0,40}\bnot (be )?(found|allowed)"
    r"|\b(invalid|unknown) (url|path|route)|\A[\W\d]*not found\W*\Z",
    re.IGNORECASE,
)
_OUT_OF_CREDIT = re.compile(
    r"insufficient[_ ](quota|balance|credits?|funds)|credit balance|billing_hard_limit|out of credits", re.IGNORECASE
)
MAX_SHOWN, MAX_READ = 200, 4000  # characters of a sentence, and of what a server says


@dataclass(frozen=True)
class Refusal:
    """status: of HTTP. message: what the server says, on one line of MAX_SHOWN characters. text: MAX_READ of the same.
    params: the names that the error gives as those of the parameters at fault. kind: its codes and types, in one text.
    structured: whether it is OpenAI's kind of error, an object within "error" or with a "message"."""

    status: int
    message: str
    text: str
    params: tuple[str, ...] = ()
    kind: str = ""
    structured: bool = False

    def about(self, sent: Collection[str]) -> tuple[str, ...]:
        """List the parameters of those sent that the error names: in the place for it, else anywhere in its words."""
        named = tuple(name for name in sent if any(_names(name, param) for param in self.params))
        return named or tuple(name for name in sent if _names(name, self.text))

    @property
    def unsupported(self) -> bool:
        """Whether something is refused for being there at all, whatever its value."""
        return _UNSUPPORTED.search(f"{self.text} {self.kind}") is not None

    @property
    def out_of_credit(self) -> bool:
        """Whether the account cannot pay; a limit of requests a minute is something else."""
        return _OUT_OF_CREDIT.search(f"{self.text} {self.kind}") is not None

    def about_model(self, model: str) -> bool:
        """Whether "not found" is said of the model rather than of the address."""
        if re.search(rf"(?<![\w-]){re.escape(model)}(?![\w-])|\bmodels?\b|deployment", self.text, re.IGNORECASE):
            return True
        if re.search(r"model|deployment", self.kind, re.IGNORECASE):
            return True
        return self.structured and _NO_SUCH_PATH.search(self.text) is None


def read_refusal(status: int, body: str) -> Refusal:
    """Read the body of an error.

    In:  422, '{"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}'
    Out: message "Extra inputs are not permitted (body.seed)", params ("seed",)
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        text = _one_line(_without_tags(body[:MAX_READ]))
        return Refusal(status, _short(text) or "it gives no reason", text)
    found = list(_messages_in(value))
    text = _one_line("; ".join(dict.fromkeys(words for words, _ in found)) or body)[:MAX_READ]
    params = tuple(dict.fromkeys(name for _, names in found for name in names))
    first = value[0] if isinstance(value, list) and value else value
    structured = isinstance(first, dict) and (isinstance(first.get("error"), dict) or "message" in first)
    parts = [first, first.get("error")] if isinstance(first, dict) else []
    kinds = (
        part.get(key) for part in parts if isinstance(part, dict) for key in ("code", "type", "error_type", "status")
    )
    kind = " ".join(word for word in kinds if isinstance(word, str))
    return Refusal(status, _short(text) or "it gives no reason", text, params, kind, structured)


def _messages_in(value: Any, depth: int = 0) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what a part of an error says, and the parameters that it names. What was sent and is only repeated
    counts not."""
    if depth > 8:
        return
    if isinstance(value, str):
        if value.strip():
            yield value, ()
    elif isinstance(value, list):
        for entry in value[:20]:
            yield from _messages_in(entry, depth + 1)
    elif isinstance(value, dict):
        names, place = _params(value)
        for key in _TOLD:
            for words, inner in _messages_in(value.get(key), depth + 1):
                yield words + (f" ({place})" if place and not inner else ""), names + inner
        if not any(value.get(key) for key in _TOLD) and isinstance(code := value.get("code"), str):
            yield code, names


def _params(value: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    loc, param = value.get("loc"), value.get("param")
    if isinstance(loc, list):
        path = [str(part) for part in loc]
        top = next((part for part in path if part != "body"), "")  # of messages.0.user.name it is the messages
        return (top,) if top else (), ".".join(path)
    if isinstance(param, str) and param not in ("", "None"):
        return tuple(re.split(r"[,\s]+", param.removeprefix("body."))), ""
    return (), ""


def _names(parameter: str, text: str) -> bool:
    pattern = _OTHER_NAMES.get(parameter, re.escape(parameter))
    return re.search(rf"(?<![A-Za-z0-9_])(?:{pattern})(?![A-Za-z0-9_])", text) is not None


def _without_tags(page: str) -> str:
    if not re.match(r"\s*<", page):
        return page
    page = re.sub(r"(?is)<(style|script)\b.*?</\1>", " ", page)
    return html.unescape(re.sub(r"<[^<>]*>", " ", page))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _short(text: str) -> str:
    return shorten(text, MAX_SHOWN)
