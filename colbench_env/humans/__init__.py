"""Who answers the agent: one protocol, in batches, for scripted humans, models and endpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from colbench_env.prompts import load_prompt
from colbench_env.types import Message, Task


@dataclass(frozen=True)
class HumanRequest:
    """One reply that is wanted: `messages` is the dialogue as the human sees it and ends with the agent's turn.

    `seed` alone decides what is random in the reply, so that it does not depend on the rest of the batch.
    """

    task: Task
    messages: tuple[Message, ...]
    seed: int

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role != "assistant":
            raise ValueError("a human replies to a dialogue that ends with the agent's turn")

    @property
    def question(self) -> str:
        """What the agent has just said."""
        return self.messages[-1].content


class Human(Protocol):
    """Someone who answers. `name` and `settings` are stored in every row that this human has taken part in."""

    @property
    def name(self) -> str:
        """A short name, as in `--human`."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that the replies depend on besides the requests, as plain JSON values."""
        ...

    def replies(self, requests: Sequence[HumanRequest]) -> list[str]:
        """One reply for each request, in order and never empty. Raises if a reply cannot be had: it invents none."""
        ...


def human_prompt(request: HumanRequest, prompt: str = "backend_human") -> str:
    """What a language model in the human's place is told: its part, the hidden information and the dialogue so far.

    The hidden information is the task's own, else its reference solution.
    """
    hidden = request.task.hidden_information or request.task.ground_truth
    if not hidden:
        raise ValueError(f"task {request.task.task_id} has neither hidden information nor a reference to answer from")
    speakers = {"user": "You", "assistant": "Programmer"}
    dialogue = "\n".join(f"{speakers[message.role]}: {message.content}" for message in request.messages)
    return load_prompt(prompt, hidden_information=hidden, dialogue=dialogue)
