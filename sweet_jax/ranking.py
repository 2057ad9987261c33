"""The critic's score of single turns: how candidates, and the turn that was played, are ranked and paired."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from colbench_env.types import Candidates, Pair, Ranked
from models.llama import Llama
from sweet_jax.critic import HeadKind
from sweet_jax.data.batch import TokenRow, default_buckets, truncate
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import CHOSEN_TOKENS, REJECTED_TOKENS, candidate_row, row_to_json
from sweet_jax.pairs import ties, turn_pairs
from sweet_jax.reference import ReferenceCache, reference_logps, row_values

Progress = Callable[[str, int, int], None]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Turn:
    """A turn to be judged: the number of the candidates' row that has its prompt, and its ids."""

    position: int
    ids: tuple[int, ...]


@dataclass(frozen=True)
class TurnScore:
    """What a turn is ranked by, and the two parts that a critic with a language model's head has.

    advantage: the score. log_ratios: what was learned, by token; None from other critics.
    learned: log pi_theta(a|o,c) - log pi_ref(a|o,c), what the critic's training has changed (the paper's equation 3).
    pmi: log pi_ref(a|o,c) - log pi_ref(a|o), the pointwise mutual information of turn and reference solution under the
    start policy, which needs no training. The released ranking is the sum of both. None: not computed.
    """

    advantage: float
    log_ratios: list[float] | None = None
    learned: float | None = None
    pmi: float | None = None

    def parts(self) -> dict[str, float]:
        """Return the parts that are known, by name."""
        return {name: part for name, part in (("learned", self.learned), ("pmi", self.pmi)) if part is not None}


@dataclass(frozen=True)
class TurnScorer:
    """What turns are scored with: a network, its tokenizer, and how rows are batched.

    max_length: tokens of a row; longer ones lose their beginning. batch_size: rows scored together.
    cache_dir: log-probs are kept there as they come, so that a killed scoring goes on; None keeps none.
    progress: is told (what, rows done, rows in all).
    """

    model: Llama
    chat: Chat
    max_length: int
    batch_size: int
    cache_dir: Path | None = None
    progress: Progress = lambda what, done, total: None

    def score(
        self,
        rows: Sequence[Candidates],
        turns: Sequence[Turn],
        *,
        critic: Callable[[], Any] | None,
        reference: Callable[[], Any],
        aggregation: Literal["turn-mean", "token-mean", "sum"] = "turn-mean",
        public_reference: bool = False,
        parts: bool = True,
        name: str = "",
    ) -> list[TurnScore]:
        """Compute the log-ratio advantage of every turn (equation 3); equal turns in one position are scored once.

        The advantage is the log-ratio over the turn's tokens: their sum with aggregation "sum", else their mean (of a
        row with one turn "turn-mean" and "token-mean" are the same). The reference policy is shown the reference
        solution, as in the paper; with a public reference it is not, as in the released code. Then a candidate's
        reference term is the sampler's own log-prob, which its row has; that of another turn, such as the one played,
        is scored here.
        critic, reference: give parameters, when they are needed. critic None: the reference policy itself in its place,
        with a public reference (pmi).
        parts: what each turn has learned and its pmi are wanted too. Their sum is the log-ratio of critic and public
        reference: without them the reference that is shown the solution is left out, a third of the work.
        name: what the cached log-probs are kept under.
        """
        shown_rows, public_rows = self._rows(rows, turns)
        public = critic is None or public_reference
        summed = aggregation == "sum"
        combine = np.sum if summed else np.mean

        def scored(params: Callable[[], Any], what: str, of: Mapping[Turn, TokenRow]) -> dict[Turn, np.ndarray]:
            return self.logps(params(), f"{name}-{what}" if name else what, of)

        sampled = _sampled_bases(rows, summed)
        unseen = {turn: row for turn, row in public_rows.items() if len(row) < len(shown_rows[turn])}
        unknown = {turn: row for turn, row in unseen.items() if turn not in sampled} if public else {}
        whole = unknown if critic and not parts else {}
        based = {turn: row for turn, row in shown_rows.items() if turn not in whole}
        critic_logps = scored(critic, "critic", shown_rows) if critic else {}
        base_logps = scored(reference, "reference", based) if based else {}
        critic_logps = critic_logps or base_logps
        public_logps = scored(reference, "public", unknown) if unknown else {}
        scores = {}
        for turn, logps in critic_logps.items():
            # the row with the solution may have lost more of the turn
            own = public_logps[turn][-len(logps) :] if turn in public_logps else None
            if turn in whole:
                scores[turn] = TurnScore(float(combine(logps - own)))
                continue
            ratios = logps - base_logps[turn]
            learned, pmi = float(combine(ratios)), None
            if own is not None:
                pmi = float(combine(base_logps[turn] - own))
            elif turn in unseen and turn in sampled:
                pmi = float(combine(base_logps[turn])) - sampled[turn]
            advantage = learned + pmi if public and pmi is not None else learned
            rounded = [round(float(ratio), 4) for ratio in ratios]
            scores[turn] = TurnScore(advantage, rounded if critic else None, learned if critic else None, pmi)
        return [scores[turn] for turn in turns]

    def score_by_head(
        self,
        rows: Sequence[Candidates],
        turns: Sequence[Turn],
        params: Any,
        kind: HeadKind = "value-head",
    ) -> list[TurnScore]:
        """Compute the score of a critic with a head, whose parameters these are, of every turn.

        value-head: the mean of the values at the turn's tokens. prefix-value: the value at its last token less the one
        at the token before it.
        """
        shown_rows = self._rows(rows, turns)[0]
        found = row_values(self.model, params, list(shown_rows.values()), **self._batches(kind))
        scores = {}
        for (turn, row), value_t2 in zip(shown_rows.items(), found, strict=True):
            before_n, at_n = value_t2[row.turns > 0].T
            score = at_n.mean() if kind == "value-head" else at_n[-1] - before_n[0]
            scores[turn] = TurnScore(float(score))
        return [scores[turn] for turn in turns]

    def _rows(
        self, rows: Sequence[Candidates], turns: Sequence[Turn]
    ) -> tuple[dict[Turn, TokenRow], dict[Turn, TokenRow]]:
        """Of every different turn the row with the reference solution in front, and the row without."""
        shown_rows: dict[Turn, TokenRow] = {}
        public_rows: dict[Turn, TokenRow] = {}
        for turn in dict.fromkeys(turns):
            row = rows[turn.position]
            prefix = row.input_with_ground_truth[: len(row.input_with_ground_truth) - len(row.input)]
            plain = candidate_row(row.extra["prompt_ids"], list(turn.ids), row.extra["prefix_length"])
            shown = self.chat.add_prefix(plain, prefix) if prefix else plain
            shown_rows[turn] = truncate(shown, self.max_length, "left", turn.position) or shown
            public_rows[turn] = truncate(plain, self.max_length, "left", turn.position) or plain
        return shown_rows, public_rows

    def logps(self, params: Any, label: str, rows: Mapping[Key, TokenRow]) -> dict[Key, np.ndarray]:
        """Compute the log-probs of each row's action tokens. label: what the cache keeps them under."""
        found = reference_logps(self.model, params, list(rows.values()), **self._batches(label))
        counted = (values[row.turns > 0] for values, row in zip(found, rows.values(), strict=True))
        return dict(zip(rows, counted, strict=True))

    def _batches(self, label: str) -> dict[str, Any]:
        """Say how rows are batched, cached and told of (see `reference.reference_logps`)."""
        return {
            "batch_size": self.batch_size,
            "buckets": default_buckets(self.max_length),
            "pad_id": self.chat.pad_id,
            "cache": ReferenceCache(self.cache_dir / label) if self.cache_dir else None,
            "progress": lambda done, total: self.progress(label, done, total),
        }


def _sampled_bases(rows: Sequence[Candidates], summed: bool) -> dict[Turn, float]:
    """Read the sampler's log-prob of every candidate, as its row has it: sum or mean over the tokens."""
    return {
        Turn(position, tuple(ids)): base
        for position, row in enumerate(rows)
        for ids, base in zip(
            row.extra["output_ids"],
            row.additional_reference_logprobs_sum if summed else row.additional_reference_logprobs,
            strict=True,
        )
    }


def attach_scores(
    rows: Sequence[Candidates],
    scores: Sequence[TurnScore],
    played: Sequence[Turn] = (),
    played_scores: Sequence[TurnScore] = (),
) -> list[Ranked]:
    """Return the rows with the score of each candidate, in order, and of the turn that was played where it is given."""
    remaining = iter(scores)
    ranked = []
    for row, turn, older in itertools.zip_longest(rows, played, played_scores):
        own = list(itertools.islice(remaining, len(row.additional_outputs)))
        extra = dict(row.extra)
        if own[0].log_ratios is not None:
            extra["token_log_ratios"] = [score.log_ratios for score in own]
        parts = [score.parts() for score in own]
        extra |= {name: [part[name] for part in parts] for name in parts[0]}
        if older is not None and older.log_ratios is not None:
            extra["older"] = {
                "judge_result": older.advantage, "output_ids": list(turn.ids), "token_log_ratios": older.log_ratios,
            }  # fmt: skip
        ranked.append(Ranked(replace(row, extra=extra), tuple(score.advantage for score in own)))
    return ranked


def pair_turns(
    rows: Sequence[Ranked],
    chat: Chat,
    *,
    num_pairs: int,
    seed: int,
    min_gap: float = 0.0,
    clip: float = 0.0,
    keep_ties: bool = False,
) -> list[Pair]:
    """Pair a turn of the upper half of each ranking with one of the lower half, `num_pairs` times (section 4.2).

    min_gap: least difference of the scores of a pair (`pairs.turn_pairs`). clip: scores are cut to -clip and clip
    before, where it is not 0: among turns that are surely bad, which is the least bad is not to be learned.
    keep_ties: where no two turns differ by the gap, the best `num_pairs` ones are paired with themselves: such a pair
    prefers nothing, and its NLL holds the policy where there is nothing to learn.
    The pairs hold token rows after the prompt that the policy saw, without the reference solution.
    """
    pairs = []
    for place, ranked in enumerate(rows):
        row, rng = ranked.candidates, random.Random(f"{seed} {place}")
        ids = [tuple(one) for one in row.extra["output_ids"]]
        prompt, prefix = row.extra["prompt_ids"], row.extra["prefix_length"]
        scores = [max(-clip, min(clip, score)) for score in ranked.judge_result] if clip else ranked.judge_result
        drawn = turn_pairs(scores, ids, num_pairs, rng, min_gap)
        if not drawn and keep_ties:
            drawn = ties(ranked.judge_result, ids, num_pairs)
        for pair in drawn:
            sides = [list(ids[index]) for index in (pair.chosen, pair.rejected)]
            tokens = [row_to_json(candidate_row(prompt, turn, prefix)) for turn in sides]
            extra = {
                "position": place,
                "picked": [pair.chosen, pair.rejected],
                "advantages": [ranked.judge_result[pair.chosen], ranked.judge_result[pair.rejected]],
                CHOSEN_TOKENS: tokens[0],
                REJECTED_TOKENS: tokens[1],
            }
            texts = [row.input + chat.decode(turn) for turn in sides]
            pairs.append(Pair(texts[0], texts[1], extra))
    return pairs
