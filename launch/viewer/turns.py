"""One agent turn: what was said and thought, the critic's advantage, the candidates in its place and their pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colbench_env.dialogue import ANSWER_MARKER, OUTPUT_MARKER
from colbench_env.types import BadInput, Message, Pair, Ranked
from launch.viewer.token_rows import Shown, ShownRows, check_ratios
from sweet_jax.data.token_rows import CHOSEN_TOKENS, REJECTED_TOKENS, row_from_json

MAX_PAIRS = 4  # turn pairs shown for a turn


@dataclass(frozen=True)
class Candidate:
    """A sampled turn. chosen, rejected: how many turn pairs it was picked for; None where picks are not recorded.
    log_ratios: log pi_theta - log pi_ref of each of its `ids`; None where not recorded. about: in words, the parts of
    its score, and where stage truth has judged it what kind of turn it is and how often playing on succeeds."""

    text: str
    advantage: float
    chosen: int | None
    rejected: int | None
    ids: tuple[int, ...] | None
    log_ratios: tuple[float, ...] | None
    about: str = ""


@dataclass(frozen=True)
class Turn:
    """An agent turn. thought: what the human did not see. advantage: the critic's, None where not recorded.
    candidates: best first. pairs: its turn pairs, token by token. more_pairs: how many are not among them."""

    thought: str
    said: str
    advantage: float | None = None
    ids: tuple[int, ...] | None = None
    log_ratios: tuple[float, ...] | None = None
    candidates: tuple[Candidate, ...] = ()
    pairs: tuple[ShownRows, ...] = ()
    more_pairs: int = 0


@dataclass(frozen=True)
class Picked:
    """A turn pair and the two candidates, by place in the ranked row, that it is made of. location: FILE:LINE."""

    location: str
    chosen: int
    rejected: int
    pair: Pair


@dataclass(frozen=True)
class Ranking:
    """What was ranked in the place of a turn. picked: its turn pairs, None where picks are not recorded. truth: what
    stage truth says of each candidate, {} where it has not judged them."""

    location: str
    ranked: Ranked
    picked: tuple[Picked, ...] | None
    truth: Mapping[str, Any] = field(default_factory=dict)


def turn_of(number: int, message: Message, ranking: Ranking | None) -> Turn:
    """Make agent turn `number`, with its candidates where they were ranked. Raises BadInput."""
    thought, said = thought_and_said(message)
    if ranking is None:
        return Turn(thought, said)
    location, row, picked = ranking.location, ranking.ranked, ranking.picked
    extra, outputs = row.candidates.extra, row.candidates.additional_outputs
    try:
        ids, ratios, older = extra.get("output_ids"), extra.get("token_log_ratios"), extra.get("older") or {}
        found = [
            Candidate(
                text=text,
                advantage=advantage,
                chosen=None if picked is None else sum(one.chosen == i for one in picked),
                rejected=None if picked is None else sum(one.rejected == i for one in picked),
                ids=tuple(ids[i]) if ids else None,
                log_ratios=_ratios(ratios[i], ids[i], location) if ids and ratios else None,
                about=_about(i, extra, ranking.truth),
            )
            for i, (text, advantage) in enumerate(zip(outputs, row.judge_result, strict=True))
        ]
        played = older.get("output_ids")
        return Turn(
            thought,
            said,
            advantage=older.get("judge_result"),
            ids=tuple(played) if played else None,
            log_ratios=_ratios(older.get("token_log_ratios"), played, location) if played else None,
            candidates=tuple(sorted(found, key=lambda one: -one.advantage)),
            pairs=tuple(
                ShownRows(f"turn {number}, pair {index}", _pair_rows(one, found))
                for index, one in enumerate((picked or ())[:MAX_PAIRS], start=1)
                if CHOSEN_TOKENS in one.pair.extra and REJECTED_TOKENS in one.pair.extra
            ),
            more_pairs=max(len(picked or ()) - MAX_PAIRS, 0),
        )
    except (TypeError, IndexError, AttributeError):
        raise BadInput(
            f"{location}: 'output_ids', 'token_log_ratios' or 'older' cannot be read, expected a list a candidate, and "
            "an object with judge_result and output_ids"
        ) from None


def _about(place: int, extra: Mapping[str, Any], truth: Mapping[str, Any]) -> str:
    """Say of a candidate the parts of its score, its kind and its worth, as far as they are known.

    In:  place 0, extra {"learned": [-0.5], "pmi": [1.25]}, truth {"kinds": ["hidden"], "values": [0.5]}
    Out: "learned -0.500, pmi +1.250, hidden, success in 50 % of the continuations"
    """
    words = [f"{part} {extra[part][place]:+.3f}" for part in ("learned", "pmi") if part in extra]
    words += [truth["kinds"][place]] if truth.get("kinds") else []
    if truth.get("values"):
        words.append(f"success in {100 * truth['values'][place]:.0f} % of the continuations")
    return ", ".join(words)


def _pair_rows(one: Picked, candidates: Sequence[Candidate]) -> tuple[Shown, ...]:
    """Return the token rows of a turn pair. Raises BadInput."""
    if not (one.chosen < len(candidates) and one.rejected < len(candidates)):
        raise BadInput(f"{one.location}: 'picked' names candidates that its ranked row, of {len(candidates)}, has not")
    rows = []
    for side, key, place in (("chosen", CHOSEN_TOKENS, one.chosen), ("rejected", REJECTED_TOKENS, one.rejected)):
        row, ratios = row_from_json(one.pair.extra[key], one.location), candidates[place].log_ratios
        fits = ratios is not None and len(ratios) == int((row.turns > 0).sum())
        rows.append(Shown(side, row, ratios if fits else None))
    return tuple(rows)


def _ratios(ratios: object, ids: Sequence[int], location: str) -> tuple[float, ...] | None:
    return None if ratios is None else tuple(check_ratios(ratios, len(ids), location))


def thought_and_said(message: Message) -> tuple[str, str]:
    """Split a message into what the agent kept to itself, and what the user saw.

    In: output "They want code. OUTPUT: Which sign?", content "Which sign?"   Out: "They want code.", "Which sign?"
    """
    raw = message.content if message.output is None else message.output
    thought, marker, _ = raw.partition(OUTPUT_MARKER)
    hidden = marker and ANSWER_MARKER not in thought and raw.strip() != message.content.strip()
    return (thought.strip() if hidden else ""), message.content
