"""A chat endpoint that speaks OpenAI's protocol, through the `openai` client (the extra `openai`).

The client repeats a request that cannot connect, times out or gets 408, 409, 429 or 5xx, with back-off, and obeys
`Retry-After`. What stays wrong is raised: BadInput where every request would end so (wrong key, address or model, no
credit, a parameter that is refused), NoReply where it is this request alone (context too long, refused content), else
an error that may be tried again. Which of the two a refusal is, a request shows that asks for one word with the same
parameters: it is sent once, when a request is refused before any other was answered.
"""

import asyncio
import os
import re
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from colbench_env.endpoint_settings import EndpointSettings
from colbench_env.refusals import Refusal, read_refusal
from colbench_env.types import BadInput, NoReply, replace_lone_surrogates

MAY_PASS = (408, 409, 425, 429)  # of the statuses from 400 to 499
TRIAL = "Say yes."
_WHITE = (  # a picture of 64 x 64 pixels
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQAAAACCEkxzAAAAEklEQVR42mP4DwUMo4xRBukMAOPT/hAC2mzj"
    "AAAAAElFTkSuQmCC"
)


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
        self._works = False  # a request with the parameters as they are now was answered
        self._left_out = set(settings.omit)
        self._limit_name = "max_tokens"
        self._key = os.environ.get(settings.key, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise BadInput(f"the environment variable {settings.key} holds no API key: a character of it is not ASCII")

    def parameters(self, seed: int) -> dict[str, Any]:
        """Build the body of a request with this seed, but for model and messages, of what the endpoint is known to
        take.

        Temperature 1 and top_p 1 are sent, although they are the protocol's defaults: vLLM and SGLang take what is left
        out from the model's generation_config.json (Llama 3.1: 0.6 and 0.9), llama.cpp has defaults of its own. Only
        where the endpoint refuses them are they left out, as that is then the nearest to what was asked for.
        """
        settings = self.settings
        values = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            "seed": seed % 2**31,
        }
        sent: dict[str, Any] = {name: value for name, value in values.items() if name not in self._left_out}
        if "max_tokens" in sent and self._limit_name != "max_tokens":
            sent[self._limit_name] = sent.pop("max_tokens")
        if settings.template:
            sent["chat_template_kwargs"] = dict(settings.template)
        return sent | dict(settings.body)

    async def complete(self, messages: Sequence[Mapping[str, Any]], seed: int) -> str:
        """Request the reply to these messages, trimmed and never empty; see the module for what is raised."""
        client, turn, settling = self._client()
        async with turn:
            while True:
                sent = self.parameters(seed)
                try:
                    answer = await self._ask(client, messages, sent)
                    break
                except self._openai.APIStatusError as problem:
                    refusal = self._refusal(problem)
                    async with settling:
                        if not self._works:
                            await self._settle(client, messages, seed)
                    if self.parameters(seed) == sent:
                        where = f"{self.settings.url} refuses the request (status {refusal.status})"
                        raise NoReply(f"{where}: {refusal.message}") from problem
        self._works = True
        return self._reply_text(answer)

    async def _ask(self, client: Any, messages: Sequence[Mapping[str, Any]], sent: dict[str, Any]) -> Any:
        return await client.chat.completions.create(model=self.settings.model, messages=list(messages), extra_body=sent)

    async def _settle(self, client: Any, messages: Sequence[Mapping[str, Any]], seed: int) -> None:
        """Find parameters that the endpoint takes, with a request that nothing else can be wrong with.

        BadInput where there are none that ask for the same.
        """
        while True:
            sent = self.parameters(seed)
            try:
                await self._ask(client, _trial_messages(messages), sent)
            except self._openai.APIStatusError as problem:
                refusal = self._refusal(problem, trial=True)
                named = refusal.about(sent)
                if not self._adapt(named, sent):
                    raise self._refuse(refusal, named) from problem
            else:
                self._works = True
                return

    def _adapt(self, named: Sequence[str], sent: Mapping[str, Any]) -> bool:
        """Asks for the same in other words from now on, concerning what is named if anything is; whether it can."""
        neutral = [name for name in ("top_p", "temperature") if sent.get(name) == 1]
        steps = [*neutral[:1], *(["max_tokens"] if "max_tokens" in sent else []), *neutral[1:]]
        step = next((name for name in steps if name in named or not named), None)
        if step == "max_tokens":
            self._limit_name = "max_completion_tokens"
        elif step is not None:
            self._left_out.add(step)
        return step is not None

    def _reply_text(self, answer: Any) -> str:
        """Return the text of the answer. Raises ValueError, with the reason, where it has none."""
        url = self.settings.url
        try:
            choice = answer.choices[0]
            message = choice.message
            text = message.content
        except (AttributeError, IndexError, TypeError):
            ask = "" if _has_version(url) else " (is /v1 missing from the URL?)"
            raise ValueError(f"{url} sent no chat completion{ask}: {str(answer)[:80]!r}") from None
        if isinstance(text, list):  # Mistral's reasoning models: parts, of which some are thought
            parts = [part for part in text if isinstance(part, dict) and part.get("type") == "text"]
            text = "".join(str(part.get("text", "")) for part in parts)
        if isinstance(text, str) and text.strip():
            return replace_lone_surrogates(text.strip())
        finish = getattr(choice, "finish_reason", None)
        ended = f", finish_reason is {finish!r}" if finish not in (None, "stop") else ""
        if refused := getattr(message, "refusal", None):
            raise ValueError(f"{url} sent an empty reply: the model refuses: {str(refused)[:80]!r}")
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
        if thought:
            more = f": {len(str(thought))} characters of reasoning and nothing said"
            raise ValueError(f"{url} sent an empty reply{more}{ended}{self._too_short(finish)}")
        raise ValueError(f"{url} sent an empty reply{ended}{self._too_short(finish)}")

    def _too_short(self, finish: Any) -> str:
        return f": {self.settings.max_tokens} tokens were not enough" if finish == "length" else ""

    async def check(self) -> None:
        """Raise BadInput unless the endpoint is there, takes the key and, if it lists its models, has this one."""
        settings, openai = self.settings, self._openai
        client = self._client()[0]
        try:
            names = [model.id async for model in client.models.list()]
        except openai.APIStatusError as problem:
            if problem.status_code in (401, 402):
                self._refusal(problem)
            if problem.status_code == 403:  # of a key that may ask, but not list the models, too
                return await self._settle(client, [], 0)
            if problem.status_code < 500 or problem.status_code == 501:
                return  # a server that does not list its models
            message = _read(problem).message
            raise BadInput(f"{settings.url}/models answers {problem.status_code}: {message}") from problem
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
        """Close the connections that were made in this event loop; to be called before the loop ends."""
        client = self._of_loop.pop(asyncio.get_running_loop(), (None,))[0]
        if client is not None:
            await client.close()

    def _client(self) -> tuple[Any, asyncio.Semaphore, asyncio.Lock]:
        loop = asyncio.get_running_loop()
        if loop not in self._of_loop:
            client = self._openai.AsyncOpenAI(
                base_url=self.settings.url,
                api_key=self._key or "none",
                timeout=self.settings.timeout,
                max_retries=self.settings.retries,
            )
            self._of_loop[loop] = client, asyncio.Semaphore(self.settings.concurrency), asyncio.Lock()
        return self._of_loop[loop]

    def _refusal(self, problem: Any, trial: bool = False) -> Refusal:
        """Return what is wrong with the request. Raises BadInput where it is not the request's fault, `problem`
        where that may pass. trial: nothing is wrong with what the messages say; else 403 may be a moderator's."""
        url, model, key = self.settings.url, self.settings.model, self.settings.key
        refusal = _read(problem)
        status, why = refusal.status, refusal.message
        if status == 401 or (status == 403 and trial):
            state = "" if self._key else " (it is not set)"
            raise BadInput(f"{url} refuses the key in the environment variable {key}{state}: {why}") from problem
        if status == 402:
            raise BadInput(f"{url}: the account has no credit left (status 402): {why}") from problem
        if status in (404, 410) and refusal.about_model(model):
            raise BadInput(f"{url} does not know the model {model!r} (status {status}): {why}") from problem
        if status < 400 or status in (404, 405, 410):
            ask = "is the URL right?" if _has_version(url) else "is /v1 missing from the URL?"
            place = f"{url.rstrip('/')}/chat/completions (status {status})"
            raise BadInput(f"nothing answers at {place}; {ask} It says: {why}") from problem
        if status == 429 and refusal.out_of_credit:
            raise BadInput(f"{url}: the quota is used up: {why}") from problem
        if status in MAY_PASS or (status >= 500 and not (refusal.unsupported and refusal.about(self.parameters(0)))):
            raise problem
        return refusal

    def _refuse(self, refusal: Refusal, named: Sequence[str]) -> BadInput:
        settings, status = self.settings, refusal.status
        if not named:
            hint = f"parameters can be left out with {settings.flag('omit')}"
            return BadInput(f"{settings.url} refuses every request (status {status}): {refusal.message} ({hint})")
        what = f"the parameter {named[0]}" if len(named) == 1 else f"the parameters {' and '.join(named)}"
        return BadInput(
            f"{settings.url} refuses {what} (status {status}): {refusal.message}; " + settings.way_out(named[0])
        )


def _read(problem: Any) -> Refusal:
    return read_refusal(problem.status_code, problem.response.text)


def _has_version(url: str) -> bool:
    """Whether there is a version in the URL's path, as /v1."""
    return re.search(r"/v\d", url) is not None


def _trial_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ask for one word, with a system message and a picture where these messages have them."""
    trial = [dict(message) for message in messages if message["role"] == "system"]
    sees = any(isinstance(message["content"], list) for message in messages)
    picture = [{"type": "text", "text": TRIAL}, {"type": "image_url", "image_url": {"url": _WHITE}}]
    return [*trial, {"role": "user", "content": picture if sees else TRIAL}]
