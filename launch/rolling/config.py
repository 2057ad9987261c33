"""Everything that `launch.rollout` can be told; imports no jax."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colbench_env.types import BadInput

MINI_TASKS = 40


@dataclass(frozen=True)
class RolloutConfig:
    """Dialogues of a policy with a simulated human, one row a dialogue; run again to continue.

    model: "embedded" (the small start policy that comes with the package) or a Hugging Face directory of a Llama model.
    agent_url, agent_model: instead of it, an endpoint that speaks OpenAI's protocol. agent_prompt: "default" ("none"
    for the embedded model, else "backend_agent"), "none", a prompt of colbench_env/prompts, or a file.
    tasks: JSON Lines; without it the miniature makes its own. num_tasks: how many, 0 for all (40 of the miniature).
    samples: dialogues about each task. human: "scripted" needs tasks of the miniature, "model" is played by the same
    model, "openai" by human_model at human_url. human_prompt: a prompt of colbench_env/prompts, or a file.
    human_template: chat_template_kwargs as a JSON object. human_key, agent_key: environment variables with API keys.
    no_leaks: replies that give the solution away are asked for again. attempts: of the human for one reply.
    quirks: of the released roll-out, off by default; "double-bos" begins prompts with two begin-of-text tokens.
    rows: turns that are drawn side by side. in_flight: episodes under way. max_length: tokens of a dialogue; 0: 2048,
    or what the network was made for where that is less. output: failures go beside it, to OUTPUT.failures.jsonl.
    """

    model: str = "embedded"
    mesh: str = "1x1"
    agent_url: str = ""
    agent_model: str = ""
    agent_key: str = "OPENAI_API_KEY"
    agent_prompt: str = "default"
    tasks: Path | None = None
    num_tasks: int = 0
    samples: int = 1
    human: Literal["scripted", "model", "openai"] = "scripted"
    human_url: str = "https://api.openai.com/v1"
    human_model: str = ""
    human_key: str = "OPENAI_API_KEY"
    human_prompt: str = "backend_human"
    human_temperature: float = 1.0
    human_max_tokens: int = 256
    human_timeout: float = 120.0
    human_retries: int = 2
    human_template: str = "{}"
    no_leaks: bool = False
    attempts: int = 3
    max_turns: int = 10
    human_limit: int = 400
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int = 512
    max_length: int = 0
    quirks: tuple[Literal["double-bos"], ...] = ()
    rows: int = 32
    in_flight: int = 64
    seed: int = 42
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    output: Path = Path("rollouts.jsonl")

    def __post_init__(self) -> None:
        if self.samples < 1 or self.num_tasks < 0 or self.in_flight < 1 or self.rows < 1:
            raise BadInput(
                f"samples is {self.samples}, num_tasks {self.num_tasks}, in_flight {self.in_flight} and rows "
                f"{self.rows}: at least 1, 0, 1 and 1"
            )
        if self.human == "openai" and not self.human_model:
            raise BadInput("--human=openai needs --human-model=NAME (and --human-url, unless it is OpenAI's own)")
        if self.human == "model" and (self.agent_url or self.human_model):
            raise BadInput("--human=model is played by --model: it takes neither --agent-url nor --human-model")
        if bool(self.agent_url) != bool(self.agent_model):
            raise BadInput("an agent behind an endpoint needs both --agent-url and --agent-model")
        if self.agent_url and (self.quirks or self.top_k):
            raise BadInput("--quirks and --top-k are for --model, an endpoint with --agent-url takes neither")

    @property
    def template(self) -> dict[str, Any]:
        """The chat-template arguments for the human."""
        try:
            value = json.loads(self.human_template)
        except ValueError as problem:
            raise BadInput(f"--human-template={self.human_template}: not JSON: {problem}") from None
        if not isinstance(value, dict):
            raise BadInput(f"--human-template={self.human_template}: expected a JSON object")
        return value

    @property
    def prompt_name(self) -> str:
        """The agent's prompt, the default spelled out."""
        if self.agent_prompt != "default":
            return self.agent_prompt
        return "none" if self.model == "embedded" and not self.agent_url else "backend_agent"
