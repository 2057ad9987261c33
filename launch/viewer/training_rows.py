"""A training row of any file, token by token: which turn each counts for, and how many there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from colbench_env.tasks import decode_line, scan_lines
from colbench_env.terminal_text import printable
from colbench_env.types import BadInput, Candidates, Pair, Ranked, Trajectory
from launch.viewer.terminal_console import open_console, untrusted_text
from launch.viewer.token_rows import Pieces, Shown, check_ratios, counts
from sweet_jax.data.batch import TokenRow
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import (
    CHOSEN_TOKENS,
    REJECTED_TOKENS,
    TOKENS,
    candidate_row,
    pair_rows,
    row_from_json,
    trajectory_row,
)

# Of odd and of even turns; neighbouring tokens differ in shade, so that one sees where each ends.
TURN_STYLES = (("black on #38b0d0", "black on #80e8ff"), ("black on #40a830", "black on #80f080"))
PREFIX_STYLES, UNCOUNTED_STYLE = ("black on #c8a020", "black on #f0d040"), "dim"


def print_tokens(path: Path, number: int, chat: Chat | None, last_turn_only: bool, why: str = "") -> None:
    """Print the token rows of line `number` with their counts; without a terminal there are no colours.

    why: the reason that there is no tokenizer.
    """
    rows = rows_of_line(path, number, chat, last_turn_only)
    console, pieces = open_console(soft_wrap=True), Pieces(chat)
    console.print(untrusted_text(f"{path}:{number}"), style="bold")
    if chat is None:
        console.print(untrusted_text(f"The texts of the tokens are not known: {why}"), style="yellow")
    for shown in rows:
        console.print()
        console.print(Text(f"{shown.title}: {counts(shown.row, chat).text}"), style="bold")
        console.print(painted(shown.row, pieces, console.is_terminal))
        if shown.log_ratios is not None:
            console.print(Text("log-ratios: " + " ".join(f"{ratio:+.3f}" for ratio in shown.log_ratios)))
    legend = Text("\n")
    named = zip((PREFIX_STYLES, *TURN_STYLES), ("prefix", "counted, odd turn", "counted, even turn"), strict=True)
    for styles, what in named:
        legend.append(f" {what} ", styles[0]).append("  ")
    console.print(legend.append("does not count", UNCOUNTED_STYLE) if console.is_terminal else
                  Text("\nprefix <p …>, counted tokens <turn …>, all others do not count"))  # fmt: skip


def painted(row: TokenRow, pieces: Pieces, colours: bool) -> Text:
    """Return the tokens' texts in colours; without colours in brackets that say what they are, separated by bars.

    In: ids of "hi" (uncounted), "ho", "." (turn 1), no colours   Out: "hi<1 ho|.>"
    """
    marks = np.where(np.arange(len(row)) < row.prefix, -1, row.turns).tolist()
    text, before = Text(), 0
    for place, (token, mark) in enumerate(zip(row.ids.tolist(), marks, strict=True)):
        piece = printable(pieces.text(token))
        if colours:
            text.append(piece.replace("\n", "⏎\n"), _style(mark, place))
            continue
        if mark != before:
            text.append((">" if before else "") + (f"<{'p' if mark < 0 else mark} " if mark else ""))
        elif mark:
            text.append("|")
        text.append(piece)
        before = mark
    return text.append(">") if before and not colours else text


def _style(mark: int, place: int) -> str:
    if mark == 0:
        return UNCOUNTED_STYLE
    return (PREFIX_STYLES if mark < 0 else TURN_STYLES[1 - mark % 2])[place % 2]


def rows_of_line(path: Path, number: int, chat: Chat | None, last_turn_only: bool) -> list[Shown]:
    """Read the token rows of one line of trajectories, pairs, candidates or ranked rows. Raises BadInput."""
    line = next((line for line in scan_lines(path) if line.number == number), None)
    if line is None:
        raise BadInput(f"{path}:{number}: there is no row on that line, --row=N counts lines from 1")
    data, location = decode_line(line.content, line.location), line.location
    if not isinstance(data, Mapping):
        raise BadInput(f"{location}: not a JSON object, expected a trajectory, a pair, candidates or a ranked row")
    if "dialogue_history" in data:
        trajectory = Trajectory.from_json(data, location)
        if TOKENS in trajectory.extra:
            return [Shown("dialogue", row_from_json(trajectory.extra[TOKENS], location))]
        system = trajectory.extra.get("system")
        system = system if isinstance(system, str) else ""
        return [Shown("dialogue", trajectory_row(trajectory, _needed(chat, location), system, location))]
    if "chosen" in data:
        pair = Pair.from_json(data, location)
        if CHOSEN_TOKENS in pair.extra and REJECTED_TOKENS in pair.extra:
            stored = (row_from_json(pair.extra[key], location) for key in (CHOSEN_TOKENS, REJECTED_TOKENS))
            return [Shown(side, row) for side, row in zip(("chosen", "rejected"), stored, strict=True)]
        both = pair_rows(pair, _needed(chat, location), last_turn_only, location)
        return [Shown("chosen", both.chosen), Shown("rejected", both.rejected)]
    if "additional_outputs" in data:
        return _candidates(data, chat, location)
    raise BadInput(f"{location}: neither 'dialogue_history' nor 'chosen' nor 'additional_outputs': not a training row")


def _candidates(data: Mapping[str, Any], chat: Chat | None, location: str) -> list[Shown]:
    judged = Ranked.from_json(data, location) if "judge_result" in data else None
    row = judged.candidates if judged else Candidates.from_json(data, location)
    ratios = row.extra.get("token_log_ratios")
    if "output_ids" in row.extra:
        try:
            prompt, prefix = row.extra["prompt_ids"], row.extra["prefix_length"]
            rows = [row_from_json({"ids": [*prompt, *ids], "spans": [[1, len(prompt), len(prompt) + len(ids)]],
                                   "prefix": prefix}, location) for ids in row.extra["output_ids"]]  # fmt: skip
        except (KeyError, TypeError):
            raise BadInput(f"{location}: no token ids, expected prompt_ids, output_ids, prefix_length") from None
    else:
        ratios, known = None, _needed(chat, location)
        rows = [_text_candidate(row.input, output, known) for output in row.additional_outputs]
    score = [f", advantage {value:+.4f}" for value in judged.judge_result] if judged else [""] * len(rows)
    return [
        Shown(f"candidate {index}{score[index]}", one,
              tuple(check_ratios(ratios[index], int((one.turns > 0).sum()), location)) if ratios else None)
        for index, one in enumerate(rows)
    ]  # fmt: skip


def _text_candidate(prompt: str, output: str, chat: Chat) -> TokenRow:
    row = chat.row_from_text(prompt + output)
    last = np.flatnonzero(row.turns == row.num_turns)
    return candidate_row(row.ids[: last[0]].tolist(), row.ids[last].tolist(), row.prefix)


def _needed(chat: Chat | None, location: str) -> Chat:
    """Return the tokenizer. Raises BadInput where there is none."""
    if chat is None:
        raise BadInput(
            f"{location}: the row has text only, expected --model=DIR or --model=embedded to make its tokens"
        )
    return chat
