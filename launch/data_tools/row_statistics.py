"""Collects the facts of rows while they pass, one at a time; keeps of them only numbers and the different tasks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from colbench_env.flags import source_flags
from colbench_env.samples import layout_of
from colbench_env.types import NO_ANSWER, Candidates, Pair, Ranked, Row, Task, Trajectory
from launch.data_tools.report_data import DialogueStatistics, Lengths, References, Rewards, TaskStatistics

CountTokens = Callable[[Sequence[str]], list[int]]


class RowStatistics:
    """The facts of the rows that were added. count_tokens: lengths in tokens of texts, None to count none."""

    def __init__(self, count_tokens: CountTokens | None):
        self.tasks: dict[int, Task] = {}  # line of its first row -> task
        self.flags: dict[str, list[int]] = defaultdict(list)
        self.half_characters: list[int] = []
        self._lines: dict[str, list[int]] = {}  # task id -> lines
        self._row_tasks: list[str | None] = []
        self._count_tokens = count_tokens
        self._characters: dict[str, list[int]] = defaultdict(list)
        self._tokens: dict[str, list[int]] = defaultdict(list)
        self._rewards: list[float | None] = []
        self._turns: Counter[int] = Counter()
        self._without_prompt = self._unanswered = 0
        self._other_opening: list[int] = []
        self._equal_sides: list[int] = []
        self._candidates: Counter[int] = Counter()

    def add(self, line: int, row: Row) -> None:
        """Add a row."""
        row = row.candidates if isinstance(row, Ranked) else row
        named = list(_texts(row))
        for name, text in named:
            self._characters[name].append(len(text))
        if self._count_tokens is not None:
            for (name, _), length in zip(named, self._count_tokens([text for _, text in named]), strict=True):
                self._tokens[name].append(length)
        match row:
            case Task():
                self._add_task(line, row)
            case Trajectory():
                self._add_task(line, row.task)
                self._add_dialogue(line, row)
            case Pair() if row.chosen == row.rejected:
                self._equal_sides.append(line)
            case Candidates():
                self._rewards.append(row.reward)
                self._candidates[len(row.additional_outputs)] += 1

    def add_unreadable(self) -> None:
        """Note that there is a row here, whatever its task."""
        self._row_tasks.append(None)

    def rows_of(self, line: int) -> list[int]:
        """Return the lines of all rows of the task whose first row is in this line."""
        return self._lines[self.tasks[line].task_id]

    def _add_task(self, line: int, task: Task) -> None:
        task_id = task.task_id
        self._row_tasks.append(task_id)
        if task_id not in self._lines:
            self.tasks[line] = task
            for flag in source_flags(task):
                self.flags[flag].append(line)
        self._lines.setdefault(task_id, []).append(line)

    def _add_dialogue(self, line: int, trajectory: Trajectory) -> None:
        turns = trajectory.agent_turns
        self._turns[len(turns)] += 1
        self._rewards.append(trajectory.reward)
        self._without_prompt += sum(turn.input is None for turn in turns)
        self._unanswered += trajectory.answer == NO_ANSWER
        if trajectory.dialogue_history[0].content != trajectory.task.problem_description:
            self._other_opening.append(line)

    # --- what was found ----------------------------------------------------------------------------------------------

    @property
    def characters(self) -> dict[str, Lengths]:
        return {name: Lengths.of(lengths) for name, lengths in self._characters.items()}

    @property
    def tokens(self) -> dict[str, Lengths] | None:
        if self._count_tokens is None:
            return None
        return {name: Lengths.of(lengths) for name, lengths in self._tokens.items()}

    @property
    def rewards(self) -> Rewards | None:
        return Rewards.of(self._rewards)

    @property
    def equal_sides(self) -> list[int]:
        return self._equal_sides

    @property
    def candidates(self) -> dict[int, int]:
        return dict(sorted(self._candidates.items()))

    def dialogue_statistics(self) -> DialogueStatistics:
        """Return the statistics of a file of trajectories."""
        return DialogueStatistics(
            layout=layout_of(self._row_tasks),
            turns=dict(sorted(self._turns.items())),
            agent_turns=sum(turns * count for turns, count in self._turns.items()),
            without_prompt=self._without_prompt,
            unanswered=self._unanswered,
            other_opening=self._other_opening,
        )

    def task_statistics(self, in_tasks_file: bool, references: References | None) -> TaskStatistics:
        """Return the statistics of the different tasks, with the results of running their references."""
        hidden = {line: task for line, task in self.tasks.items() if task.hidden_information is not None}
        return TaskStatistics(
            different=len(self.tasks),
            repeated=[lines for lines in self._lines.values() if len(lines) > 1] if in_tasks_file else [],
            with_reference=sum(bool(task.ground_truth) for task in self.tasks.values()),
            tests=dict(sorted(Counter(len(task.test_cases) for task in self.tasks.values()).items())),
            repeated_calls=[line for line, task in self.tasks.items() if _repeats_a_call(task.test_cases)],
            with_hidden_information=len(hidden),
            hidden_differs=[line for line, task in hidden.items() if task.hidden_information != task.ground_truth],
            flags={flag: sorted(set(lines)) for flag, lines in sorted(self.flags.items())},
            references=references,
        )


def _repeats_a_call(test_cases: Mapping[str, str]) -> bool:
    return len({call.strip() for call in test_cases.values()}) < len(test_cases)


def _texts(row: Row) -> Iterator[tuple[str, str]]:
    """Yield every text of a row whose length is of interest, with the name under which it is counted."""
    match row:
        case Task():
            yield "description", row.problem_description
            if row.ground_truth:
                yield "reference", row.ground_truth
        case Trajectory():
            for message in row.dialogue_history[1:]:
                yield ("agent turn" if message.role == "assistant" else "human reply"), message.content
            yield "dialogue", "\n".join(message.content for message in row.dialogue_history)
            yield "answer", row.answer
        case Pair():
            yield "chosen", row.chosen
            yield "rejected", row.rejected
        case Candidates():
            yield "input", row.input
            yield "older output", row.older_output
            for output in row.additional_outputs:
                yield "candidate", output
