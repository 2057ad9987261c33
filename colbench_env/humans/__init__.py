"""Who answers the agent: one asynchronous protocol for scripted simulators, models and endpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from colbench_env.prompts import BACKEND_HUMAN, Prompt
from colbench_env.types import BadInput, Message, Task, replace_lone_surrogates


@dataclass(frozen=True)
class SimulatorRequest:
    """One reply that is wanted: `messages` is the dialogue as the user simulator sees it and ends with the agent's
    turn.

    `seed` alone decides what is random in the reply, so that it does not depend on the rest of the batch. Whatever the
    simulator writes into `notes`, as plain JSON values, is kept with the reply in the row.
    """

    task: Task
    messages: tuple[Message, ...]
    seed: int
    notes: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.messages or self.messages[-1].role != "assistant":
            raise ValueError("a human replies to a dialogue that ends with the agent's turn")

    @property
    def question(self) -> str:
        """What the agent has just said."""
        return self.messages[-1].content


@runtime_checkable
class UserSimulator(Protocol):
    """Someone who answers. `name` and `settings` are stored in every row that this user simulator has taken part in.

    Examples:
        >>> class Silent:
        ...     name, settings = "shrug", {}
        ...
        ...     async def reply(self, request: SimulatorRequest) -> str:
        ...         return "I do not mind."
        >>> isinstance(Silent(), UserSimulator)
        True
    """

    @property
    def name(self) -> str:
        """A short name, as in `--human`."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that the replies depend on besides the requests, as plain JSON values."""
        ...

    async def reply(self, request: SimulatorRequest) -> str:
        """Return the reply, never empty. Raises where it cannot be had, and invents none.

        BadInput ends the run, NoReply the episode; after any other error the user simulator is asked again.
        """
        ...


def simulator_prompt(request: SimulatorRequest, prompt: Prompt = BACKEND_HUMAN) -> str:
    """Write the prompt of a language model as user simulator: its part, the hidden information and the dialogue so far.

    The hidden information is the task's own, else its reference solution.

    Examples:
        >>> dialogue = (Message("user", "Round a price."), Message("assistant", "Up or down?"))
        >>> request = SimulatorRequest(Task("Round a price.", hidden_information="Always down."), dialogue, seed=0)
        >>> [line for line in simulator_prompt(request).splitlines() if "down" in line]
        ['Always down.', 'Programmer: Up or down?']
    """
    hidden = request.task.hidden_information or request.task.ground_truth
    if not hidden:
        raise BadInput(f"task {request.task.task_id} has neither hidden information nor a reference to answer from")
    speakers = {"user": "You", "assistant": "Programmer"}
    dialogue = "\n".join(f"{speakers[message.role]}: {message.content}" for message in request.messages)
    filled = prompt.fill(
        {
            "problem_description": request.task.problem_description,
            "hidden_information": hidden,
            "dialogue": dialogue,
            "dialogue_history": dialogue,
        }
    )
    return replace_lone_surrogates(filled)
