"""The rows that every part of the project exchanges: tasks, dialogues, trajectories, pairs, candidates.

Each class reads one JSON object with `from_json(row, where)` and writes it back with `to_json()`. Keys it does not
know are kept in `extra`, so a row of another tool survives a round trip. `where` is `FILE:LINE` and opens every error.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, Self

from colbench_env.errors import BadInput
from colbench_env.errors import NoReply as NoReply
from colbench_env.json_fields import (
    quote,
    read_filled_text,
    read_list,
    read_number,
    read_numbers,
    read_object,
    read_optional_text,
    read_required,
    read_test_cases,
    read_text,
    read_texts,
)

NO_ANSWER = "No answer"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def replace_lone_surrogates(text: str) -> str:
    """Replace every lone surrogate, half a character, which JSON can hold and UTF-8 cannot, by U+FFFD.

    The one rule for such text, applied where text comes in: rows of files, replies of endpoints, functions of the
    user's, requests of the server. The length stays.
    """
    return text if text.isascii() else _LONE_SURROGATE.sub("\ufffd", text)


class Verdict(StrEnum):
    """What a grader says about one test of one answer."""

    PASS = "pass"
    WRONG = "wrong"
    ERROR = "error"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASH = "crash"
    UNSUPPORTED = "unsupported"
    NO_ANSWER = "no-answer"
    SYNTAX_ERROR = "syntax-error"
    REFERENCE_ERROR = "reference-error"
    INFRASTRUCTURE_ERROR = "infrastructure-error"


@dataclass(frozen=True)
class Task:
    """One problem of the benchmark.

    `ground_truth` is the reference: Python source (backend) or HTML (frontend). In a tasks file it is required; inside
    a trajectory collected elsewhere it may be unknown, and is then "". `test_cases` maps a test's name to a call
    expression and is empty for frontend tasks.

    Examples:
        >>> task = Task("Add one.", "def f(x): return x + 1", {"test1": "f(1)"}, hidden_information="x is a number.")
        >>> task == Task.from_json(task.to_json(), "tasks.jsonl:1") and len(task.task_id)
        12
    """

    problem_description: str
    ground_truth: str = ""
    test_cases: dict[str, str] = field(default_factory=dict, hash=False)
    hidden_information: str | None = None
    extra: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def task_id(self) -> str:
        """Twelve hexadecimal digits, the same for the same content in every run and on every machine."""
        content = [self.problem_description, self.ground_truth, self.test_cases, self.hidden_information]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @classmethod
    def from_json(cls, row: object, location: str) -> Self:
        """Read a task of a tasks file, reference included. Raises BadInput."""
        task = cls.from_trajectory_json(row, location)
        if not task.ground_truth.strip():
            state = "is empty" if "ground_truth" in read_object(row, location) else "is missing"
            raise BadInput(f"{location}: 'ground_truth' {state}, expected the reference solution as a string")
        return task

    @classmethod
    def from_trajectory_json(cls, row: object, location: str) -> Self:
        """Read the task inside a trajectory, whose reference and tests may be unknown. Raises BadInput."""
        row = read_object(row, location)
        return cls(
            problem_description=read_filled_text(row, "problem_description", location),
            ground_truth=read_optional_text(row, "ground_truth", location) or "",
            test_cases=read_test_cases(row, location),
            hidden_information=read_optional_text(row, "hidden_information", location),
            extra=_extra(row, cls),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object without what is unknown."""
        row: dict[str, Any] = {"problem_description": self.problem_description}
        if self.ground_truth:
            row["ground_truth"] = self.ground_truth
        if self.test_cases:
            row["test_cases"] = dict(self.test_cases)
        if self.hidden_information is not None:
            row["hidden_information"] = self.hidden_information
        return row | self.extra


@dataclass(frozen=True)
class Message:
    """One entry of a dialogue.

    `content` is what both sides see. An agent's message also has `input`, the prompt as formatted by the chat template,
    and `output`, the raw text of the model; either is None where it was not recorded.

    Examples:
        >>> Message("assistant", "Which sign?").to_json()
        {'role': 'assistant', 'content': 'Which sign?', 'input': None, 'output': None}
    """

    role: str
    content: str
    input: str | None = None
    output: str | None = None
    extra: dict[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, row: object, location: str) -> Self:
        """Read a message from a JSON object. Raises BadInput."""
        row = read_object(row, location)
        role = read_text(row, "role", location)
        if role not in ("system", "user", "assistant"):
            raise BadInput(f"{location}: 'role' is {quote(role)}, expected 'user', 'assistant' or 'system'")
        return cls(
            role=role,
            content=read_text(row, "content", location),
            input=read_optional_text(row, "input", location),
            output=read_optional_text(row, "output", location),
            extra=_extra(row, cls),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the message as a JSON object; an agent's always has `input` and `output`, null where unknown."""
        row: dict[str, Any] = {"role": self.role, "content": self.content}
        for key, value in (("input", self.input), ("output", self.output)):
            if self.role == "assistant" or value is not None:
                row[key] = value
        return row | self.extra


@dataclass(frozen=True)
class Trajectory:
    """One finished episode: user and agent alternate, the user opens, the agent has the last word.

    `reward` is None until it is graded. `answer` is what is graded, "No answer" when there is none.

    Examples:
        >>> dialogue = (Message("user", "Add one."), Message("assistant", "I WANT TO ANSWER: def f(x): return x + 1"))
        >>> row = Trajectory(Task("Add one."), dialogue, answer="def f(x): return x + 1", reward=1.0)
        >>> [message.content[:8] for message in row.agent_turns]
        ['I WANT T']
    """

    task: Task
    dialogue_history: tuple[Message, ...]
    answer: str
    reward: float | None = None
    extra: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def agent_turns(self) -> tuple[Message, ...]:
        """The agent's messages, oldest first."""
        return tuple(message for message in self.dialogue_history if message.role == "assistant")

    @classmethod
    def from_json(cls, row: object, location: str) -> Self:
        """Read a trajectory from a JSON object. Raises BadInput."""
        row = read_object(row, location)
        return cls(
            task=Task.from_trajectory_json(read_required(row, "task", location), f"{location}: task"),
            dialogue_history=_alternating(_messages(row, "dialogue_history", location), location),
            answer=read_text(row, "answer", location),
            reward=None if row.get("reward") is None else read_number(row["reward"], f"{location}: 'reward'"),
            extra=_extra(row, cls),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object; an ungraded one has no `reward`."""
        row: dict[str, Any] = {
            "task": self.task.to_json(),
            "dialogue_history": [message.to_json() for message in self.dialogue_history],
            "answer": self.answer,
        }
        if self.reward is not None:
            row["reward"] = self.reward
        return row | self.extra


@dataclass(frozen=True)
class Pair:
    """A preference: two texts of which the first is the better one.

    In critic pairs each text is privileged prefix + last turn's `input` + last turn's `output`; in turn pairs it is
    input + output + end-of-turn text.
    """

    chosen: str
    rejected: str
    extra: dict[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, row: object, location: str) -> Self:
        """Read a pair from a JSON object. Raises BadInput."""
        row = read_object(row, location)
        return cls(
            chosen=read_filled_text(row, "chosen", location),
            rejected=read_filled_text(row, "rejected", location),
            extra=_extra(row, cls),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the pair as a JSON object."""
        return {"chosen": self.chosen, "rejected": self.rejected} | self.extra


@dataclass(frozen=True)
class Candidates:
    """C turns sampled in one position of a trajectory, before the critic has judged them.

    `older_output` is the turn that the trajectory has there and `reward` that trajectory's. The log-probabilities are
    those of the reference model, one a candidate: mean over the candidate's tokens, and sum.
    """

    input: str
    input_with_ground_truth: str
    older_output: str
    reward: float
    ground_truth: str
    messages: tuple[Message, ...]
    additional_outputs: tuple[str, ...]
    additional_reference_logprobs: tuple[float, ...]
    additional_reference_logprobs_sum: tuple[float, ...]
    extra: dict[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, row: object, location: str) -> Self:
        """Read candidates from a JSON object. Raises BadInput."""
        row = read_object(row, location)
        outputs = read_texts(row, "additional_outputs", location)
        count = len(outputs)
        return cls(
            input=read_filled_text(row, "input", location),
            input_with_ground_truth=read_filled_text(row, "input_with_ground_truth", location),
            older_output=read_text(row, "older_output", location),
            reward=read_number(read_required(row, "reward", location), f"{location}: 'reward'"),
            ground_truth=read_text(row, "ground_truth", location),
            messages=_messages(row, "messages", location),
            additional_outputs=outputs,
            additional_reference_logprobs=read_numbers(row, "additional_reference_logprobs", count, location),
            additional_reference_logprobs_sum=read_numbers(row, "additional_reference_logprobs_sum", count, location),
            extra=_extra(row, cls),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return {
            "input": self.input,
            "input_with_ground_truth": self.input_with_ground_truth,
            "older_output": self.older_output,
            "reward": self.reward,
            "ground_truth": self.ground_truth,
            "messages": [message.to_json() for message in self.messages],
            "additional_outputs": list(self.additional_outputs),
            "additional_reference_logprobs": list(self.additional_reference_logprobs),
            "additional_reference_logprobs_sum": list(self.additional_reference_logprobs_sum),
        } | self.extra


@dataclass(frozen=True)
class Ranked:
    """Candidates with the critic's verdict: `judge_result` has one advantage a candidate."""

    candidates: Candidates
    judge_result: tuple[float, ...]

    @classmethod
    def from_json(cls, row: object, location: str) -> Self:
        """Read a ranked row from a JSON object. Raises BadInput."""
        row = read_object(row, location)
        candidates = Candidates.from_json({key: row[key] for key in row if key != "judge_result"}, location)
        return cls(candidates, read_numbers(row, "judge_result", len(candidates.additional_outputs), location))

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return self.candidates.to_json() | {"judge_result": list(self.judge_result)}


Row = Task | Trajectory | Pair | Candidates | Ranked

BenchmarkName = Literal["backend", "frontend"]


def _messages(row: Mapping[str, Any], key: str, location: str) -> tuple[Message, ...]:
    entries = read_list(row, key, location)
    return tuple(Message.from_json(entry, f"{location}: {key}[{position}]") for position, entry in enumerate(entries))


def _alternating(messages: tuple[Message, ...], location: str) -> tuple[Message, ...]:
    if not messages:
        raise BadInput(f"{location}: 'dialogue_history' is empty, expected at least the problem and one agent turn")
    for position, message in enumerate(messages):
        expected = "assistant" if position % 2 else "user"
        if message.role != expected:
            place = f"{location}: dialogue_history[{position}]"
            raise BadInput(f"{place} has role {message.role!r}, expected {expected!r}: user and assistant alternate")
    if len(messages) % 2:
        raise BadInput(f"{location}: 'dialogue_history' ends with the user, expected the agent's turn last")
    return messages


def _extra(row: Mapping[str, Any], cls: type) -> dict[str, Any]:
    known = {entry.name for entry in fields(cls)} - {"extra"}
    return {key: value for key, value in row.items() if key not in known}
