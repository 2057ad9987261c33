"""Stage truth: what the critic's scores are worth, counted by playing on from the candidates of some positions."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from colbench_env.critic_truth import JudgedTurns, judge_critic
from colbench_env.episodes import Settings
from colbench_env.humans.scripted import ScriptedSimulator, read_facts
from colbench_env.replace_file import replace_file
from colbench_env.rollouts import play_into
from colbench_env.tasks import read_complete, read_rows
from colbench_env.turn_kinds import turn_kind
from colbench_env.types import Ranked, Trajectory
from launch.common.files import write_json
from launch.common.run_dir import TURNS_FILE
from launch.training.run import Run
from launch.training.stages.playing import longest_prompt
from launch.training.stages.ranking import find_positions
from sweet_jax import processes
from sweet_jax.rollout.agent import EngineGenerator, EpisodeRunner
from sweet_jax.rollout.candidates import Position
from sweet_jax.rollout.continuations import play_on

Job = tuple[Position, tuple[int, ...], int]  # the position, the candidate's ids, the continuation's number


def truth(run: Run) -> dict[str, Any]:
    """Compare the critic's scores of the candidates with what playing on from them is worth, and with their kinds."""
    human = run.benchmark.human(run.config.simulator)
    assert isinstance(human, ScriptedSimulator)  # which the configuration sees to
    folder, ranked = run.directory.stage("truth"), read_rows(run.directory.rows_file("ranking"), Ranked)
    positions = find_positions(run, [row.candidates for row in ranked], "--truth.positions")
    for position in positions:
        read_facts(position.trajectory.task)
    chosen = _spread(len(ranked), run.config.truth.positions)
    jobs = [
        (positions[place], ids, number)
        for place in chosen
        for ids in _different(ranked[place])
        for number in range(run.config.truth.continuations)
    ]
    path = folder / "continuations.jsonl"
    done = processes.broadcast_from_process_0(lambda: [_key_of(row) for row in read_complete(path, Trajectory)])
    known = set(done)
    missing = [job for job in jobs if _key(job) not in known]
    settings = Settings(
        run.config.rollouts.max_turns, run.benchmark.rules, run.system, seed=run.config.seed, agent_name="start"
    )
    engine = run.lockstep_engine(run.start_params)
    generator = EngineGenerator(engine, run.sampling(run.config.rollouts.temperature))
    runner = EpisodeRunner(run.chat, generator, human, settings, longest_prompt(run))
    counted = len(jobs) - len(missing)

    async def play(position: Position, ids: tuple[int, ...], number: int) -> Trajectory:
        row = await play_on(runner, position, ids, number)
        return replace(row, extra=row.extra | {"continues": _key((position, ids, number))})

    def on_done(_: object) -> None:
        nonlocal counted
        counted += 1
        run.console.progress("truth", counted, len(jobs))

    output = path if processes.is_process_0() else None
    asyncio.run(play_into(output, missing, play, run.config.rollouts.rows, on_done))
    return processes.broadcast_from_process_0(lambda: _compare(run, ranked, positions, frozenset(chosen), human))


def _compare(
    run: Run,
    ranked: Sequence[Ranked],
    positions: Sequence[Position],
    chosen: Collection[int],
    human: ScriptedSimulator,
) -> dict[str, Any]:
    """Grade the continuations, and write what they say of the scores. Returns the note of the stage.

    Kinds of turns are compared in all positions, values in the chosen ones, which were played on from.
    """
    folder = run.directory.stage("truth")
    rows = read_rows(folder / "continuations.jsonl", Trajectory)
    success = _successes(run, rows)
    count, last = run.config.truth.continuations, run.config.rollouts.max_turns
    judged: dict[str, list[JudgedTurns]] = {name: [] for name in _scores_of(ranked[0])}
    turns: list[dict[str, Any]] = []
    for number, (row, position) in enumerate(zip(ranked, positions, strict=True)):
        place, task, different = row.candidates.extra, position.trajectory.task, _different(row)
        ids_of = [tuple(ids) for ids in place["output_ids"]]
        texts = dict(zip(ids_of, row.candidates.additional_outputs, strict=True))
        messages, is_last = row.candidates.messages, place["turn"] == last
        kinds = tuple(turn_kind(task, messages, texts[ids], human.keywords, is_last) for ids in different)
        worth = [
            [success[_key((position, ids, continuation))] for continuation in range(count)]
            for ids in (different if number in chosen else ())
        ]
        values = tuple(float(np.mean(each)) for each in worth)
        of_turns: dict[str, dict[Any, Any]] = {"kinds": dict(zip(different, kinds, strict=True))}
        if worth:
            of_turns["values"] = dict(zip(different, values, strict=True))
        turns.append({"position": number} | {name: [of[ids] for ids in ids_of] for name, of in of_turns.items()})
        halves = [tuple(float(np.mean(each[part::2])) for each in worth) for part in (0, 1)] if worth else None
        for name, scores_of in _scores_of(row).items():
            scores = dict(zip(ids_of, scores_of, strict=True))
            by_candidate = tuple(scores[ids] for ids in different)
            judged[name].append(
                JudgedTurns(
                    task.task_id, place["turn"], kinds, by_candidate, values, (halves[0], halves[1]) if halves else None
                )
            )
    truths = {name: judge_critic(positions) for name, positions in judged.items()}
    lines = "".join(json.dumps(row) + "\n" for row in turns)
    with replace_file(folder / TURNS_FILE) as file:
        file.write(lines.encode())
    write_json(folder / "truth.json", {name: truth.to_json() for name, truth in truths.items()})
    truth = truths["score"]
    figures = {
        "rank_correlation": truth.rank_correlation.mean,
        "reliability": truth.reliability.mean,
        "hidden_over_not_hidden": truth.preferences["hidden over not hidden"].mean,
        "right_answer_over_question": truth.preferences["right answer over any question"].mean,
    }
    known = {name: value for name, value in figures.items() if not math.isnan(value)}
    return {"positions": len(chosen), "continuations": len(rows), **known}


def _successes(run: Run, rows: Sequence[Trajectory]) -> dict[str, float]:
    """Grade the continuations, equal answers once: which of them succeeds."""
    different = {(row.task.task_id, row.answer): (row.task, row.answer) for row in rows}
    grades = run.benchmark.grader.grade_many(list(different.values()))
    success = {key: float(grade.success) for key, grade in zip(different, grades, strict=True)}
    return {_key_of(row): success[row.task.task_id, row.answer] for row in rows}


def _scores_of(row: Ranked) -> dict[str, Sequence[float]]:
    """Return what the candidates are ranked by, and its parts where the critic has them (`ranking.TurnScore`)."""
    extra = row.candidates.extra
    return {"score": row.judge_result} | {name: extra[name] for name in ("learned", "pmi") if name in extra}


def _spread(count: int, wanted: int) -> list[int]:
    """Choose numbers evenly spread over `count` ones, all where no fewer are wanted."""
    if wanted >= count:
        return list(range(count))
    return [int(place) for place in np.linspace(0, count - 1, wanted)]


def _different(row: Ranked) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(tuple(ids) for ids in row.candidates.extra["output_ids"]))


def _key(job: Job) -> str:
    position, ids, number = job
    return f"{position.index} {position.turn} {number} {' '.join(map(str, ids))}"


def _key_of(row: Trajectory) -> str:
    return row.extra["continues"]
