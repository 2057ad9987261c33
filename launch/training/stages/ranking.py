"""Stages candidates, ranking and turn-pairs: better and worse turns in the same place (section 4.2)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from colbench_env.dialogue import Episode
from colbench_env.episodes import Settings, seed_of, user_turn
from colbench_env.tasks import read_located_rows, read_rows
from colbench_env.types import BadInput, Candidates, Pair, Ranked, Trajectory
from launch.common.run_dir import append_rows, resume_rows, write_rows
from launch.training.run import Run
from launch.training.stages.critic import critic_params
from launch.training.stages.learning import check_pair, shows_reference
from sweet_jax.data.chat import Chat, privileged_prefix
from sweet_jax.data.token_rows import (
    CHOSEN_TOKENS,
    REJECTED_TOKENS,
    check_row,
    pair_rows,
    row_from_json,
    row_to_json,
    trajectory_row,
)
from sweet_jax.plugins import load_plugins
from sweet_jax.ranking import Turn, TurnScore, TurnScorer, attach_scores, pair_turns
from sweet_jax.rollout.candidates import Position, list_positions, sample_positions
from sweet_jax.untrained_critics import score_by_belief, score_by_judge

WRITTEN = 32  # positions that are written, and lost by a kill, together
TURN_IDS = {"prompt_ids", "output_ids", "prefix_length"}  # of candidates, in a row's extra keys


def candidates(run: Run) -> dict[str, Any]:
    """16 turns of the start policy in every position of the first `data_fraction` of the trajectories."""
    if run.config.candidates is not None:
        return _given_candidates(run, run.config.candidates)
    settings = run.config.ranking
    path = run.directory.rows_file("grading")
    located = select_first(read_located_rows(path, Trajectory), settings.data_fraction)
    rows = [trajectory_row(found.row, run.chat, run.system, found.location) for found in located]
    for found, row in zip(located, rows, strict=True):
        check_row(row, run.llama_config.vocab_size, found.location)
    positions = list_positions([found.row for found in located], rows)
    target = run.directory.stage("candidates") / "candidates.jsonl"
    done = resume_rows(target, Candidates)
    sampled = sample_positions(
        run.lockstep_engine(run.start_params),
        positions[done:],
        chat=run.chat,
        sampling=run.sampling(run.config.rollouts.temperature),
        num_candidates=settings.candidates,
        seed=run.config.seed,
        privileged=shows_reference(run),
    )
    while part := list(itertools.islice(sampled, WRITTEN)):
        append_rows(target, part)
        done += len(part)
        run.console.progress("candidates", done, len(positions))
    total = len(positions) * settings.candidates
    return {"trajectories": len(located), "positions": len(positions), "candidates": total}


def select_first(rows: Sequence[Any], data_fraction: float) -> Sequence[Any]:
    """Select the first rows, at least one: the trajectories in whose turns candidates are sampled."""
    return rows[: max(1, round(data_fraction * len(rows)))]


def _given_candidates(run: Run, path: Path) -> dict[str, Any]:
    """Candidates of a file, with token ids where they are text. BadInput where the privileged text is missing."""
    rows, chat = [], run.chat
    for found in read_located_rows(path, Candidates):
        row, location = found.row, found.location
        if len(row.additional_outputs) < 2:
            raise BadInput(f"{location}: {len(row.additional_outputs)} candidates, expected at least 2 to compare")
        if not row.input_with_ground_truth.endswith(row.input):
            raise BadInput(f"{location}: 'input_with_ground_truth' does not end with 'input', expected text before it")
        if shows_reference(run) and row.input_with_ground_truth == row.input:
            row = replace(row, input_with_ground_truth=privileged_prefix(row.ground_truth) + row.input)
        if not shows_reference(run):
            row = replace(row, input_with_ground_truth=row.input)
        extra = row.extra | ({} if TURN_IDS <= row.extra.keys() else _turn_ids(row, chat, location))
        _check_turn_ids(extra, len(row.additional_outputs), run.llama_config.vocab_size, location)
        try:
            _played(run, row)
        except BadInput as error:
            raise BadInput(f"{location}: 'older_output': {error}") from error
        rows.append(replace(row, extra=extra))
    write_rows(run.directory.stage("candidates") / "candidates.jsonl", rows)
    return {"positions": len(rows), "candidates": sum(len(row.additional_outputs) for row in rows), "from": str(path)}


def _turn_ids(row: Candidates, chat: Chat, location: str) -> dict[str, Any]:
    """Give the token ids of candidates that are text."""
    try:
        prompt = chat.text_prompt_ids(row.input)
    except BadInput as error:
        raise BadInput(f"{location}: 'input': {error}") from error
    try:
        outputs = [chat.text_turn_ids(output) for output in row.additional_outputs]
    except BadInput as error:
        raise BadInput(f"{location}: 'additional_outputs': {error}") from error
    return {"prompt_ids": prompt, "output_ids": outputs, "prefix_length": int(prompt[0] == chat.bos_id)}


def _check_turn_ids(extra: dict[str, Any], count: int, vocab_size: int, location: str) -> None:
    """Raise BadInput where the token ids of candidates cannot be read or are not those of `count` candidates."""
    prompt, outputs = extra["prompt_ids"], extra["output_ids"]
    if not isinstance(prompt, list) or not isinstance(outputs, list) or not all(isinstance(o, list) for o in outputs):
        raise BadInput(f"{location}: 'prompt_ids' and 'output_ids' are no lists of token ids")
    if len(outputs) != count:
        raise BadInput(
            f"{location}: 'output_ids' has {len(outputs)} turns for {count} candidates in 'additional_outputs'"
        )
    for number, output in enumerate(outputs):
        spans = [[1, len(prompt), len(prompt) + len(output)]]
        place = f"{location}: candidate {number + 1}"
        row = row_from_json({"ids": prompt + output, "spans": spans, "prefix": extra["prefix_length"]}, place)
        check_row(row, vocab_size, place)


def ranking(run: Run) -> dict[str, Any]:
    """Give every candidate, and the turn that was played, the critic's advantage."""
    found = read_rows(run.directory.rows_file("candidates"), Candidates)
    if not shows_reference(run):  # whoever made the candidates
        found = [replace(row, input_with_ground_truth=row.input) for row in found]
    turns = [Turn(place, tuple(ids)) for place, row in enumerate(found) for ids in row.extra["output_ids"]]
    played = [Turn(place, tuple(_played(run, row))) for place, row in enumerate(found)]
    score = make_scorer(run, run.directory.stage("ranking"))
    scores = score(found, turns)
    keeps_older = run.config.critic.parameterisation != "plugin"  # which has no log-ratios to keep
    older = score(found, played, name="older") if keeps_older else []
    write_rows(run.directory.stage("ranking") / "ranked.jsonl", attach_scores(found, scores, played, older))
    return {"positions": len(found), "scored": len({(turn.position, turn.ids) for turn in turns})}


def make_scorer(
    run: Run, cache_dir: Path | None, batch_size: int = 0, quiet: bool = False, parts: bool = True
) -> Callable[..., list[TurnScore]]:
    """Return (rows, turns, name="") -> the critic's score of every turn; pmi where no critic could be trained.

    batch_size: rows scored together; 0: four training batches. quiet: no progress is told. parts: the parts of a score
    are wanted too, where they cost more (`TurnScorer.score`).
    """
    settings = run.config.critic
    scorer = TurnScorer(
        run.model,
        run.chat,
        max_length=settings.training.max_length,
        batch_size=batch_size or 4 * settings.training.batch_size,
        cache_dir=cache_dir,
        progress=lambda what, done, total: None if quiet else run.console.progress(f"ranking: {what}", done, total),
    )
    trained = settings.is_trained and (run.given_critic is not None or run.directory.note("critic")["pairs"] > 0)  # type: ignore[index]
    params = functools.cache(lambda: critic_params(run))
    kind = settings.parameterisation
    if kind == "plugin":
        return functools.partial(_score_by_plugin, run)
    if kind == "judge":
        return lambda rows, turns, name="": score_by_judge(scorer, rows, turns, run.start_params, name)
    if kind == "belief":
        return functools.partial(_score_by_belief, run, scorer)
    if trained and kind in ("value-head", "prefix-value"):
        return lambda rows, turns, name="": scorer.score_by_head(rows, turns, params(), kind)
    return functools.partial(
        scorer.score,
        critic=params if trained else None,
        reference=lambda: run.start_params,
        aggregation=settings.aggregation,
        public_reference=run.config.ranking.reference_context == "public",
        parts=parts,
    )


def _score_by_plugin(run: Run, rows: Sequence[Candidates], turns: Sequence[Turn], name: str = "") -> list[TurnScore]:
    """Have the critic of a plugin score the turns of one position after another."""
    plugin, places = load_plugins(run.config.plugin or ""), dict[int, list[Turn]]()
    for turn in dict.fromkeys(turns):
        places.setdefault(turn.position, []).append(turn)
    found: dict[Turn, float] = {}
    for position, asked in places.items():
        scores = plugin.scores(rows[position], [run.chat.reply_text(list(turn.ids)) for turn in asked])
        found |= dict(zip(asked, scores, strict=True))
        run.console.progress("ranking: plugin", len(found), len(set(turns)))
    return [TurnScore(found[turn]) for turn in turns]


def _score_by_belief(
    run: Run, scorer: TurnScorer, rows: Sequence[Candidates], turns: Sequence[Turn], name: str = ""
) -> list[TurnScore]:
    """Ask the user simulator for its reply to every turn, and score what that adds to the belief."""
    human = run.benchmark.human(run.config.simulator)
    rules = Settings(run.config.rollouts.max_turns, run.benchmark.rules, run.system, seed=run.config.seed)
    positions = find_positions(run, rows, "--critic.parameterisation=belief")
    replies: dict[Turn, str | None] = {}
    for turn in dict.fromkeys(turns):
        position = positions[turn.position]
        history = position.trajectory.dialogue_history[: 2 * position.turn - 1]
        episode = Episode(position.trajectory.task, rules.max_turns, rules.rules, tuple(history))
        episode = episode.step_agent(run.chat.reply_text(turn.ids))
        if not episode.done:
            episode = user_turn(episode, human, rules, seed_of("belief", position.index, position.turn, turn.ids))
        replies[turn] = None if episode.done else episode.history[-1].content
        run.console.progress("ranking: replies", len(replies), len(turns))
    return score_by_belief(scorer, rows, turns, replies, run.start_params, name)


def find_positions(run: Run, rows: Sequence[Candidates], wanted_by: str) -> list[Position]:
    """Find the positions of candidates in the graded trajectories. Raises BadInput where rows do not name them.

    wanted_by: the flag that needs them.
    """
    graded = read_located_rows(run.directory.rows_file("grading"), Trajectory)
    positions = []
    for row in rows:
        place = row.extra
        if "trajectory" not in place or not 0 <= place["trajectory"] < len(graded):
            raise BadInput(
                f"{run.directory.rows_file('candidates')}: the candidates do not say which trajectory they are of, "
                f"which {wanted_by} needs: only candidates that the run has sampled do"
            )
        found = graded[place["trajectory"]]
        tokens = trajectory_row(found.row, run.chat, run.system, found.location)
        positions.append(Position(found.row, place["trajectory"], tokens, place["turn"]))
    return positions


def _played(run: Run, row: Candidates) -> list[int]:
    """Give the ids of the turn that the trajectory has in this position: as sampled where the row has them."""
    return row.extra["older_ids"] if "older_ids" in row.extra else run.chat.text_turn_ids(row.older_output)


def turn_pairs_stage(run: Run) -> dict[str, Any]:
    """Pairs of one better and one worse turn, drawn from the upper and the lower half of each ranking."""
    settings = run.config.ranking
    if run.config.turn_pairs is not None:
        return _given_turn_pairs(run, run.config.turn_pairs)
    ranked = read_rows(run.directory.rows_file("ranking"), Ranked)
    rows = pair_turns(
        ranked,
        run.chat,
        num_pairs=settings.num_pairs,
        seed=run.config.seed,
        min_gap=settings.min_gap,
        clip=settings.clip_scores,
        keep_ties=settings.keep_ties,
    )
    if not rows:
        gap = f" whose scores differ by {settings.min_gap:g} (ranking.min_gap)" if settings.min_gap else ""
        raise BadInput(f"{run.directory.rows_file('ranking')}: no turn has two different candidates{gap} to compare")
    write_rows(run.directory.stage("turn-pairs") / "pairs.jsonl", rows)
    tied = sum(better == worse for better, worse in (row.extra["picked"] for row in rows))
    if tied == len(rows):
        run.console.warn("stage turn-pairs: no two turns differ by ranking.min_gap: the policy only imitates the best")
    return {"pairs": len(rows) - tied} | ({"ties": tied} if tied else {})


def _given_turn_pairs(run: Run, path: Path) -> dict[str, Any]:
    """Turn pairs of a file, with token rows where they are text."""
    rows = []
    for found in read_located_rows(path, Pair):
        pair, location = found.row, found.location
        made = pair_rows(pair, run.chat, True, location)
        check_pair(made, run, location)
        if max(made.chosen.prefix, made.rejected.prefix) > int(run.chat.bos_id is not None):
            raise BadInput(f"{location}: text stands before the dialogue; the policy must not see the reference")
        tokens = {CHOSEN_TOKENS: row_to_json(made.chosen), REJECTED_TOKENS: row_to_json(made.rejected)}
        rows.append(replace(pair, extra=pair.extra | tokens))
    write_rows(run.directory.stage("turn-pairs") / "pairs.jsonl", rows)
    return {"pairs": len(rows), "from": str(path)}
