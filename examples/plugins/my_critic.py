"""A critic: a turn is worth the words of the reference solution that it brings up for the first time.

    python -m launch.train --plugin=examples/plugins/my_critic.py

Stage ranking asks it in place of a trained critic, with the turns that were sampled in one position. It may see what
the policy never does: `position.ground_truth` is the reference solution. The policy is then trained on pairs of turns
whose scores differ.
"""

import re
from collections.abc import Sequence

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.types import Candidates
from sweet_jax.plugins import Plugin

ANSWERS_TOO_EARLY = -5.0


def words(text: str) -> set[str]:
    """Return the words and numbers of a text; names_like_this are several."""
    return set(re.findall(r"[a-z]+|[0-9]+", text.lower().replace("_", " ")))


def critic(position: Candidates, turns: Sequence[str]) -> list[float]:
    """Score each turn that the agent might say in this position; higher is better."""
    reference, said = words(position.ground_truth), set[str]()
    for message in position.messages:
        said |= words(message.content)
    unsaid = len(reference - said)
    return [
        ANSWERS_TOO_EARLY
        if ANSWER_MARKER in turn and unsaid > len(reference) / 2
        else len(words(turn) & reference - said)
        for turn in turns
    ]


plugin = Plugin(critic=critic)
