"""The files of a view: found, read, joined. Every defect is one sentence with FILE:LINE."""

from __future__ import annotations

import contextlib
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from colbench_env.episodes import failures_file
from colbench_env.grade_file import grade_rows
from colbench_env.json_fields import read_number, read_object, read_required
from colbench_env.tasks import decode_line, scan_lines
from colbench_env.types import BadInput, BenchmarkName, Pair, Ranked, Row, Trajectory
from launch.common.benchmarks import Frontend
from launch.common.open_benchmark import open_benchmark
from launch.common.run_dir import TURNS_FILE, RunDir
from launch.common.settings import Design
from launch.viewer.config import ShowConfig
from launch.viewer.episodes import Episode, Joined, broken_episode, episode
from launch.viewer.turns import Picked, Ranking
from sweet_jax.data.token_rows import CHOSEN_TOKENS, REJECTED_TOKENS, TOKENS, row_from_json

RowT = TypeVar("RowT", bound=Row)


@dataclass(frozen=True)
class Group:
    """A file of trajectories, what is about it, and what it is called in permalinks."""

    name: str
    path: Path
    ranked: Path | None = None
    turn_pairs: Path | None = None
    pairs: Path | None = None
    baseline: str | None = None  # the name of another group
    truth: Path | None = None


@dataclass(frozen=True)
class Numbered:
    """A row, its line from 1 and its place, FILE:LINE."""

    line: int
    location: str
    row: Any


def find_groups(config: ShowConfig) -> list[Group]:
    """Find what there is to show. Raises BadInput where there is nothing."""
    run = None if config.run_dir is None else RunDir(config.run_dir)
    if run is not None and not run.path.is_dir():
        raise BadInput(f"{run.path}: no such directory, expected a folder of launch.train")

    def rows_of(stage: str, given: Path | None = None) -> Path | None:
        if given is not None or run is None:
            return given
        return file if (file := run.rows_file(stage)).exists() else None

    ranked, turn_pairs = rows_of("ranking", config.ranked), rows_of("turn-pairs", config.turn_pairs)
    pairs = rows_of("pairs", config.pairs)
    if config.trajectories is not None:
        baseline = "baseline" if config.baseline else None
        own = Group("episodes", config.trajectories, ranked, turn_pairs, pairs, baseline)
        return [own, Group("baseline", config.baseline)] if config.baseline else [own]
    assert run is not None  # `ShowConfig` asks for one of the two
    groups = []
    if graded := rows_of("grading"):
        truth = run.path / "truth" / TURNS_FILE
        groups.append(
            Group("training", graded, ranked, turn_pairs, pairs, truth=truth if ranked and truth.exists() else None)
        )
    elif played := rows_of("rollouts"):
        groups.append(Group("training", played))
    policies = [path.stem for path in sorted(run.evaluation_file("start").parent.glob("*.jsonl"))]
    policies = [name for name in policies if not name.endswith("_ungraded")]
    for name in policies:
        baseline = "start" if name != "start" and "start" in policies else None
        groups.append(Group(name, run.evaluation_file(name), baseline=baseline))
    if not groups:
        raise BadInput(f"{run.path}: no dialogues in it, expected grading/trajectories.jsonl or evaluation/*.jsonl")
    return groups


def read_numbered(path: Path, kind: type[RowT], limit: int = 0) -> list[Numbered]:
    """Read the rows of a file with their places, the first `limit` (0: all). Raises BadInput, also without a row."""
    rows = []
    for line in scan_lines(path):
        row = kind.from_json(decode_line(line.content, line.location), line.location)
        rows.append(Numbered(line.number, line.location, row))
        if len(rows) == limit:
            break
    if not rows:
        raise BadInput(f"{path}: the file has no rows, expected one JSON object a line")
    return rows


def read_episodes(
    config: ShowConfig, groups: Sequence[Group], progress: Callable[[str, int, int], None]
) -> list[Episode]:
    """Read all episodes of all groups, in order, a group's failures after its rows. Raises BadInput."""
    rows = {group.name: _trajectories(group.path, config.limit) for group in groups}
    if config.grade:
        rows = {name: _graded(found, config.design, functools.partial(progress, name)) for name, found in rows.items()}
    if config.pictures:
        rows = _pictured(rows, config.design, progress)
    episodes = []
    for group in groups:
        own = rows[group.name]
        others = _same_tasks(own, rows[group.baseline], group.baseline) if group.baseline else [None] * len(own)
        ranked, pairs = _ranked(group, own, config.limit), _trajectory_pairs(group, own)
        episodes += [
            episode(
                group.name, one.line, one.location, one.row, Joined(ranked[place], tuple(pairs[place]), others[place])
            )
            for place, one in enumerate(own)
        ]
        episodes += _failures(group, own, config.limit)
    return episodes


def _trajectories(path: Path, limit: int) -> list[Numbered]:
    """Read the rows of a file; [] for a missing or empty file whose episodes have all failed (`failures_file`)."""
    empty = not path.exists() or (path.is_file() and path.stat().st_size == 0)
    return [] if empty and failures_file(path).exists() else read_numbered(path, Trajectory, limit)


def _graded(rows: Sequence[Numbered], design: Design, progress: Callable[[int, int], None]) -> list[Numbered]:
    trajectories: Sequence[Trajectory] = [one.row for one in rows]
    for name in get_args(BenchmarkName):
        with open_benchmark(name, design) as benchmark:
            wanted = [
                (bool(row.task.test_cases) == benchmark.runs_answers and not benchmark.grading_error(row.task))
                and (row.reward is None or (benchmark.runs_answers and "tests" not in row.extra and _is_ours(row)))
                for row in trajectories
            ]
            if any(wanted):
                trajectories = grade_rows(trajectories, wanted, benchmark.grader, None, progress)
    return [replace(one, row=row) for one, row in zip(rows, trajectories, strict=True)]


def _is_ours(row: Trajectory) -> bool:
    """Return whether a reward is one of our graders' or nobody says whose: that of a plugin stays as it is."""
    return row.extra.get("grader", "strict") in ("strict", "official")


def _pictured(
    rows: dict[str, list[Numbered]], design: Design, progress: Callable[[str, int, int], None]
) -> dict[str, list[Numbered]]:
    from colbench_env.design.page_images import with_pictures

    with contextlib.closing(Frontend(design)) as frontend:
        for name, found in rows.items():
            for one in found:
                if reason := frontend.grading_error(one.row.task):
                    raise BadInput(f"{one.location}: --pictures: {reason}")
            report = functools.partial(progress, f"pictures: {name}")
            pictured = with_pictures([one.row for one in found], frontend.renderer, report)
            rows[name] = [replace(one, row=row) for one, row in zip(found, pictured, strict=True)]
    return rows


def _ranked(group: Group, rows: Sequence[Numbered], limit: int) -> list[dict[int, Ranking]]:
    """Return for each trajectory turn -> what was ranked in its place. Raises BadInput."""
    found: list[dict[int, Ranking]] = [{} for _ in rows]
    if group.ranked is None:
        return found
    picks, truths = _picks(group.turn_pairs), _truths(group.truth)
    for position, one in enumerate(read_numbered(group.ranked, Ranked)):
        extra = one.row.candidates.extra
        index, turn = extra.get("trajectory"), extra.get("turn")
        if not isinstance(index, int) or not isinstance(turn, int):
            raise BadInput(f"{one.location}: 'trajectory' or 'turn' is no number, expected a ranked row of ours")
        if limit and index >= limit:
            continue
        if not 0 <= index < len(rows) or not 1 <= turn <= len(rows[index].row.agent_turns):
            what = f"turn {turn} of trajectory {index}"
            raise BadInput(f"{one.location}: {what} is not in {group.path}, expected the file that was ranked")
        messages, history = one.row.candidates.messages, rows[index].row.dialogue_history
        if [m.content for m in messages] != [m.content for m in history[: len(messages)]]:
            raise BadInput(
                f"{one.location}: the dialogue is not that of {rows[index].location}, expected the file that was ranked"
            )
        picked = None if picks is None else tuple(picks.get(position, ()))
        found[index][turn] = Ranking(one.location, one.row, picked, truths.get(position, {}))
    return found


def _truths(path: Path | None) -> dict[int, Mapping[str, Any]]:
    """Return place of the ranked row -> what stage truth says of its candidates. Raises BadInput."""
    lines = scan_lines(path) if path is not None else ()
    rows = [(line.location, read_object(decode_line(line.content, line.location), line.location)) for line in lines]
    return {int(read_number(read_required(row, "position", location), location)): row for location, row in rows}


def _picks(path: Path | None) -> dict[int, list[Picked]] | None:
    """Return place of the ranked row -> its turn pairs; None where pairs or picks are not recorded."""
    if path is None:
        return None
    found = defaultdict(list)
    for one in read_numbered(path, Pair):
        picked, position = one.row.extra.get("picked"), one.row.extra.get("position")
        if picked is None or position is None:
            return None
        two = isinstance(picked, list) and len(picked) == 2 and all(isinstance(i, int) and i >= 0 for i in picked)
        if not (two and isinstance(position, int)):
            raise BadInput(f"{one.location}: 'picked' and 'position' are no pair of numbers and a number")
        chosen, rejected = picked
        found[position].append(Picked(one.location, chosen, rejected, one.row))
    return found


def _trajectory_pairs(group: Group, rows: Sequence[Numbered]) -> list[list[tuple[str, str, Pair]]]:
    """Return for each trajectory the trajectory pairs in which its sampled ids stand. Raises BadInput."""
    found: list[list[tuple[str, str, Pair]]] = [[] for _ in rows]
    if group.pairs is None:
        return found
    places = defaultdict(list)
    for place, one in enumerate(rows):
        if TOKENS in one.row.extra:
            places[one.row.task.task_id, _without_prefix(one.row.extra[TOKENS], one.location)].append(place)
    for one in read_numbered(group.pairs, Pair):
        extra = one.row.extra
        if "task" not in extra or CHOSEN_TOKENS not in extra or REJECTED_TOKENS not in extra:
            continue  # a pair of another tool: nothing says which episode it is of
        for side, key in (("chosen", CHOSEN_TOKENS), ("rejected", REJECTED_TOKENS)):
            for place in places.get((extra["task"], _without_prefix(extra[key], one.location)), ()):
                found[place].append((one.location, side, one.row))
    return found


def _without_prefix(tokens: Any, location: str) -> tuple[int, ...]:
    """Return the ids behind begin-of-text and privileged text: the same for a dialogue and for a pair's side of it."""
    row = row_from_json(tokens, location)
    return tuple(row.ids[row.prefix :].tolist())


def _same_tasks(rows: Sequence[Numbered], others: Sequence[Numbered], name: str) -> list[tuple[str, int] | None]:
    """Return for each row the place of the other policy's episode about its task: first for first, and so on."""
    waiting = defaultdict(list)
    for other in others:
        waiting[other.row.task.problem_description].append((name, other.line))
    places = (waiting[one.row.task.problem_description] for one in rows)
    return [same.pop(0) if same else None for same in places]


def _failures(group: Group, rows: Sequence[Numbered], limit: int) -> list[Episode]:
    """Read the episodes that the machine spoilt, from the file of failures. Their lines follow the group's last."""
    path = failures_file(group.path)
    found: list[Episode] = []
    if not path.exists():
        return []
    last = rows[-1].line if rows else 0
    for line in scan_lines(path):
        record: Any = decode_line(line.content, line.location)
        try:
            found.append(broken_episode(group.name, last + line.number, line.location, record))
        except (KeyError, TypeError, IndexError, AttributeError):
            raise BadInput(f"{line.location}: no record of a failed episode, expected 'error' and 'messages'") from None
        if len(found) == limit:
            break
    return found
