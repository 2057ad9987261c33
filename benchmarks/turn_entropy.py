"""`python -m benchmarks.turn_entropy FILE --model=DIR`: how long agent turns are, and how surprising under a model.

FILE: dialogues in the released layout. It prints one JSON line: dialogues, agent turns a dialogue, tokens a turn, nats
a token, the share of tokens of less than 0.1 nats, nats a turn. The agent's own prompt is not shown to the model, only
what user and agent said, so the first turn is more surprising than it was to its author.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

import sweet_jax
from colbench_env.tasks import read_rows
from colbench_env.types import Trajectory
from sweet_jax.data.batch import default_buckets, truncate
from sweet_jax.data.token_rows import trajectory_row
from sweet_jax.reference import reference_logps

CERTAIN = 0.1  # nats


def main() -> None:
    """Score the agent's tokens and print what they are like."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="JSON Lines of dialogues")
    parser.add_argument("--model", required=True, help="Hugging Face directory, or a name of the package")
    parser.add_argument("--most", type=int, default=40, help="dialogues that are read, the first ones")
    parser.add_argument("--max-length", type=int, default=2048, help="tokens of a dialogue; older ones are cut")
    told = parser.parse_args()
    policy = sweet_jax.load_policy(told.model, mesh="1x1")
    read = read_rows(told.file, Trajectory)[: told.most]
    rows = [trajectory_row(row, policy.chat, "", f"{told.file}:{number}") for number, row in enumerate(read, start=1)]
    cut = [truncate(row, told.max_length, "left") or row for row in rows]
    found = reference_logps(
        policy.model, policy.params, cut, batch_size=1, buckets=default_buckets(told.max_length),
        pad_id=policy.chat.pad_id,
    )  # fmt: skip
    turns = [
        -values[row.turns == turn]
        for values, row in zip(found, cut, strict=True)
        for turn in set(row.turns[row.turns > 0])
    ]
    tokens = np.concatenate(turns)
    lengths, sums = np.array([len(turn) for turn in turns]), np.array([turn.sum() for turn in turns])
    print(
        json.dumps(
            {
                "dialogues": len(cut),
                "turns": round(float(np.mean([row.num_turns for row in cut])), 2),
                "tokens_a_turn": {"mean": round(float(lengths.mean()), 1), "median": float(np.median(lengths))},
                "nats_a_token": round(float(tokens.mean()), 3),
                "certain_tokens": round(float((tokens < CERTAIN).mean()), 3),
                "nats_a_turn": {"mean": round(float(sums.mean()), 1), "median": round(float(np.median(sums)), 1)},
            }
        )
    )


if __name__ == "__main__":
    main()
