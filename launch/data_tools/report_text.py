"""The report on a file for display: aligned names and values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from colbench_env.samples import Layout
from launch.data_tools.report_data import DialogueStatistics, Lengths, Report, Rewards, TaskStatistics

MAX_LINES = 20  # line numbers in one list


def to_text(report: Report) -> str:
    """Format the report without its defects, which were named when they were found."""
    entries = list(_entries(report))
    width = max(len(name) for name, _ in entries)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in entries)


def _entries(report: Report) -> Iterator[tuple[str, str]]:
    yield "file", f"{report.file}, {report.form.bytes:,} bytes"
    yield "rows", f"{report.rows}, {report.kind or 'of no known kind'}, {len(report.defects)} defective"
    if len(report.kinds) > 1:
        yield "kinds by keys", _counts(report.kinds)
    yield from _form(report)
    if report.half_characters:
        yield "half characters, read as U+FFFD", _lines(report.half_characters)
    for unit, lengths in (("characters", report.characters), ("tokens", report.tokens or {})):
        for name, given in lengths.items():
            yield f"{unit}: {name}", _lengths(given)
    if report.tasks is not None:
        yield from _tasks(report.tasks)
    if report.dialogues is not None:
        yield from _dialogues(report.dialogues)
    if report.candidates is not None:
        yield "candidates a row", _histogram(report.candidates)
    if report.equal_sides is not None:
        yield "chosen equals rejected", _lines(report.equal_sides)
    if report.rewards is not None:
        yield "rewards", _rewards(report.rewards)


def _form(report: Report) -> Iterator[tuple[str, str]]:
    form = report.form
    mixed = " (mixed)" if len(form.line_ends) > 1 else ""
    extra = [
        *([f"{form.blank_lines} blank lines"] if form.blank_lines else []),
        *(["a byte order mark"] if form.byte_order_mark else []),
        *([] if form.ends_with_line_end else ["no line end after the last row"]),
    ]
    yield "line ends", "; ".join([(_counts(form.line_ends) or "none") + mixed, *extra])


def _tasks(tasks: TaskStatistics) -> Iterator[tuple[str, str]]:
    yield "different tasks", f"{tasks.different}, {tasks.with_reference} with a reference"
    if tasks.repeated:
        groups = [" = ".join(map(str, lines)) for lines in tasks.repeated[:MAX_LINES]]
        yield "tasks there more than once", f"{len(tasks.repeated)}: lines {', '.join(groups)}"
    if set(tasks.tests) - {0}:
        yield "tests a task", _histogram(tasks.tests)
        yield "two tests are the same call", _lines(tasks.repeated_calls)
    if tasks.with_hidden_information:
        differs = _lines(tasks.hidden_differs)
        yield "hidden information", f"{tasks.with_hidden_information} tasks; not the reference: {differs}"
    for flag, lines in tasks.flags.items():
        yield f"flagged {flag}", _lines(lines)
    if tasks.references is not None:
        yield "references", f"{tasks.references.tasks} run twice; calls: {_counts(tasks.references.calls)}"
        for verdict, lines in tasks.references.failing.items():
            yield f"  some call: {verdict}", _lines(lines)
        yield "  sandbox", tasks.references.layers.removeprefix("sandbox: ")


def _dialogues(dialogues: DialogueStatistics) -> Iterator[tuple[str, str]]:
    yield "layout of samples", _layout(dialogues.layout)
    yield "agent turns", f"{_histogram(dialogues.turns)}; {dialogues.agent_turns} in all"
    if dialogues.without_prompt:
        yield "turns without their prompt", str(dialogues.without_prompt)
    yield "without an answer", str(dialogues.unanswered)
    if dialogues.other_opening:
        yield "begin otherwise than the task", _lines(dialogues.other_opening)


def _layout(layout: Layout) -> str:
    if layout.kind == "irregular":
        location = f"row {layout.first_wrong} is not what the rows before it lead to expect"
        return f"irregular: {layout.tasks} tasks, at most {layout.samples} samples of one; {location}"
    return f"{layout.kind}, {layout.tasks} tasks, {layout.samples} of each"


def _lengths(lengths: Lengths) -> str:
    return f"{lengths.least:,} to {lengths.most:,}, median {lengths.median:,.0f} ({lengths.count:,})"


def _rewards(rewards: Rewards) -> str:
    between = rewards.counted - rewards.ones - rewards.zeros
    text = f"mean {rewards.mean:.3f}, {rewards.least:g} to {rewards.most:g}; 1: {rewards.ones}, 0: {rewards.zeros}"
    return f"{text}, other: {between}, none: {rewards.without}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _histogram(counts: Mapping[int, int]) -> str:
    """Format counts.

    In: {3: 20, 4: 1}   Out: "3 (20 times), 4 (once)"
    """
    return ", ".join(f"{number} ({'once' if count == 1 else f'{count} times'})" for number, count in counts.items())


def _lines(lines: Sequence[int]) -> str:
    """Format line numbers.

    In: [3, 9]   Out: "2: lines 3, 9"
    """
    if not lines:
        return "none"
    shown = ", ".join(map(str, lines[:MAX_LINES])) + (", ..." if len(lines) > MAX_LINES else "")
    return f"{len(lines)}: line{'s' if len(lines) > 1 else ''} {shown}"
