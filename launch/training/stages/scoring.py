"""The critic's verdict on single turns: what stage ranking writes about the candidates and about the turn played."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colbench_env.types import Candidates
from launch.training.run import Run
from launch.training.stages.critic import critic_params
from sweet_jax.critic import make_value_head_critic
from sweet_jax.data.batch import TokenRow, bucket, default_buckets, pad_rows, truncate
from sweet_jax.data.token_rows import candidate_row
from sweet_jax.logprobs import ReferenceCache, reference_logps
from sweet_jax.mesh import put_rows


@dataclass(frozen=True)
class Turn:
    """A turn to be judged: the number of the candidates' row that has its prompt, and its ids."""

    position: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """advantage: of the turn. log_ratios: log pi_theta - log pi_ref of its tokens, None from a value head."""

    advantage: float
    log_ratios: list[float] | None


def turn_scores(run: Run, rows: Sequence[Candidates], turns: Sequence[Turn], name: str = "") -> list[Score]:
    """The score of every turn; equal turns in one position are scored once.

    The advantage is the log-ratio over the turn's tokens: their sum with aggregation "sum", else their mean (of a row
    with one turn "turn-mean" and "token-mean" are the same). With a public reference the reference term of a candidate
    is the sampler's own log-prob, which the row has; that of another turn, such as the one played, is scored here.
    name: what the cached log-probs are kept under.
    """
    settings, folder, limit = run.config.critic, run.directory.stage("ranking"), run.config.critic.training.max_length
    public_rows: dict[Turn, TokenRow] = {}
    shown_rows: dict[Turn, TokenRow] = {}
    for turn in turns:
        if turn not in public_rows:
            row = rows[turn.position]
            prefix = row.input_with_ground_truth[: len(row.input_with_ground_truth) - len(row.input)]
            plain = candidate_row(row.extra["prompt_ids"], list(turn.ids), row.extra["prefix_length"])
            shown = run.chat.with_prefix(plain, prefix) if prefix else plain
            public_rows[turn] = truncate(plain, limit, "left", turn.position) or plain
            shown_rows[turn] = truncate(shown, limit, "left", turn.position) or shown
    options: dict[str, Any] = dict(
        batch_size=4 * settings.training.batch_size, buckets=default_buckets(limit), pad_id=run.chat.pad_id
    )
    hindsight = run.given_critic is None and run.directory.note("critic")["pairs"] == 0  # type: ignore[index]
    if settings.parameterisation == "value-head" and not hindsight:
        values = _value_head_scores(run, critic_params(run), list(shown_rows.values()), options)
        by_turn = dict(zip(shown_rows, values, strict=True))
        return [Score(by_turn[turn], None) for turn in turns]

    def logps(params: Any, of: str, of_rows: Mapping[Turn, TokenRow]) -> dict[Turn, np.ndarray]:
        label = f"{name}-{of}" if name else of
        found = reference_logps(
            run.model, params, list(of_rows.values()), cache=ReferenceCache(folder / label),
            progress=lambda done, total: run.console.progress(f"ranking: {label}", done, total), **options,
        )  # fmt: skip
        counted = (values[row.turns > 0] for values, row in zip(found, of_rows.values(), strict=True))
        return dict(zip(of_rows, counted, strict=True))

    public = hindsight or run.config.ranking.reference_context == "public"
    mine = (
        logps(run.start_params, "reference", shown_rows)
        if hindsight
        else logps(critic_params(run), "critic", shown_rows)
    )
    theirs = logps(run.start_params, "public" if public else "reference", public_rows if public else shown_rows)
    combine = np.sum if settings.aggregation == "sum" else np.mean
    sampled = _sampled_bases(rows, settings.aggregation == "sum") if public else {}
    scores = {}
    for turn in shown_rows:
        ratios = mine[turn] - theirs[turn][-len(mine[turn]) :]  # the row with the reference may have been cut further
        base = sampled.get(turn)
        advantage = float(combine(ratios)) if base is None else float(combine(mine[turn])) - base
        scores[turn] = Score(advantage, [round(float(ratio), 4) for ratio in ratios])
    return [scores[turn] for turn in turns]


def _sampled_bases(rows: Sequence[Candidates], summed: bool) -> dict[Turn, float]:
    """The sampler's log-prob of every candidate, as its row has it: sum or mean over the tokens."""
    return {
        Turn(position, tuple(ids)): base
        for position, row in enumerate(rows)
        for ids, base in zip(
            row.extra["output_ids"],
            row.additional_reference_logprobs_sum if summed else row.additional_reference_logprobs,
            strict=True,
        )
    }


def _value_head_scores(run: Run, params: Any, rows: list[TokenRow], options: Mapping[str, Any]) -> list[float]:
    score, size = make_value_head_critic(run.model, 1), options["batch_size"]
    found: list[float] = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        filled = part + part[:1] * (size - len(part))
        batch = pad_rows(filled, bucket(max(map(len, part)), options["buckets"]), options["pad_id"])
        found += np.asarray(score(params, put_rows(batch, run.mesh)))[: len(part), 0].tolist()
        run.console.progress("ranking: value head", len(found), len(rows))
    return found
