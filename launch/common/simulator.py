"""The simulated human as `launch.rollout` and `launch.train` are told of it; imports no jax."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from colbench_env.dialogue import MAX_TURNS
from colbench_env.endpoint import Endpoint, EndpointSettings
from colbench_env.humans.openai import OpenAISimulator
from colbench_env.prompts import Prompt, read_human_prompt
from colbench_env.types import BadInput, BenchmarkName
from launch.common.settings import check_drawing

STANDARD = "standard-v1"


@dataclass(frozen=True)
class Simulator:
    """Who answers the agent.

    human: "scripted" needs tasks of the miniature, "rules" answers about any backend task from its reference, without
    a model; "model" is played by the same model, "openai" by human_model at human_url ("": OpenAI's own). "standard-v1"
    is a fixed setting by which scores can be compared (docs/rollout.md). human_prompt: "default" (backend_human, or
    design_human for pages), a prompt of colbench_env/prompts, or a file. human_timeout: seconds for one request;
    human_retries: of a request, by the client. human_template: chat_template_kwargs as a JSON object. human_omit:
    parameters that the endpoint is not sent, e.g. seed,temperature; human_body: further fields of each request, as a
    JSON object. human_key: the environment variable with the API key. human_plain: the scripted human of pages says no
    more than the differences. no_leaks: replies that give the solution away are asked for again.
    attempts: of the human for one reply. in_flight: episodes under way at once, and so requests to an endpoint.
    """

    human: Literal["scripted", "rules", "model", "openai", "standard-v1"] = "scripted"
    human_url: str = ""
    human_model: str = ""
    human_key: str = "OPENAI_API_KEY"
    human_prompt: str = "default"
    human_temperature: float = 1.0
    human_max_tokens: int = 256
    human_timeout: float = 120.0
    human_retries: int = 2
    human_template: str = "{}"
    human_omit: str = ""
    human_body: str = "{}"
    human_plain: bool = False
    no_leaks: bool = False
    attempts: int = 3
    in_flight: int = 64

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
        """Raises BadInput for a human who cannot see the pages of a frontend run, and for a standard that is changed.

        turns: of the agent at most; human_limit: characters kept of a reply, 0 for those of the benchmark.
        """
        if self.human == STANDARD and (self.no_leaks or self.human_plain or turns != MAX_TURNS or human_limit):
            raise BadInput(
                f"--human={STANDARD} goes with {MAX_TURNS} agent turns (here {turns}), replies of the usual length and "
                "neither --no-leaks nor --human-plain: that is what makes scores comparable"
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
        """The human of `--human=openai` who answers questions."""
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
    """The JSON object that is the value of a flag. Raises BadInput."""
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"{flag}={text[:200]}: not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{flag}={text[:200]}: expected a JSON object")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
