"""Trajectory pairs: which of a task's samples are preferred to which, as text and as tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from colbench_env.types import BadInput, Pair, Trajectory
from sweet_jax.data.chat import Chat, privileged_prefix
from sweet_jax.data.token_rows import (
    CHOSEN_TOKENS,
    REJECTED_TOKENS,
    row_to_json,
    trajectory_row,
    turn_output,
    turn_prompt,
)
from sweet_jax.pairs import IndexPair


@dataclass(frozen=True)
class Sample:
    """A graded dialogue and its location, FILE:LINE."""

    location: str
    trajectory: Trajectory


def select_pairs(
    samples: Iterable[Sample], preferred: Callable[[Sequence[float]], list[IndexPair]]
) -> list[tuple[Sample, Sample]]:
    """Pair the samples of each task as (better, worse), task by task; samples without a reward are left out.

    preferred: the benchmark's rule: rewards of one task's samples -> pairs of their numbers.
    """
    by_task: dict[str, list[tuple[float, Sample]]] = defaultdict(list)
    for sample in samples:
        if sample.trajectory.reward is not None:
            by_task[sample.trajectory.task.task_id].append((sample.trajectory.reward, sample))
    return [
        (of_task[pair.chosen][1], of_task[pair.rejected][1])
        for of_task in by_task.values()
        for pair in preferred([reward for reward, _ in of_task])
    ]


def tokenise_pair(chosen: Sample, rejected: Sample, chat: Chat, system: str, privileged: bool) -> Pair:
    """Make a pair of texts and token ids: the ids as sampled where the rows have them. BadInput for unreadable ids.

    privileged: whether both rows begin with the task's reference solution, as the critic sees them.
    """
    prefix = privileged_prefix(chosen.trajectory.task.ground_truth) if privileged else ""
    texts, tokens = [], []
    for sample in (chosen, rejected):
        row = trajectory_row(sample.trajectory, chat, system, sample.location)
        last = row.num_turns
        texts.append(prefix + chat.decode(turn_prompt(row, last)) + chat.reply_text(turn_output(row, last)))
        tokens.append(row_to_json(chat.add_prefix(row, prefix) if prefix else row))
    extra = {"task": chosen.trajectory.task.task_id, CHOSEN_TOKENS: tokens[0], REJECTED_TOKENS: tokens[1]}
    return Pair(texts[0], texts[1], extra)


def make_recorded_pair(chosen: Sample, rejected: Sample, privileged: bool) -> Pair:
    """Make a pair of the texts that were recorded. BadInput where the last turn has no `input` or no `output`."""
    prefix = privileged_prefix(chosen.trajectory.task.ground_truth) if privileged else ""
    texts = []
    for sample in (chosen, rejected):
        last = sample.trajectory.dialogue_history[-1]
        if last.input is None or last.output is None:
            missing = "input" if last.input is None else "output"
            raise BadInput(
                f"{sample.location}: the last turn has no {missing!r}; --model=DIR writes it with a tokenizer"
            )
        texts.append(prefix + last.input + last.output)
    return Pair(texts[0], texts[1], {"task": chosen.trajectory.task.task_id})
