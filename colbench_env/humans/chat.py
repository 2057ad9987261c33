"""A user simulator played by a language model that someone else runs: an endpoint, another library, a function."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colbench_env.humans import SimulatorRequest, simulator_prompt


@dataclass(frozen=True)
class ChatSimulator:
    """A user simulator whose words come from `chat`, a function of chat messages and a seed to the text of the reply.

    It is told the prompt `backend_human`: its part, the hidden information and the dialogue, as one user message.
    `model` is what the rows say about it (a model's name, temperature, ...), as plain JSON values.

    Examples:
        >>> def chat(messages: list[dict[str, str]], seed: int) -> str:
        ...     return "I do not mind."  # an endpoint's reply to these messages with this seed
        >>> simulator = ChatSimulator(chat, model={"name": "mine", "temperature": 1.0})
        >>> simulator.settings
        {'prompt': 'backend_human', 'name': 'mine', 'temperature': 1.0}
    """

    chat: Callable[[list[dict[str, str]], int], str]
    model: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of this kind of user simulator: `chat`."""
        return "chat"

    @property
    def settings(self) -> dict[str, Any]:
        """The prompt, and what `model` says."""
        return {"prompt": "backend_human", **self.model}

    async def reply(self, request: SimulatorRequest) -> str:
        """One reply, from a call of `chat` in a thread of its own. Raises what `chat` raises."""
        messages = [{"role": "user", "content": simulator_prompt(request)}]
        text = await asyncio.to_thread(self.chat, messages, request.seed)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the simulated human said {text!r} about task {request.task.task_id}, expected some text")
        return text.strip()
