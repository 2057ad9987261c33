"""The simulated human as `launch.rollout` and `launch.train` are told of it; imports no jax."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from colbench_env.dialogue import MAX_TURNS
from colbench_env.endpoint import Endpoint, EndpointSettings
from colbench_env.humans.openai import OpenAISimulator
from colbench_env.prompts import Prompt, read_human_prompt
from colbench_env.types import BadInput, BenchmarkName
from launch.common.flags import ADVANCED, Only
from launch.common.settings import check_drawing

STANDARD = "standard-v1"

SPEAKS = Only(human=("model", "openai", "standard-v1"))  # a language model


@dataclass(frozen=True)
class Simulator:
    """Who answers the agent."""

    human: Literal["scripted", "rules", "model", "openai", "standard-v1", "plugin"] = "scripted"
    """User simulator: the toy's, rules from references, the model, an endpoint, docs/rollout.md's standard, plugin."""
    human_url: Annotated[str, Only(human="openai")] = ""
    """URL of the endpoint; empty: OpenAI's own."""
    human_model: Annotated[str, Only(human="openai")] = ""
    """Name of the model behind the endpoint."""
    human_key: Annotated[str, ADVANCED, Only(human="openai")] = "OPENAI_API_KEY"
    """Environment variable with the API key."""
    human_prompt: Annotated[str, ADVANCED, SPEAKS] = "default"
    """Prompt of colbench_env/prompts, or a file; "default": backend_human, or design_human for pages."""
    human_temperature: Annotated[float, ADVANCED, SPEAKS] = 1.0
    """Sampling temperature of the user simulator; 0: greedy."""
    human_max_tokens: Annotated[int, ADVANCED, SPEAKS] = 256
    """Tokens of a reply at most."""
    human_timeout: Annotated[float, ADVANCED, Only(human="openai")] = 120.0
    """Seconds for one request."""
    human_retries: Annotated[int, ADVANCED, Only(human="openai")] = 2
    """Times that the client repeats a request."""
    human_template: Annotated[str, ADVANCED, SPEAKS] = "{}"
    """Arguments of the chat template (chat_template_kwargs), a JSON object."""
    human_omit: Annotated[str, ADVANCED, Only(human="openai")] = ""
    """Parameters that the endpoint is not sent, as in seed,temperature."""
    human_body: Annotated[str, ADVANCED, Only(human="openai")] = "{}"
    """Further fields of each request, a JSON object."""
    human_plain: Annotated[bool, ADVANCED, Only(benchmark="frontend")] = False
    """The scripted user simulator of pages says no more than the differences."""
    no_leaks: Annotated[bool, ADVANCED] = False
    """Replies that give the solution away are asked for again."""
    leak_free: Annotated[bool, ADVANCED, SPEAKS] = False
    """What gives the solution away is taken out of replies."""
    attempts: Annotated[int, ADVANCED] = 3
    """Times that the user simulator is asked for one reply."""
    in_flight: Annotated[int, ADVANCED] = 64
    """Episodes under way at once, and so requests to an endpoint."""

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.in_flight < 1 or self.human_max_tokens < 1:
            raise BadInput(
                f"attempts is {self.attempts}, in_flight {self.in_flight} and human_max_tokens "
                f"{self.human_max_tokens}: at least 1"
            )
        if not self.human_timeout > 0 or self.human_retries < 0:
            raise BadInput(
                f"human_timeout is {self.human_timeout} and human_retries {self.human_retries}: above 0, and at least 0"
            )
        if self.no_leaks and self.leak_free:
            raise BadInput("--no-leaks and --leak-free: a reply that leaks is asked for again or cleaned, not both")
        check_drawing("human_", self.human_temperature)
        if self.human == "openai" and not self.human_model:
            raise BadInput("--human=openai needs --human-model=NAME (and --human-url, unless it is OpenAI's own)")
        for name in ("human_model", "human_omit", "human_body"):
            if self.human != "openai" and getattr(self, name) != Simulator.__dataclass_fields__[name].default:
                flag = "--" + name.replace("_", "-")
                raise BadInput(f"--human={self.human} takes no {flag}, which is for --human=openai")
        if self.human == "openai":
            self.endpoint_settings()

    def check_for(self, benchmark: BenchmarkName, turns: int, human_limit: int = 0) -> None:
        """Raise BadInput for a human who cannot see the pages of a frontend run, and for a standard that is changed.

        turns: of the agent at most; human_limit: characters kept of a reply, 0 for those of the benchmark.
        """
        if self.human == STANDARD and (
            self.no_leaks or self.leak_free or self.human_plain or turns != MAX_TURNS or human_limit
        ):
            raise BadInput(
                f"--human={STANDARD} goes with {MAX_TURNS} agent turns (here {turns}), replies of the usual length and "
                "neither --no-leaks nor --leak-free nor --human-plain: that is what makes scores comparable"
            )
        if benchmark == "frontend" and self.human == "rules":
            raise BadInput("--human=rules reads Python: --human=scripted compares pages")
        if benchmark == "frontend" and self.human == "model":
            raise BadInput(
                "--human=model: a Llama does not see pages: --human=scripted compares them, --human=openai asks a "
                "model with vision"
            )

    @property
    def template(self) -> dict[str, Any]:
        """The chat-template arguments for the human."""
        return json_object(self.human_template, "--human-template")

    @property
    def prompt(self) -> Prompt:
        """What a model in the place of a backend human is told."""
        return read_human_prompt("backend_human" if self.human_prompt == "default" else self.human_prompt)

    @property
    def vision_prompt(self) -> Prompt:
        """What a model with vision is told that looks at pages."""
        name = "design_human" if self.human_prompt == "default" else self.human_prompt
        return read_human_prompt(name, hidden=False)

    def behind_endpoint(self) -> OpenAISimulator:
        """Return the user simulator of `--human=openai` who answers questions."""
        return OpenAISimulator(self.endpoint(), self.prompt)

    def endpoint(self) -> Endpoint:
        """Where `--human=openai` is."""
        return Endpoint(self.endpoint_settings())

    def endpoint_settings(self) -> EndpointSettings:
        """How that endpoint is reached and asked. Raises BadInput."""
        return EndpointSettings(
            url=self.human_url or EndpointSettings.url,
            model=self.human_model,
            temperature=self.human_temperature,
            max_tokens=self.human_max_tokens,
            key=self.human_key,
            timeout=self.human_timeout,
            retries=self.human_retries,
            concurrency=self.in_flight,
            template=self.template,
            omit=names(self.human_omit),
            body=json_object(self.human_body, "--human-body"),
            flags="--human",
        )


def names(flag: str) -> tuple[str, ...]:
    """In: "seed, temperature"   Out: ("seed", "temperature")"""
    return tuple(name.strip() for name in flag.split(",") if name.strip())


def json_object(text: str, flag: str) -> dict[str, Any]:
    """Return the JSON object that is the value of a flag. Raises BadInput."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"{flag}={text[:200]}: not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{flag}={text[:200]}: expected a JSON object")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
