"""How an endpoint is reached and what it is asked for, checked where it is set."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colbench_env.types import BadInput

OMITTABLE = ("temperature", "top_p", "max_tokens", "seed")


@dataclass(frozen=True)
class EndpointSettings:
    """Where an endpoint is and how it samples.

    url: up to and with /v1. key: the environment variable with the API key. timeout: seconds for one try. retries: of
    the client. concurrency: requests under way at once. template: chat-template arguments as KEY=JSON pairs, sent as
    chat_template_kwargs (vLLM, SGLang). omit: parameters that are not sent, of OMITTABLE. body: further fields of each
    request (reasoning_effort, ...). flags: with what a command's flags for this endpoint begin, "--human" for instance.
    """

    url: str = "https://api.openai.com/v1"
    model: str = "gpt-4o-mini"
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 512
    key: str = "OPENAI_API_KEY"
    timeout: float = 120.0
    retries: int = 2
    concurrency: int = 64
    template: Mapping[str, Any] = field(default_factory=dict)
    omit: tuple[str, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    flags: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")) or not self.model:
            raise BadInput(f"the endpoint is {self.url!r} with model {self.model!r}, expected http(s)://... and a name")
        if self.url.rstrip("/").endswith("/chat/completions"):
            raise BadInput(f"the endpoint is {self.url!r}, expected the address up to and with /v1")
        if not self.timeout > 0 or self.retries < 0 or self.concurrency < 1 or self.max_tokens < 1:
            raise BadInput(
                f"timeout={self.timeout}, retries={self.retries}, concurrency={self.concurrency} and "
                f"max_tokens={self.max_tokens}, expected above 0, and at least 0, 1 and 1"
            )
        check_sampling(self.temperature, self.top_p)
        for name in self.omit:
            if name not in OMITTABLE:
                raise BadInput(f"{self.flag('omit')}: {name!r} cannot be left out, expected {', '.join(OMITTABLE)}")
            if name in ("temperature", "top_p") and getattr(self, name) != 1:
                raise BadInput(f"{self.flag('omit')}: {name} is {getattr(self, name)} and is to be left out, too")
        for name in ("model", "messages", "stream", "chat_template_kwargs", *OMITTABLE):
            if name in self.body:
                raise BadInput(f"{self.flag('body')}: {name!r} has a setting of its own")

    @property
    def in_rows(self) -> dict[str, Any]:
        """What replies depend on, for the rows: neither key nor time-outs. What a row's messages keep as `sent` is what
        the endpoint was really sent."""
        names = ("url", "model", "temperature", "top_p", "max_tokens")
        settings = {name: getattr(self, name) for name in names} | {"template": dict(self.template)}
        return (
            settings
            | ({"omit": sorted(self.omit)} if self.omit else {})
            | ({"body": dict(self.body)} if self.body else {})
        )

    def way_out(self, parameter: str) -> str:
        """Suggest what to do about a parameter that is refused."""
        base = "max_tokens" if parameter == "max_completion_tokens" else parameter
        if base == "chat_template_kwargs":
            return f"see {self.flag('template')}"
        if base not in OMITTABLE:
            return f"see {self.flag('body')}"
        set_to_1 = " (and set it to 1)" if base in ("temperature", "top_p") and getattr(self, base) != 1 else ""
        return f"leave it out with {self.flag('omit')}={base}{set_to_1}"

    def flag(self, name: str) -> str:
        """How a user calls a setting."""
        return f"{self.flags}-{name}" if self.flags else name


def check_sampling(temperature: float, top_p: float) -> None:
    """Raise BadInput unless temperature is finite and not negative and top_p above 0 and at most 1."""
    if not 0 <= temperature < math.inf:
        raise BadInput(f"temperature is {temperature}, it must be finite and not negative")
    if not 0 < top_p <= 1:
        raise BadInput(f"top_p is {top_p}, it must be above 0 and at most 1")
