"""Everything that `launch.rollout` can be told; imports no jax."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.endpoint_settings import EndpointSettings
from colbench_env.types import BadInput, BenchmarkName
from launch.common.flags import ADVANCED, FLAT, Only
from launch.common.settings import (
    EMBEDDED,
    EMBEDDED_DIRECTORIES,
    EMBEDDED_FRONTEND,
    PROMPT_DATE,
    Design,
    Hosts,
    ToyName,
    check_date,
    check_drawing,
    toy_of,
)
from launch.common.simulator import Simulator, json_object, names

MINI_TASKS = 40


@dataclass(frozen=True)
class RolloutConfig:
    """Play dialogues of a policy with a user simulator, one row a dialogue; run again to continue."""

    benchmark: BenchmarkName = "backend"
    """Python functions, or web pages."""
    model: str = EMBEDDED
    """embedded (small, in the package; for pages embedded-frontend), or a Hugging Face directory of a Llama model."""
    mesh: str = "1x1"
    """DATAxTENSOR devices, of all processes together."""
    agent_url: str = ""
    """URL of an endpoint that speaks OpenAI's protocol and plays the agent; empty: the model does."""
    agent_model: str = ""
    """Name of the model behind that endpoint."""
    agent_key: Annotated[str, ADVANCED] = "OPENAI_API_KEY"
    """Environment variable with its API key."""
    agent_timeout: Annotated[float, ADVANCED] = 120.0
    """Seconds for one request to it."""
    agent_retries: Annotated[int, ADVANCED] = 2
    """Times that the client repeats a request to it."""
    agent_omit: Annotated[str, ADVANCED] = ""
    """Parameters that it is not sent, as in seed,temperature."""
    agent_body: Annotated[str, ADVANCED] = "{}"
    """Further fields of each request to it, a JSON object."""
    agent_prompt: str = "default"
    """none, a name in colbench_env/prompts, or a file; default: none if embedded, else backend_ or design_agent."""
    prompt_date: Annotated[str, ADVANCED] = PROMPT_DATE
    """Date that chat templates show which ask for today's; the same on every day, so that prompts are."""
    tasks: Path | None = None
    """JSON Lines of tasks; none: the miniature makes its own."""
    toy: Annotated[ToyName, ADVANCED] = "auto"
    """Toy benchmark whose tasks are played where none are given: the one the model was made for, or another."""
    num_tasks: int = 0
    """Tasks to play; 0: all (40 of the miniature)."""
    samples: int = 1
    """Dialogues about each task."""
    plugin: Annotated[str | None, ADVANCED] = None
    """Modules (FILE.py, module, entry point) that bring tasks, user simulator or model family: docs/plugins.md."""
    simulator: Annotated[Simulator, FLAT] = field(default_factory=Simulator)
    max_turns: int = 0
    """Agent turns at most; 0: 10, with the miniature's own tasks 8 (backend) or 4 (frontend), as in launch.train."""
    human_limit: Annotated[int, ADVANCED] = 0
    """Characters kept of a reply; 0: 400 (backend) or 1000 (frontend)."""
    best_of: int = 1
    """Turns that are drawn in each position, of which the critic chooses one; 1: no critic."""
    critic: Path | None = None
    """For that, a run directory of launch.train with a trained critic, or its stage (runs/x/critic)."""
    temperature: float = 1.0
    """Sampling temperature of the agent; 0: greedy."""
    top_k: Annotated[int, ADVANCED] = 0
    """Sample among the k likeliest tokens; 0: all."""
    top_p: Annotated[float, ADVANCED] = 1.0
    """Sample among the likeliest tokens of this probability together; 1: all."""
    max_new_tokens: int = 512
    """Tokens of an agent turn at most."""
    max_length: Annotated[int, ADVANCED] = 0
    """Tokens of a dialogue at most; 0: 2048, or what the network was made for where that is less."""
    quirks: Annotated[tuple[Literal["double-bos"], ...], ADVANCED] = ()
    """Quirks of the released roll-out; double-bos begins prompts with two begin-of-text tokens."""
    rows: int = 32
    """Turns that are sampled side by side, in each process."""
    seed: int = 42
    """Seed of tasks and sampling."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations."""
    output: Path = Path("rollouts.jsonl")
    """JSON Lines of dialogues; failures go beside it, to OUTPUT.failures.jsonl."""
    hosts: Annotated[Hosts, ADVANCED] = field(default_factory=Hosts)
    design: Annotated[Design, Only(benchmark="frontend")] = field(default_factory=Design)

    def __post_init__(self) -> None:
        for least, fields in (
            (1, ("samples", "rows", "best_of")),
            (0, ("num_tasks", "max_turns", "human_limit", "max_length", "agent_retries")),
        ):  # fmt: skip
            for name in fields:
                if getattr(self, name) < least:
                    raise BadInput(f"{name} is {getattr(self, name)}, it must be at least {least}")
        if not self.agent_timeout > 0:
            raise BadInput(f"agent_timeout is {self.agent_timeout}, it must be above 0")
        check_date("prompt_date", self.prompt_date)
        check_drawing("", self.temperature, self.top_k, self.top_p, self.max_new_tokens)
        self.simulator.check_for(self.benchmark, self.turns, self.human_limit)
        if self.simulator.human == "model" and self.agent_url:
            raise BadInput("--human=model is played by --model: it does not take --agent-url")
        if bool(self.agent_url) != bool(self.agent_model):
            raise BadInput("an agent behind an endpoint needs both --agent-url and --agent-model")
        if not self.agent_url and (self.agent_omit or self.agent_body != "{}"):
            raise BadInput("--agent-omit and --agent-body are for an agent behind an endpoint, --agent-url")
        if self.agent_url and (self.quirks or self.top_k):
            raise BadInput("--quirks and --top-k are for --model, an endpoint with --agent-url takes neither")
        if (self.best_of > 1) != (self.critic is not None):
            raise BadInput(
                f"best_of is {self.best_of} and critic {self.critic}: --best-of=N, above 1, and --critic=RUN are given "
                "together"
            )
        if self.critic and (self.agent_url or self.quirks):
            raise BadInput("--best-of is for --model without --quirks: an endpoint's turns are not ranked")
        if self.agent_url:
            self.agent_settings()

    def agent_settings(self) -> EndpointSettings:
        """How the agent behind an endpoint is reached and asked. Raises BadInput."""
        return EndpointSettings(
            url=self.agent_url,
            model=self.agent_model,
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_new_tokens,
            key=self.agent_key,
            timeout=self.agent_timeout,
            retries=self.agent_retries,
            concurrency=self.simulator.in_flight,
            omit=names(self.agent_omit),
            body=json_object(self.agent_body, "--agent-body"),
            flags="--agent",
        )

    @property
    def at_once(self) -> int:
        """Dialogues that are played side by side: with a critic no more than fill the rows, so that the first end early
        and little is lost with a run that is killed."""
        most = self.simulator.in_flight
        return min(most, math.ceil(self.rows / self.best_of)) if self.best_of > 1 else most

    @property
    def turns(self) -> int:
        """The agent's turns at most, the default spelled out."""
        from launch.common.benchmarks import default_turns  # numpy comes with it, for which --help need not wait

        scripted = self.benchmark == "backend" and self.simulator.human == "scripted"  # who knows no other tasks
        return self.max_turns or default_turns(
            self.benchmark, is_toy=self.tasks is None or scripted, toy=toy_of(self.model, self.toy)
        )

    @property
    def prompt_name(self) -> str:
        """The agent's prompt, the default spelled out."""
        if self.agent_prompt != "default":
            return self.agent_prompt
        if self.played in EMBEDDED_DIRECTORIES and not self.agent_url:
            return "none"
        return "design_agent" if self.benchmark == "frontend" else "backend_agent"

    @property
    def played(self) -> str:
        """The model, the one that comes with the package by the name of its benchmark."""
        return EMBEDDED_FRONTEND if self.model == EMBEDDED and self.benchmark == "frontend" else self.model


def settings_of(config: RolloutConfig) -> dict[str, object]:
    """Return what all processes have to be told alike, as plain JSON values."""
    plain = dataclasses.asdict(dataclasses.replace(config, hosts=Hosts(), max_turns=config.turns))
    return json.loads(json.dumps(plain, default=str))
