"""Everything that `launch.rollout` can be told; imports no jax."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from colbench_env.endpoint_settings import EndpointSettings
from colbench_env.types import BadInput, BenchmarkName
from launch.common.benchmarks import default_turns
from launch.common.flags import FLAT
from launch.common.settings import EMBEDDED, EMBEDDED_FRONTEND, PROMPT_DATE, Design, Hosts, check_date, check_drawing
from launch.common.simulator import Simulator, json_object, names

MINI_TASKS = 40


@dataclass(frozen=True)
class RolloutConfig:
    """Dialogues of a policy with a simulated human, one row a dialogue; run again to continue.

    benchmark: "backend" (Python functions) or "frontend" (web pages, rendered as `design` says).
    model: "embedded" (the small start policy that comes with the package, or for pages "embedded-frontend") or a
    Hugging Face directory of a Llama model.
    agent_url, agent_model: instead of it, an endpoint that speaks OpenAI's protocol; agent_key: the environment
    variable with its API key; agent_timeout: seconds for one request; agent_retries: of a request, by the client;
    agent_omit: parameters that it is not sent, e.g. seed,temperature; agent_body: further fields of each request, as a
    JSON object.
    agent_prompt: "default" ("none" for an embedded model, else "backend_agent" or "design_agent"), "none", a prompt of
    colbench_env/prompts, or a file. prompt_date: what chat templates show that ask for today's date; the same on every
    day, so that prompts are. simulator: who answers the agent.
    tasks: JSON Lines; without it the miniature makes its own. num_tasks: how many, 0 for all (40 of the miniature).
    samples: dialogues about each task. max_turns: agent turns at most; 0: as the benchmark has it, 10, and with the
    miniature's own tasks 8 (backend) or 4 (frontend), as in launch.train. human_limit: characters kept of a reply; 0:
    as the benchmark has it, 400 (backend) or 1000 (frontend).
    quirks: of the released roll-out, off by default; "double-bos" begins prompts with two begin-of-text tokens.
    rows: turns that are drawn side by side. max_length: tokens of a dialogue; 0: 2048, or what the network was made for
    where that is less. output: failures go beside it, to OUTPUT.failures.jsonl.
    hosts: several processes that play a share each; then mesh counts the devices of all, and rows are of each.
    """

    benchmark: BenchmarkName = "backend"
    model: str = EMBEDDED
    mesh: str = "1x1"
    agent_url: str = ""
    agent_model: str = ""
    agent_key: str = "OPENAI_API_KEY"
    agent_timeout: float = 120.0
    agent_retries: int = 2
    agent_omit: str = ""
    agent_body: str = "{}"
    agent_prompt: str = "default"
    prompt_date: str = PROMPT_DATE
    tasks: Path | None = None
    num_tasks: int = 0
    samples: int = 1
    simulator: Annotated[Simulator, FLAT] = field(default_factory=Simulator)
    max_turns: int = 0
    human_limit: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 512
    max_length: int = 0
    quirks: tuple[Literal["double-bos"], ...] = ()
    rows: int = 32
    seed: int = 42
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    output: Path = Path("rollouts.jsonl")
    hosts: Hosts = field(default_factory=Hosts)
    design: Design = field(default_factory=Design)

    def __post_init__(self) -> None:
        for least, fields in (
            (1, ("samples", "rows")),
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
    def turns(self) -> int:
        """The agent's turns at most, the default spelled out."""
        scripted = self.benchmark == "backend" and self.simulator.human == "scripted"  # who knows no other tasks
        return self.max_turns or default_turns(self.benchmark, miniature=self.tasks is None or scripted)

    @property
    def prompt_name(self) -> str:
        """The agent's prompt, the default spelled out."""
        if self.agent_prompt != "default":
            return self.agent_prompt
        if self.played in (EMBEDDED, EMBEDDED_FRONTEND) and not self.agent_url:
            return "none"
        return "design_agent" if self.benchmark == "frontend" else "backend_agent"

    @property
    def played(self) -> str:
        """The model, the one that comes with the package by the name of its benchmark."""
        return EMBEDDED_FRONTEND if self.model == EMBEDDED and self.benchmark == "frontend" else self.model


def settings_of(config: RolloutConfig) -> dict[str, object]:
    """What all processes have to be told alike, as plain JSON values."""
    plain = dataclasses.asdict(dataclasses.replace(config, hosts=Hosts(), max_turns=config.turns))
    return json.loads(json.dumps(plain, default=str))
