"""The protocol of an episode: who sees what, when it ends, and what the answer is.

The human opens with the problem. The agent writes at most `max_turns` turns; after each but the last the human replies.

    I WANT TO ANSWER:   ends the episode; the answer stands between the first marker and a second one, or the end
    OUTPUT:             what stands before it is the agent's thought, which the human does not see

At the last turn the whole reply is the answer (without a marker). An empty answer is `No answer`.

These are the rules of backend programming, `CodeRules`; those of frontend design are in `design/rules.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from colbench_env.types import NO_ANSWER, Message, Task, Trajectory

ANSWER_MARKER = "I WANT TO ANSWER:"
OUTPUT_MARKER = "OUTPUT:"
MAX_TURNS = 10
BACKEND_REPLY_LIMIT = 400
FRONTEND_REPLY_LIMIT = 1000


def shown_text(raw: str) -> str:
    """What the human sees of an agent's reply.

    In: "They want code. OUTPUT: Which sign?"   Out: "Which sign?"
    An `OUTPUT:` inside an answer is part of that answer and hides nothing.
    """
    thought, marker, shown = raw.partition(OUTPUT_MARKER)
    return shown.strip() if marker and ANSWER_MARKER not in thought else raw


def marked_answer(raw: str) -> str | None:
    """The answer between the first marker and a second one, or None without a marker.

    In: "Done. I WANT TO ANSWER: x = 1"   Out: "x = 1"
    """
    parts = raw.split(ANSWER_MARKER, 2)
    return (parts[1].strip() or NO_ANSWER) if len(parts) > 1 else None


def chat_messages(messages: Iterable[Message], system: str = "") -> list[dict[str, str]]:
    """The messages as a chat template takes them, after a system message if there is a system prompt.

    The system prompt is part of how a prompt is rendered, never of a dialogue.
    """
    opening = [{"role": "system", "content": system}] if system else []
    return opening + [{"role": message.role, "content": message.content} for message in messages]


class Rules(Protocol):
    """What an episode's turns mean: what the human sees, which turn ends it, and what the answer is.

    The texts are the agent's, as sampled.
    """

    def shown(self, raw: str) -> str:
        """What the human sees of a turn."""
        ...

    def ends(self, raw: str) -> bool:
        """Whether the agent ends the episode with this turn."""
        ...

    def answer(self, raws: Sequence[str]) -> str:
        """The answer of an episode that has ended with the last of these turns."""
        ...

    def unfinished_answer(self, raws: Sequence[str]) -> str:
        """The answer of an episode that was given up after these turns."""
        ...


@dataclass(frozen=True)
class CodeRules:
    """The rules of backend programming: the answer is what stands behind its marker in the last turn."""

    def shown(self, raw: str) -> str:
        """The turn without the thought."""
        return shown_text(raw)

    def ends(self, raw: str) -> bool:
        """Whether the turn has a marked answer."""
        return marked_answer(raw) is not None

    def answer(self, raws: Sequence[str]) -> str:
        """The marked answer of the last turn, or without a marker all of it."""
        marked = marked_answer(raws[-1])
        return raws[-1].strip() or NO_ANSWER if marked is None else marked

    def unfinished_answer(self, raws: Sequence[str]) -> str:
        """None was given."""
        return NO_ANSWER


@dataclass(frozen=True)
class Episode:
    """An episode in one of its states; every step returns the next state and leaves this one as it was.

    `answer` is None until the episode is done. A step that is not the next one's raises ValueError.
    """

    task: Task
    max_turns: int = MAX_TURNS
    human_limit: int = BACKEND_REPLY_LIMIT
    history: tuple[Message, ...] = ()
    answer: str | None = None
    rules: Rules = CodeRules()

    def __post_init__(self) -> None:
        if self.max_turns < 1 or self.human_limit < 1:
            raise ValueError(f"max_turns={self.max_turns} and human_limit={self.human_limit} must be at least 1")
        if not self.history:
            object.__setattr__(self, "history", (Message("user", self.task.problem_description),))

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.answer is not None

    @property
    def agent_is_next(self) -> bool:
        """Whether the agent has to write now."""
        return not self.done and self.history[-1].role == "user"

    @property
    def human_is_next(self) -> bool:
        """Whether the human has to reply now."""
        return not self.done and self.history[-1].role == "assistant"

    @property
    def turns(self) -> int:
        """The number of turns that the agent has written."""
        return len(self.history) // 2

    @property
    def messages(self) -> tuple[Message, ...]:
        """The dialogue as the agent knows it: its own turns raw, thoughts included, as it wrote them."""
        raw = (entry.content if entry.output is None else entry.output for entry in self.history)
        return tuple(Message(entry.role, text) for entry, text in zip(self.history, raw, strict=True))

    @property
    def shown_messages(self) -> tuple[Message, ...]:
        """The dialogue as the human knows it: without the agent's thoughts."""
        return tuple(Message(entry.role, entry.content) for entry in self.history)

    def step_agent(self, raw: str, prompt: str | None = None, extra: Mapping[str, Any] | None = None) -> Self:
        """The state after the agent's turn.

        `raw` is the text as sampled, `prompt` the prompt it was sampled from; `extra` is kept in the message (token ids
        of the turn, for instance).
        """
        if not self.agent_is_next:
            raise ValueError(f"the agent cannot write after {self.turns} turns: {self._state()}")
        message = Message("assistant", self.rules.shown(raw), input=prompt, output=raw, extra=dict(extra or {}))
        state = replace(self, history=(*self.history, message))
        ended = self.rules.ends(raw) or state.turns == self.max_turns
        return replace(state, answer=self.rules.answer(state._raw_turns())) if ended else state

    def step_human(self, reply: str, extra: Mapping[str, Any] | None = None) -> Self:
        """The state after the human's reply, cut to `human_limit` characters; `extra` is kept in the message.

        An empty reply raises ValueError: a simulator that failed must not become a turn of the dialogue.
        """
        if not self.human_is_next:
            raise ValueError(f"the human cannot reply after {self.turns} turns: {self._state()}")
        if not reply.strip():
            raise ValueError("the human's reply is empty: a failed simulator must not become a turn of the dialogue")
        return replace(
            self, history=(*self.history, Message("user", reply[: self.human_limit], extra=dict(extra or {})))
        )

    def give_up(self) -> Self:
        """The episode ended here before the agent ended it, for instance because the context is full.

        A human reply that the agent has not answered is dropped, so that the agent has the last word.
        """
        if self.done:
            raise ValueError(f"the episode cannot be given up: {self._state()}")
        history = self.history[:-1] if self.agent_is_next and self.turns else self.history
        return replace(self, history=history, answer=self.rules.unfinished_answer(self._raw_turns()))

    def to_trajectory(self, extra: Mapping[str, Any] | None = None) -> Trajectory:
        """The ungraded trajectory of an episode that is done and has at least one agent turn; else ValueError."""
        if self.answer is None or not self.turns:
            raise ValueError(f"an episode with {self.turns} agent turns is no trajectory: {self._state()}")
        return Trajectory(self.task, self.history, self.answer, extra=dict(extra or {}))

    def _raw_turns(self) -> list[str]:
        return [message.content for message in self.messages if message.role == "assistant"]

    def _state(self) -> str:
        if self.done:
            return "the episode is done"
        return "it is the agent's turn" if self.agent_is_next else "it is the human's turn"
