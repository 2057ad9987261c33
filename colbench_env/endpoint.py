"""A chat endpoint that speaks OpenAI's protocol, through the `openai` client (the extra `openai`).

The client repeats a request that cannot connect, times out or gets 408, 409, 429 or 5xx, with back-off, and obeys
`Retry-After`. What stays wrong is raised: BadInput where every request would end so (wrong key, wrong model, no quota),
NoReply where it is this request alone (context too long, refused content), else an error that may be tried again.
"""

import asyncio
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colbench_env.humans import NoReply
from colbench_env.types import BadInput

RUN_ENDS = (401, 403, 404)
EPISODE_ENDS = (400, 413, 422)


@dataclass(frozen=True)
class EndpointSettings:
    """Where an endpoint is and how it samples.

    url: up to and with /v1. key: the environment variable with the API key. timeout: seconds for one try. retries: of
    the client. concurrency: requests under way at once. template: chat-template arguments as KEY=JSON pairs, sent as
    chat_template_kwargs (vLLM, SGLang).
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

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")) or not self.model:
            raise BadInput(f"the endpoint is {self.url!r} with model {self.model!r}, expected http(s)://... and a name")
        if self.timeout <= 0 or self.retries < 0 or self.concurrency < 1 or self.max_tokens < 1:
            raise BadInput(
                f"timeout={self.timeout}, retries={self.retries}, concurrency={self.concurrency} and "
                f"max_tokens={self.max_tokens}, expected above 0, and at least 0, 1 and 1"
            )

    @property
    def in_rows(self) -> dict[str, Any]:
        """What replies depend on, for the rows: neither key nor time-outs."""
        names = ("url", "model", "temperature", "top_p", "max_tokens")
        return {name: getattr(self, name) for name in names} | {"template": dict(self.template)}


class Endpoint:
    """Asks the endpoint of `settings`, from any event loop. BadInput where the package openai is missing."""

    def __init__(self, settings: EndpointSettings):
        try:
            import openai
        except ImportError:
            raise BadInput("an endpoint needs the package openai: pip install openai") from None
        self.settings = settings
        self._openai = openai
        self._of_loop: Any = weakref.WeakKeyDictionary()  # a client's connections belong to one loop

    async def complete(self, messages: Sequence[Mapping[str, str]], seed: int) -> str:
        """The reply to these messages, trimmed and never empty; see the module for what is raised."""
        settings, openai = self.settings, self._openai
        client, turn = self._client()
        extra = {"chat_template_kwargs": dict(settings.template)} if settings.template else None
        async with turn:
            try:
                answer = await client.chat.completions.create(
                    model=settings.model,
                    messages=list(messages),
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    max_tokens=settings.max_tokens,
                    seed=seed % 2**31,
                    extra_body=extra,
                )
            except openai.APIStatusError as problem:
                raise self._meaning(problem) from problem
        try:
            text = answer.choices[0].message.content
        except (AttributeError, IndexError, TypeError):
            raise ValueError(f"{settings.url} sent no chat completion: {str(answer)[:80]!r}") from None
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{settings.url} sent an empty reply")
        return text.strip()

    async def check(self) -> None:
        """Raises BadInput unless the endpoint is there, takes the key and, if it lists its models, has this one."""
        settings, openai = self.settings, self._openai
        client, _ = self._client()
        try:
            names = [model.id async for model in client.models.list()]
        except openai.APIStatusError as problem:
            if problem.status_code in (401, 403):
                raise self._meaning(problem) from problem
            if problem.status_code in (404, 405, 501):
                return  # a server that does not list its models
            raise BadInput(f"{settings.url}/models answers {problem.status_code}: {_short(problem)}") from problem
        except openai.APIConnectionError as problem:
            reason = problem.__cause__ or problem
            raise BadInput(f"{settings.url}: the endpoint cannot be reached: {reason}") from problem
        except (AttributeError, TypeError, ValueError, openai.OpenAIError):
            return  # something that is no list of models
        if names and settings.model not in names:
            more = ", ..." if len(names) > 8 else ""
            raise BadInput(
                f"{settings.url} has no model {settings.model!r}, expected one of {', '.join(names[:8])}{more}"
            )

    async def aclose(self) -> None:
        """Closes the connections that were made in this event loop; to be called before the loop ends."""
        client, _ = self._of_loop.pop(asyncio.get_running_loop(), (None, None))
        if client is not None:
            await client.close()

    def _client(self) -> tuple[Any, asyncio.Semaphore]:
        loop = asyncio.get_running_loop()
        if loop not in self._of_loop:
            client = self._openai.AsyncOpenAI(
                base_url=self.settings.url,
                api_key=os.environ.get(self.settings.key) or "none",
                timeout=self.settings.timeout,
                max_retries=self.settings.retries,
            )
            self._of_loop[loop] = client, asyncio.Semaphore(self.settings.concurrency)
        return self._of_loop[loop]

    def _meaning(self, problem: Any) -> Exception:
        url, model, status = self.settings.url, self.settings.model, problem.status_code
        if status in (401, 403):
            state = "" if os.environ.get(self.settings.key) else " (it is not set)"
            return BadInput(
                f"{url} refuses the key in the environment variable {self.settings.key}{state}: {_short(problem)}"
            )
        if status in RUN_ENDS:
            return BadInput(f"{url} does not know the model {model!r} (status {status}): {_short(problem)}")
        if status == 429 and problem.code == "insufficient_quota":
            return BadInput(f"{url}: the quota is used up: {_short(problem)}")
        if status in EPISODE_ENDS:
            return NoReply(f"{url} refuses the request (status {status}): {_short(problem)}")
        return problem


def _short(problem: Exception) -> str:
    text = " ".join(str(problem).split())
    return text if len(text) <= 200 else f"{text[:199]}…"
