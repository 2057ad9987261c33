"""How sure a policy was of its tokens, by the turn of the dialogue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from colbench_env.types import Trajectory


@dataclass(frozen=True)
class TurnEntropy:
    """nats: the mean of -log p over the `tokens` that were sampled in the agent's turn number `turn`, of `turns`
    dialogues: an estimate of the entropy of what they were drawn from (after temperature, top-k and top-p)."""

    turn: int
    turns: int
    tokens: int
    nats: float


def entropy_by_turn(rows: Iterable[Trajectory]) -> list[TurnEntropy]:
    """Estimate the entropy of each turn position whose log-probs are recorded, in order."""
    found: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for row in rows:
        for number, turn in enumerate(row.agent_turns, start=1):
            logprob, tokens = turn.extra.get("logprob"), turn.extra.get("tokens")
            if isinstance(logprob, float | int) and isinstance(tokens, int) and tokens > 0:
                found[number].append((float(logprob), tokens))
    return [
        TurnEntropy(number, len(given), tokens, -sum(logprob for logprob, _ in given) / tokens)
        for number, given in sorted(found.items())
        for tokens in [sum(count for _, count in given)]
    ]
