"""The report of `launch.evaluate` as text: sections of aligned lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from colbench_env.simulator_health import OVERLAP, SimulatorHealth
from colbench_env.statistics import Bin, Difference
from colbench_env.terminal_text import printable_line, shorten
from launch.evaluation.report_data import BASELINE, Evaluation
from launch.reporting.metric_names import duration, p_value, percent, points, share
from launch.reporting.paper_numbers import PAPER
from launch.reporting.result_tables import TableRow, result_rows, verdict_rows

BAR = 30  # characters of the longest bar

Rows = Sequence[tuple[str, ...]]


def report_text(evaluation: Evaluation) -> str:
    """Format the whole report."""
    names = list(evaluation.results.policies)
    difference = evaluation.results.difference
    heads = ("", *names, *(("difference",) if difference else ()))
    sections = [
        (conclusion(evaluation), ()),
        ("To be known first", [(note,) for note in evaluation.notes]),
        ("", [heads, *_cells(result_rows(evaluation.results), difference is not None)]),
        ("Baseline", comparison_rows(difference) if difference else ()),
        ("Parts", part_rows(evaluation) if len(evaluation.parts) > 1 else ()),
        ("Flagged tasks", flag_rows(evaluation)),
        ("Best of k samples", best_rows(evaluation)),
        (
            evaluation.results.metric_names.verdicts,
            _headed(heads[: len(names) + 1], _cells(verdict_rows(evaluation.results), False)),
        ),
        ("Turns", turn_rows(evaluation)),
        (f"Length of a turn, {evaluation.lengths.unit}", _bars(evaluation.lengths.bins)),
        ("Simulated human", health_rows(evaluation.simulator)),
        (f"Beside the paper ({PAPER[evaluation.results.benchmark].title})", paper_rows(evaluation)),
        ("What differs from the paper", [(text,) for text in evaluation.differences_to_paper]),
        ("How it was made", making_rows(evaluation)),
    ]
    texts = [_section(title, rows) for title, rows in sections if title or rows]
    return "\n\n".join(text for text in texts if text)


def conclusion(evaluation: Evaluation) -> str:
    """State the two figures, and of how many tasks, in one sentence."""
    found, change = evaluation.evaluated, evaluation.results.difference
    if not found.tasks:
        return f"None of the {found.dialogues} dialogues has a reward: there is nothing to say of their success."
    metric_names = evaluation.results.metric_names
    text = f"Success {share(found.success)}, {share(found.reward)} of the tests passed"
    if metric_names.headline == "reward":
        text = f"{metric_names.headline_name} {share(found.reward, '')}, {share(found.success)} {metric_names.success}"
    text += f": {found.tasks} tasks, {found.dialogues - found.excluded} dialogues"
    if change is not None and change.tasks:
        changed, p = getattr(change, metric_names.headline), getattr(change, f"p_{metric_names.headline}")
        text += f"; {metric_names.headline_name.lower()} {points(changed)} against the baseline, {p_value(p)}"
        if metric_names.headline == "reward":
            text += f", win rate {share(change.wins)}"
    return text + "."


def comparison_rows(change: Difference) -> Rows:
    """List how the tasks of the two files overlap."""
    return [
        ("tasks in both", str(change.tasks)),
        ("tasks in the baseline only", str(change.only_before)),
        ("tasks in the evaluated file only", str(change.only_after)),
        ("tasks solved more often", str(change.gained)),
        ("tasks solved less often", str(change.lost)),
    ]


def part_rows(evaluation: Evaluation) -> Rows:
    """List the figures of parts of the dialogues."""
    metric_names, parts = evaluation.results.metric_names, evaluation.parts
    head = ("dialogues", metric_names.reward, metric_names.success, "tasks")
    return [head, *((p.name, share(p.reward, metric_names.unit), share(p.success), str(p.tasks)) for p in parts)]


def flag_rows(evaluation: Evaluation) -> Rows:
    """Count the tasks by flag."""
    return [(flag, str(count)) for flag, count in evaluation.flags.items()]


def best_rows(evaluation: Evaluation) -> Rows:
    """List pass@k and best-of-k."""
    metric_names = evaluation.results.metric_names
    head = ("k", f"best-of-k, {metric_names.reward}", "pass@k", "tasks")
    found = [(str(b.k), share(b.reward, metric_names.unit), share(b.success), str(b.tasks)) for b in evaluation.best_of]
    return [head, *found] if found else []


def turn_rows(evaluation: Evaluation) -> Rows:
    """List dialogues, and the benchmark's headline figure, by the number of agent turns."""
    counts, metric_names = evaluation.evaluated.by_turns, evaluation.results.metric_names
    most = max(count.dialogues for count in counts)
    return [
        ("turns", "dialogues", metric_names.headline_name.lower(), ""),
        *(
            (
                str(count.turns),
                str(count.dialogues),
                percent(count.share(metric_names.headline), metric_names.headline_unit),
                _bar(count.dialogues, most),
            )
            for count in counts
        ),
    ]


def health_rows(health: SimulatorHealth) -> Rows:
    """List rates over the replies of the user simulator."""
    rows = [("simulator", f"{shorten(name, 120)} ({count} dialogues)") for name, count in health.simulators.items()]
    if not health.replies:
        return [*rows, ("replies", "none")]

    def rate(count: int, of: int = health.replies) -> str:
        return f"{count} of {of} ({percent(count / of)})"

    rows += [
        ("empty replies", rate(health.empty)),
        ('failed replies, as "No response."', rate(health.failed)),
        ("dialogues with such replies", rate(health.spoilt, health.dialogues)),
        ('"I don\'t know" and its like', rate(health.unknown)),
        ("cut at the limit of characters", rate(health.truncated)),
        ("leaks", rate(health.leaks)),
        ("  code fences", rate(health.fenced)),
        ("  function definitions", rate(health.definitions)),
    ]
    overlap = rate(health.overlaps, health.compared) if health.compared else "n/a: no reference is known"
    rows.append((f"  {OVERLAP} words and signs of the reference", overlap))
    rare = [
        ("leaks taken out of a reply", health.leaks_removed),
        ("thoughts taken out of a reply", health.thoughts_removed),
        ("asked again for all was thought", health.thoughts_unfinished),
        ("thoughts that the agent could read", health.thoughts_shown),
    ]
    return rows + [(name, str(count)) for name, count in rare if count]


def paper_rows(evaluation: Evaluation) -> Rows:
    """List the paper's policies, blind guessing and these dialogues."""
    table = PAPER[evaluation.results.benchmark]
    rows = [("", *table.heads), *((row.policy, f"{row.first:.1f}", f"{row.second:.1f}") for row in table.rows)]
    return [*rows, *own_rows(evaluation)]


def own_rows(evaluation: Evaluation) -> Rows:
    """List the rows of this evaluation in the paper's table, in per cent."""
    chance = evaluation.chance
    figures = ("n/a", "n/a") if chance is None else (f"{100 * x:.1f}" for x in (chance.reward, chance.success))
    rows = [] if evaluation.results.benchmark == "frontend" else [("chance level", *figures)]
    for name, summary in evaluation.results.policies.items():
        if summary.tasks:
            label = "baseline" if name == BASELINE else "these dialogues"
            second = summary.success.mean if evaluation.results.benchmark == "backend" else _wins(evaluation, name)
            rows.append((label, f"{100 * summary.reward.mean:.1f}", percent(second, "")))
    return rows


def _wins(evaluation: Evaluation, name: str) -> float:
    """Return the win rate against the baseline: 0.5 for the baseline itself, NaN without one."""
    if name == BASELINE:
        return 0.5
    change = evaluation.results.difference
    return math.nan if change is None else change.wins.mean


def making_rows(evaluation: Evaluation) -> Rows:
    """List where the figures come from."""
    layout = evaluation.layout
    shape = f"{layout.tasks} tasks, {layout.samples} samples of each, {layout.kind}"
    if layout.samples == 1:
        shape = f"{layout.tasks} tasks, one dialogue about each"
    if layout.first_wrong is not None:
        shape = (
            f"{layout.tasks} tasks, at most {layout.samples} samples of one, irregular from row {layout.first_wrong}"
        )
    kept = [f"{count} kept from the file (grader {grader})" for grader, count in evaluation.kept.items()]
    rewards = ", ".join([f"{evaluation.graded} graded here", *kept])
    length = f"{evaluation.lengths.total:,} {evaluation.lengths.unit} in all"
    if evaluation.lengths.unit != "tokens":
        length += "; rows without token counts: --model=DIR counts them"
    excluded = ", ".join(f"{count}: {reason}" for reason, count in evaluation.excluded.items()) or "none"
    return [
        ("file", evaluation.source),
        ("layout", shape),
        ("rewards", rewards),
        ("dialogues without a reward", excluded),
        ("defects in the input", str(len(evaluation.defects))),
        ("grader", f"{evaluation.grader}, python {evaluation.python}"),
        ("sandbox", evaluation.sandbox),
        ("agent's turns", length),
        ("time", duration(evaluation.seconds)),
    ]


def bin_name(part: Bin) -> str:
    """Format the limits of a bin.

    In: Bin(1000, 1999, 3)   Out: "1,000-1,999"
    """
    return f"{part.low:,}" if part.low == part.high else f"{part.low:,}-{part.high:,}"


def _bars(bins: Sequence[Bin]) -> Rows:
    most = max((part.count for part in bins), default=1)
    return [(bin_name(part), str(part.count), _bar(part.count, most)) for part in bins]


def _bar(count: int, most: int) -> str:
    return "█" * round(BAR * count / most) or ("▏" if count else "")


def _cells(lines: Iterable[TableRow], with_difference: bool) -> Rows:
    return [(line.name, *line.cells, *((line.difference,) if with_difference else ())) for line in lines]


def _headed(head: tuple[str, ...], rows: Rows) -> Rows:
    return [head, *rows] if rows else []


def _section(title: str, rows: Rows) -> str:
    """Format a title and aligned columns; return "" for a section without rows, unless its title is a sentence."""
    if not rows:
        return title if title.endswith(".") else ""
    rows = [tuple(map(printable_line, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(max(map(len, rows)))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in rows]
    return "\n".join([title, *lines] if title else lines)
