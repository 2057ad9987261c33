"""A user simulator played by a model behind an endpoint that speaks OpenAI's protocol."""

from dataclasses import dataclass, field
from typing import Any

from colbench_env.endpoint import Endpoint
from colbench_env.humans import SimulatorRequest, simulator_prompt
from colbench_env.prompts import BACKEND_HUMAN, Prompt


@dataclass(frozen=True)
class OpenAISimulator:
    """Asks `endpoint` with `prompt` filled in, as one user message."""

    endpoint: Endpoint
    prompt: Prompt = field(default=BACKEND_HUMAN)

    @property
    def name(self) -> str:
        """The name of this kind of user simulator: `openai`."""
        return "openai"

    @property
    def settings(self) -> dict[str, Any]:
        """The prompt, the model and how it is sampled."""
        return {"prompt": self.prompt.name, **self.endpoint.settings.in_rows}

    async def reply(self, request: SimulatorRequest) -> str:
        """One reply; `sent` is noted, with what parameters. Raises what `Endpoint.complete` raises."""
        messages = [{"role": "user", "content": simulator_prompt(request, self.prompt)}]
        reply = await self.endpoint.complete(messages, request.seed)
        request.notes["sent"] = self.endpoint.parameters(request.seed)
        return reply
