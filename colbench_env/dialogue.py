"""The protocol of an episode: who sees what, when it ends, and what the answer is.

The user simulator opens with the problem. The agent writes at most `max_turns` turns; after each but the last the user
simulator replies.

    I WANT TO ANSWER:   ends the episode; the answer stands between the first marker and a second one, or the end
    OUTPUT:             what stands before it is the agent's thought, which the user simulator does not see

At the last turn the whole reply is the answer (without a marker). An empty answer is `No answer`.

That is the backend's protocol, `BackendRules`; the frontend's differs in what is shown and what the answer is
(`colbench_env.design.dialogue`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from colbench_env.types import NO_ANSWER, Message, Task, Trajectory, replace_lone_surrogates

ANSWER_MARKER = "I WANT TO ANSWER:"
OUTPUT_MARKER = "OUTPUT:"
MAX_TURNS = 10
BACKEND_REPLY_LIMIT = 400
FRONTEND_REPLY_LIMIT = 1000


def shown_text(raw: str) -> str:
    """Cut an agent's reply to what the user simulator sees.

    In: "They want code. OUTPUT: Which sign?"   Out: "Which sign?"
    An `OUTPUT:` inside an answer is part of that answer and hides nothing.
    """
    thought, marker, shown = raw.partition(OUTPUT_MARKER)
    return shown.strip() if marker and ANSWER_MARKER not in thought else raw


def marked_answer(raw: str) -> str | None:
    """Extract the answer between the first marker and a second one, None without a marker.

    In: "Done. I WANT TO ANSWER: x = 1"   Out: "x = 1"
    """
    parts = raw.split(ANSWER_MARKER, 2)
    return (parts[1].strip() or NO_ANSWER) if len(parts) > 1 else None


@dataclass(frozen=True)
class Reading:
    """What the rules make of an agent's turn: what the user simulator sees of it, and the answer where it ends the
    episode."""

    shown: str
    answer: str | None


class Rules(Protocol):
    """The protocol of a benchmark. name: that of the benchmark. human_limit: characters kept of a user simulator's
    reply. agent_prompt: of what an agent is told that nobody has told otherwise."""

    @property
    def name(self) -> str: ...

    @property
    def human_limit(self) -> int: ...

    @property
    def agent_prompt(self) -> str: ...

    def read(self, raw: str, before: tuple[Message, ...], last: bool) -> Reading:
        """Read the agent's turn, after the dialogue `before`; `last` says that no other turn is allowed."""
        ...

    def given_up(self, history: tuple[Message, ...]) -> str:
        """Return the answer of an episode that ends after this dialogue because it cannot go on."""
        ...


@dataclass(frozen=True)
class BackendRules:
    """Questions first, then a marked answer; whoever is stopped has none."""

    human_limit: int = BACKEND_REPLY_LIMIT
    name: str = "backend"
    agent_prompt: str = "backend_agent"

    def read(self, raw: str, before: tuple[Message, ...], last: bool) -> Reading:
        """As `Rules.read`."""
        answer = marked_answer(raw)
        if answer is None and last:
            answer = raw.strip() or NO_ANSWER
        return Reading(shown_text(raw), answer)

    def given_up(self, history: tuple[Message, ...]) -> str:
        """As `Rules.given_up`."""
        return NO_ANSWER


def chat_messages(messages: Iterable[Message], system: str = "") -> list[dict[str, str]]:
    """Turn messages into those of a chat template, after a system message if there is a system prompt.

    The system prompt is part of how a prompt is rendered, never of a dialogue.

    Examples:
        >>> chat_messages([Message("user", "Round a price.")], system="Ask first.")
        [{'role': 'system', 'content': 'Ask first.'}, {'role': 'user', 'content': 'Round a price.'}]
    """
    opening = [{"role": "system", "content": system}] if system else []
    return opening + [{"role": message.role, "content": message.content} for message in messages]


@dataclass(frozen=True)
class Episode:
    """An episode in one of its states; every step returns the next state and leaves this one as it was.

    `answer` is None until the episode is done. A step that is not the next one's raises ValueError.

    Examples:
        >>> episode = Episode(Task("Round a price.")).step_agent("They may want less. OUTPUT: Up or down?")
        >>> episode.history[-1].content, episode.user_is_next
        ('Up or down?', True)
        >>> episode = episode.step_user("Down.").step_agent("I WANT TO ANSWER: from math import floor as f")
        >>> episode.done, episode.turns, episode.answer
        (True, 2, 'from math import floor as f')
    """

    task: Task
    max_turns: int = MAX_TURNS
    rules: Rules = BackendRules()
    history: tuple[Message, ...] = ()
    answer: str | None = None

    def __post_init__(self) -> None:
        if self.max_turns < 1 or self.rules.human_limit < 1:
            limits = f"max_turns={self.max_turns} and human_limit={self.rules.human_limit}"
            raise ValueError(f"{limits} must be at least 1")
        if not self.history:
            opening = Message("user", replace_lone_surrogates(self.task.problem_description))
            object.__setattr__(self, "history", (opening,))

    @property
    def done(self) -> bool:
        """Whether the episode has ended."""
        return self.answer is not None

    @property
    def agent_is_next(self) -> bool:
        """Whether the agent has to write now."""
        return not self.done and self.history[-1].role == "user"

    @property
    def user_is_next(self) -> bool:
        """Whether the user simulator has to reply now."""
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
        """The dialogue as the user simulator knows it: without the agent's thoughts."""
        return tuple(Message(entry.role, entry.content) for entry in self.history)

    def step_agent(self, raw: str, prompt: str | None = None, extra: Mapping[str, Any] | None = None) -> Self:
        """Return the state after the agent's turn.

        `raw` is the text as sampled, `prompt` the prompt it was sampled from; `extra` is kept in the message (token ids
        of the turn, for instance). Lone surrogates are replaced, as everywhere where text comes in.
        """
        if not self.agent_is_next:
            raise ValueError(f"the agent cannot write after {self.turns} turns: {self._state()}")
        raw = replace_lone_surrogates(raw)
        read = self.rules.read(raw, self.history, last=self.turns + 1 == self.max_turns)
        message = Message("assistant", read.shown, input=prompt, output=raw, extra=dict(extra or {}))
        return replace(self, history=(*self.history, message), answer=read.answer)

    def step_user(self, reply: str, extra: Mapping[str, Any] | None = None) -> Self:
        """Return the state after the user simulator's reply, cut to the rules' limit; `extra` is kept in the message.

        Lone surrogates are replaced. An empty reply raises ValueError, and so does one of which the limit leaves blanks
        only: a simulator that failed must not become a turn of the dialogue.
        """
        if not self.user_is_next:
            raise ValueError(f"the human cannot reply after {self.turns} turns: {self._state()}")
        text = replace_lone_surrogates(reply[: self.rules.human_limit])
        if not text.strip():
            raise ValueError("the human's reply is empty: a failed simulator must not become a turn of the dialogue")
        return replace(self, history=(*self.history, Message("user", text, extra=dict(extra or {}))))

    def give_up(self) -> Self:
        """End the episode here without a last turn, for instance because the context is full.

        A user simulator reply that the agent has not answered is dropped, so that the agent has the last word.
        """
        if self.done:
            raise ValueError(f"the episode cannot be given up: {self._state()}")
        history = self.history[:-1] if self.agent_is_next and self.turns else self.history
        return replace(self, history=history, answer=self.rules.given_up(history))

    def to_trajectory(self, extra: Mapping[str, Any] | None = None) -> Trajectory:
        """Return the ungraded trajectory of an episode that is done and has an agent turn; else raise ValueError."""
        if self.answer is None or not self.turns:
            raise ValueError(f"an episode with {self.turns} agent turns is no trajectory: {self._state()}")
        return Trajectory(self.task, self.history, self.answer, extra=dict(extra or {}))

    def _state(self) -> str:
        if self.done:
            return "the episode is done"
        return "it is the agent's turn" if self.agent_is_next else "it is the human's turn"
