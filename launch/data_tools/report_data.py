"""What a file of rows holds, as `--json` prints it. Lines are counted from 1, blank ones included."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from colbench_env.samples import Layout

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class FileForm:
    """The bytes of a file: how lines end ("LF", "CRLF", "CR", each with its count) and what editors leave behind."""

    bytes: int
    blank_lines: int
    line_ends: Mapping[str, int]
    byte_order_mark: bool
    ends_with_line_end: bool

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read the form of a file."""
        size = blank = 0
        ends = {"LF": 0, "CRLF": 0, "CR": 0}
        marked, line = False, b""
        with path.open("rb") as file:
            for number, line in enumerate(file):
                marked |= number == 0 and line.startswith(BOM)
                size += len(line)
                blank += not line.removeprefix(BOM).strip()
                inside = line.removesuffix(b"\n")
                if inside != line:
                    ends["CRLF" if inside.endswith(b"\r") else "LF"] += 1
                ends["CR"] += inside.removesuffix(b"\r").count(b"\r")
        return cls(size, blank, {name: count for name, count in ends.items() if count}, marked, line.endswith(b"\n"))


@dataclass(frozen=True)
class Lengths:
    """Lengths of `count` texts, in characters or tokens."""

    count: int
    least: int
    median: float
    most: int
    total: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self:
        """Summarise one or more lengths."""
        return cls(len(lengths), min(lengths), statistics.median(lengths), max(lengths), sum(lengths))


@dataclass(frozen=True)
class Rewards:
    """The rewards of rows: `counted` of them have one; none is NaN."""

    counted: int
    without: int
    mean: float
    least: float
    most: float
    ones: int
    zeros: int

    @classmethod
    def of(cls, rewards: Sequence[float | None]) -> Self | None:
        """Summarise the rewards that are not None; return None without any."""
        known = [reward for reward in rewards if reward is not None]
        if not known:
            return None
        mean, without = statistics.fmean(known), len(rewards) - len(known)
        return cls(len(known), without, mean, min(known), max(known), known.count(1.0), known.count(0.0))


@dataclass(frozen=True)
class References:
    """What the references of `tasks` tasks gave in the sandbox.

    layers: of the sandbox. calls: how many calls of the first run ended with which verdict ("pass": with a value).
    failing: the lines of the tasks of which some call gave no value, by verdict ("timeout": it runs for ever).
    """

    tasks: int
    layers: str
    calls: Mapping[str, int]
    failing: Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class TaskStatistics:
    """The different tasks of a file; a line is that of a task's first row.

    repeated: the lines of each task of a tasks file that is there more than once. tests: number of tests -> tasks.
    repeated_calls: tasks of which two tests are the same. hidden_differs: tasks whose hidden_information is something
    else than the reference. flags: doubtful tasks, by flag. references: None where none was run.
    """

    different: int
    repeated: Sequence[Sequence[int]]
    with_reference: int
    tests: Mapping[int, int]
    repeated_calls: Sequence[int]
    with_hidden_information: int
    hidden_differs: Sequence[int]
    flags: Mapping[str, Sequence[int]]
    references: References | None


@dataclass(frozen=True)
class DialogueStatistics:
    """The dialogues of a file. turns: number of agent turns -> dialogues. without_prompt: agent turns whose prompt
    ("input") was not recorded. other_opening: lines of dialogues that do not begin with the task's description."""

    layout: Layout
    turns: Mapping[int, int]
    agent_turns: int
    without_prompt: int
    unanswered: int
    other_opening: Sequence[int]


@dataclass(frozen=True)
class Defect:
    """A defective row: its line, and the sentence that names it."""

    line: int
    sentence: str


@dataclass(frozen=True)
class Report:
    """Everything that was found. kinds: how many rows have the keys of which kind, "unknown" of none, "not JSON".

    half_characters: lines with lone surrogates, which are read as U+FFFD. equal_sides: lines of pairs that prefer a
    text to itself. candidates: number of candidates -> rows.
    """

    file: str
    kind: str | None
    rows: int
    kinds: Mapping[str, int]
    defects: Sequence[Defect]
    form: FileForm
    half_characters: Sequence[int]
    characters: Mapping[str, Lengths]
    tokens: Mapping[str, Lengths] | None
    rewards: Rewards | None
    tasks: TaskStatistics | None
    dialogues: DialogueStatistics | None
    equal_sides: Sequence[int] | None
    candidates: Mapping[int, int] | None

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object, with null for what a kind of row does not have."""
        return asdict(self)
