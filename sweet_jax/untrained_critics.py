"""Critics that ask the base policy and are not trained: belief and judge. The third, pmi, is in `sweet_jax.ranking`.

belief   how much likelier the base policy finds the reference solution as its answer, after the turn and the user's
         reply, than before: log pi(reference | o, a, reply) - log pi(reference | o), in nats (arXiv 2602.12342,
         2510.14967). A turn after which there is no reply gains nothing.
judge    the base policy is shown the reference solution, the dialogue and the turn, and asked whether the turn helps:
         log pi(yes) - log pi(no), in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.types import Candidates
from sweet_jax.data.batch import TokenRow, truncate
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import candidate_row
from sweet_jax.ranking import Turn, TurnScore, TurnScorer

JUDGE_PROMPT = """A programmer writes a function for a client and may ask questions before answering.
The solution that the client has in mind, which the programmer does not see:
{reference}

The conversation so far:
{dialogue}

What the programmer says next:
{turn}

Does this bring the programmer closer to the client's solution? Answer yes or no."""
YES, NO = "yes", "no"


def score_by_belief(
    scorer: TurnScorer,
    rows: Sequence[Candidates],
    turns: Sequence[Turn],
    replies: Mapping[Turn, str | None],
    params: Any,
    name: str = "",
) -> list[TurnScore]:
    """Score every turn by what it adds to the belief in the reference solution.

    replies: of every turn what the user says after it, None where the turn ends the dialogue. params: of the base
    policy. name: what the cached log-probs are kept under.
    """
    chat = scorer.chat
    before = {turn.position: _answer_row(chat, rows[turn.position], []) for turn in turns}
    after = {
        turn: _answer_row(chat, rows[turn.position], [*turn.ids, *chat.continue_ids(list(turn.ids), reply)])
        for turn, reply in replies.items()
        if reply is not None
    }
    cut = {key: _cut(row, scorer.max_length) for key, row in [*before.items(), *after.items()]}
    believed = scorer.logps(params, f"{name}-belief" if name else "belief", cut)
    gains = {turn: float(believed[turn].sum() - believed[turn.position].sum()) for turn in after}
    return [TurnScore(gains.get(turn, 0.0)) for turn in turns]


def score_by_judge(
    scorer: TurnScorer, rows: Sequence[Candidates], turns: Sequence[Turn], params: Any, name: str = ""
) -> list[TurnScore]:
    """Score every turn by the base policy's own judgement. params, name: as for `score_by_belief`."""
    chat = scorer.chat
    verdicts = {verdict: chat.text_turn_ids(verdict) for verdict in (YES, NO)}
    asked = {}
    for turn in dict.fromkeys(turns):
        row = rows[turn.position]
        dialogue = "\n".join(f"{message.role}: {message.content}" for message in row.messages) or row.input
        text = JUDGE_PROMPT.format(reference=row.ground_truth, dialogue=dialogue, turn=chat.reply_text(list(turn.ids)))
        prompt = chat.prompt_ids([{"role": "user", "content": text}])
        for verdict, ids in verdicts.items():
            asked[turn, verdict] = _cut(candidate_row(prompt, ids, row.extra["prefix_length"]), scorer.max_length)
    found = scorer.logps(params, f"{name}-judge" if name else "judge", asked)
    return [TurnScore(float(found[turn, YES].sum() - found[turn, NO].sum())) for turn in turns]


def _answer_row(chat: Chat, row: Candidates, more: Sequence[int]) -> TokenRow:
    """Make the row in which the agent answers with the reference solution after the prompt and some more tokens."""
    answer = chat.text_turn_ids(f"{ANSWER_MARKER}\n{row.ground_truth}")
    return candidate_row([*row.extra["prompt_ids"], *more], answer, row.extra["prefix_length"])


def _cut(row: TokenRow, max_length: int) -> TokenRow:
    return truncate(row, max_length, "left") or row
