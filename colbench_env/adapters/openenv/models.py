"""What goes over the wire."""

from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field

MAX_CHARACTERS = 1_000_000
"""Of a turn; the protocol refuses a longer one."""


class ColBenchAction(Action):
    """The agent's turn: a question, or `I WANT TO ANSWER:` and the code (frontend: a page)."""

    text: str = Field(max_length=MAX_CHARACTERS, description="What the agent says")


class ColBenchObservation(Observation):
    """What the user has just said, "" at the end; the reward comes with the last one."""

    text: str = ""
    messages: list[dict[str, str]] = Field(default_factory=list, description="The dialogue, as chat messages")
    turns_left: int = 0
    success: bool | None = Field(default=None, description="At the end: whether all tests passed")
    turn_credits: list[float] | None = Field(default=None, description="At the end: what each agent turn is worth")


class ColBenchState(State):
    """Which task is played."""

    split: str = ""
    index: int | None = None
    task_id: str = ""
