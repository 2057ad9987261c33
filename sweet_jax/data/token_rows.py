"""Token rows in JSON, and the rows that each stage trains on.

A row is stored as its ids and the spans of its action tokens, so training uses the ids as they were sampled. Rows of
other tools hold text only; `chat.Chat` then makes the ids.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from colbench_env.types import BadInput, Message, Pair, Trajectory
from sweet_jax.data.batch import RowPair, TokenRow
from sweet_jax.data.chat import Chat

TOKENS = "tokens"  # key of a trajectory's own row
CHOSEN_TOKENS, REJECTED_TOKENS = "chosen_tokens", "rejected_tokens"


def row_to_json(row: TokenRow) -> dict[str, Any]:
    """Convert a row to a JSON object.

    In:  ids [1, 7, 5, 2, 9, 6], turns [0, 0, 1, 1, 0, 2], prefix 1
    Out: {"ids": [1, 7, 5, 2, 9, 6], "spans": [[1, 2, 4], [2, 5, 6]], "prefix": 1}   (turn, first token, past the last)
    """
    borders = np.flatnonzero(np.diff(row.turns, prepend=0, append=0))
    starts = [int(start) for start in borders if start < len(row) and row.turns[start] > 0]
    stops = [int(stop) for stop in borders if stop > 0 and row.turns[stop - 1] > 0]
    spans = [[int(row.turns[start]), start, stop] for start, stop in zip(starts, stops, strict=True)]
    return {"ids": row.ids.tolist(), "spans": spans, "prefix": row.prefix}


def row_from_json(data: Any, location: str) -> TokenRow:
    """Read the row that `row_to_json` made. BadInput, with `location`, where it cannot be read."""
    try:
        ids = np.array([operator.index(token) for token in data["ids"]], np.int32)  # a fraction or a string is an error
        turns, prefix = np.zeros(ids.shape, np.int32), operator.index(data["prefix"])
        for span in [(0, 0, prefix), *data["spans"]]:
            turn, start, stop = map(operator.index, span)
            if not 0 <= start <= stop <= ids.size or turn < 0:
                raise ValueError(f"turn {turn} from {start} to {stop} does not lie within {ids.size} tokens")
            turns[start:stop] = turn
        return TokenRow(ids, turns, prefix)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{location}: token ids cannot be read ({error}), expected ids, spans and prefix") from error


def trajectory_row(trajectory: Trajectory, chat: Chat, system: str, location: str) -> TokenRow:
    """Make the row of a dialogue: its ids as sampled where it has them, else one tokenisation of its text.

    BadInput, with `location`, where the ids cannot be read or the chat template does not show a message as it is.
    """
    if TOKENS in trajectory.extra:
        return row_from_json(trajectory.extra[TOKENS], location)
    opening = [{"role": "system", "content": system}] if system else []
    raw = [{"role": entry.role, "content": _raw_text(entry, chat)} for entry in trajectory.dialogue_history]
    try:
        return chat.turn_ids(opening + raw)
    except BadInput as error:
        raise BadInput(f"{location}: {error}") from error


def _raw_text(entry: Message, chat: Chat) -> str:
    """Return the message as the model wrote it, where that was recorded, without its end-of-turn token."""
    if entry.output is None:
        return entry.content
    return chat.strip_turn_end(entry.output, entry.content) if entry.role == "assistant" else entry.output


def turn_prompt(row: TokenRow, turn: int) -> list[int]:
    """Return the ids before agent turn `turn` (from 1)."""
    return row.ids[: int(np.argmax(row.turns == turn))].tolist()


def turn_output(row: TokenRow, turn: int) -> list[int]:
    """Return the action tokens of agent turn `turn` (from 1)."""
    return row.ids[row.turns == turn].tolist()


def candidate_row(prompt_ids: list[int], output_ids: list[int], prefix: int) -> TokenRow:
    """Make the row of a prompt and one agent turn after it, turn 1. prefix: see `TokenRow`."""
    turns = np.r_[np.zeros(len(prompt_ids), np.int32), np.ones(len(output_ids), np.int32)].astype(np.int32)
    return TokenRow(np.array([*prompt_ids, *output_ids], np.int32), turns, prefix)


def pair_rows(pair: Pair, chat: Chat, last_turn_only: bool, location: str) -> RowPair:
    """Make the two rows of a stored pair: ids as sampled where it holds them, else of its text.

    last_turn_only: the text is a prompt and one turn, and only that turn has action tokens (policy pairs).
    BadInput, with `location`, where the ids or the text cannot be read.
    """
    if CHOSEN_TOKENS in pair.extra and REJECTED_TOKENS in pair.extra:
        return RowPair(*(row_from_json(pair.extra[key], location) for key in (CHOSEN_TOKENS, REJECTED_TOKENS)))
    rows = []
    for key, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        try:
            row = chat.row_from_text(text)
        except BadInput as error:
            own = "; the row has a 'prompt' of its own, expected it in front of both texts"
            raise BadInput(f"{location}: {key!r}: {error}{own if 'prompt' in pair.extra else ''}") from error
        if last_turn_only:
            row = TokenRow(row.ids, (row.turns == row.num_turns).astype(np.int32), row.prefix)
        rows.append(row)
    return RowPair(*rows)


def check_row(row: TokenRow, vocab_size: int, location: str) -> None:
    """Raise BadInput where a row cannot be trained on as it is; call it before the row is truncated.

    That is: an id without an embedding in the network, an action token at the very beginning, which nothing predicts,
    or a turn without action tokens before one that has some.
    """
    if len(row) and not 0 <= row.ids.min() <= row.ids.max() < vocab_size:
        wrong = row.ids.min() if row.ids.min() < 0 else row.ids.max()
        raise BadInput(f"{location}: token id {wrong} is none of the network's, expected 0 to {vocab_size - 1}")
    if len(row) and row.turns[0]:
        raise BadInput(f"{location}: the first token counts as the agent's, expected a prompt before it")
    found = np.unique(row.turns[row.turns > 0])
    if found.size < row.num_turns:
        missing = 1 + int(np.argmax(found != np.arange(1, found.size + 1)))
        raise BadInput(
            f"{location}: tokens of turn {row.num_turns} are counted and none of turn {missing}, expected turns "
            "counted from 1 without gaps"
        )
