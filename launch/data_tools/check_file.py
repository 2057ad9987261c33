"""The path of `launch.data check` through a file: its form, then row by row, then the references of its tasks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from colbench_env.tasks import decode_line, holds_half_characters, scan_lines
from colbench_env.types import BadInput
from launch.common.console import Console
from launch.data_tools.config import CheckConfig, Kind
from launch.data_tools.report_data import Defect, FileForm, Report
from launch.data_tools.row_kinds import kind_of, read_row
from launch.data_tools.row_statistics import CountTokens, RowStatistics
from launch.data_tools.run_references import run_references

TASK_KINDS, PAIR_KINDS = ("backend", "frontend"), ("critic-pairs", "turn-pairs")


def check_file(config: CheckConfig, console: Console, on_defect: Callable[[str], None]) -> Report:
    """Check a file and report what it holds.

    on_defect: called with the sentence of each defective row as soon as it is known.
    Raises BadInput for a file that cannot be read or has no rows.
    """
    if config.file.exists() and not (config.file.is_file() or config.file.is_dir()):
        raise BadInput(f"{config.file}: is no file on a disk, expected one, as it is read several times")
    statistics = RowStatistics(token_counter(config.model) if config.model else None)
    kind = config.kind or first_kind(config.file)
    defects: list[Defect] = []

    def defect(number: int, sentence: str) -> None:
        defects.append(Defect(number, sentence))
        console.end_progress()
        on_defect(sentence)

    kinds = _read(config.file, kind, statistics, defect, console)
    references = None
    can_run = {line: task for line, task in statistics.tasks.items() if task.test_cases and task.ground_truth}
    if config.run and can_run:
        ran = run_references(can_run, config.workers, console)
        references = ran.references
        for line, flags in ran.flags.items():
            for flag in flags:
                statistics.flags[flag].append(line)
        for line, reason in ran.defects.items():
            for number in statistics.rows_of(line):
                defect(number, f"{config.file}:{number}: {reason}")
    has_tasks = kind in (*TASK_KINDS, "trajectories")
    return Report(
        file=str(config.file),
        kind=kind,
        rows=sum(kinds.values()),
        kinds=dict(sorted(kinds.items())),
        defects=defects,
        form=FileForm.of(config.file),
        half_characters=statistics.half_characters,
        characters=statistics.characters,
        tokens=statistics.tokens,
        rewards=statistics.rewards,
        tasks=statistics.task_statistics(kind in TASK_KINDS, references) if has_tasks else None,
        dialogues=statistics.dialogue_statistics() if kind == "trajectories" else None,
        equal_sides=statistics.equal_sides if kind in PAIR_KINDS else None,
        candidates=statistics.candidates if kind in ("candidates", "ranked") else None,
    )


def _read(
    path: Path, kind: Kind | None, statistics: RowStatistics, defect: Callable[[int, str], None], console: Console
) -> Counter[str]:
    """Collect the statistics of every readable row and name the others; count the rows of each kind by their keys."""
    kinds: Counter[str] = Counter()
    size = os.stat(path).st_size
    for line in scan_lines(path):
        keys = "not JSON"
        try:
            value = decode_line(line.content, line.location)
            keys = kind_of(value) or "unknown"
            if holds_half_characters(line.content):
                statistics.half_characters.append(line.number)
            statistics.add(line.number, read_row(value, kind, line.location))
        except BadInput as problem:
            statistics.add_unreadable()
            defect(line.number, str(problem))
        kinds[keys] += 1
        if kinds.total() % 1000 == 0:
            console.progress("reading", line.offset + len(line.content), size)
    console.end_progress()
    if not kinds:
        raise BadInput(f"{path}: the file has no rows, expected one JSON object a line")
    return kinds


def first_kind(path: Path) -> Kind | None:
    """Return the kind of the first row whose keys tell it, None if no row's do."""
    for line in scan_lines(path):
        try:
            if (kind := kind_of(decode_line(line.content, line.location))) is not None:
                return kind
        except BadInput:
            continue
    return None


def token_counter(model: Path) -> CountTokens:
    """Make a function from texts to their lengths in tokens of a Hugging Face directory, without special tokens."""
    from sweet_jax.data.chat import Chat

    tokenizer = Chat.load(model).tokenizer.backend_tokenizer

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return count
