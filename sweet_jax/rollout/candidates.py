"""Candidates: several turns of a policy in the place of each turn that it has played (arXiv:2503.15478, 4.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from colbench_env.episodes import seed_of
from colbench_env.types import Candidates, Trajectory
from sweet_jax.data.batch import TokenRow
from sweet_jax.data.chat import Chat, privileged_prefix
from sweet_jax.data.token_rows import turn_output, turn_prompt
from sweet_jax.generation import LockstepEngine, Request, Sample, Sampling


@dataclass(frozen=True)
class Position:
    """A turn that was played: trajectory, its number in the file, its tokens, and the number of the turn, from 1."""

    trajectory: Trajectory
    index: int
    row: TokenRow
    turn: int

    @property
    def prompt(self) -> list[int]:
        """The tokens before the turn."""
        return turn_prompt(self.row, self.turn)


def list_positions(trajectories: Sequence[Trajectory], rows: Sequence[TokenRow]) -> list[Position]:
    """List every turn of the trajectories, whose tokens `rows` are."""
    return [
        Position(trajectory, index, row, turn)
        for index, (trajectory, row) in enumerate(zip(trajectories, rows, strict=True))
        for turn in range(1, row.num_turns + 1)
    ]


def sample_positions(
    engine: LockstepEngine,
    positions: Sequence[Position],
    *,
    chat: Chat,
    sampling: Sampling,
    num_candidates: int = 16,
    seed: int = 0,
    privileged: bool = True,
) -> Iterator[Candidates]:
    """Yield the candidates of every position, in order, as soon as they are there.

    A turn depends on the seed, the task, the trajectory's sample, the turn and the candidate's number, and not on what
    is sampled beside it. privileged: the critic is to see the reference solution, which then stands in front of
    `input_with_ground_truth`. Raises BadInput where a prompt leaves no room for a turn.
    """
    # As many dialogues side by side as rows hold positions: a turn's prompt goes on from that of the turn before, so
    # that prompts of one dialogue can only be read one after the other.
    beside = max(1, engine.rows // num_candidates)
    order = sorted(range(len(positions)), key=lambda place: (positions[place].index // beside, positions[place].turn))
    requests = []
    for position in (positions[place] for place in order):
        # Where an earlier turn's prompt ends, so that what was read for it is not read again.
        cuts = [len(turn_prompt(position.row, turn)) - 1 for turn in range(1, position.turn)]
        first = Request(position.prompt, _seed(seed, position), sampling, cuts=cuts)
        requests += [replace(first, sample=number) for number in range(num_candidates)]
    turns: dict[int, list[Sample | None]] = {}
    done = 0
    for number, sample in engine.sample_each(requests):
        place = order[number // num_candidates]
        turns.setdefault(place, [None] * num_candidates)[number % num_candidates] = sample
        while done in turns and all(turn is not None for turn in turns[done]):
            found = [turn for turn in turns.pop(done) if turn is not None]
            yield make_candidates(positions[done], found, chat, privileged)
            done += 1


def _seed(seed: int, position: Position) -> int:
    trajectory = position.trajectory
    return seed_of(seed, "candidates", trajectory.task.task_id, trajectory.extra.get("sample", 0), position.turn)


def make_candidates(position: Position, turns: Sequence[Sample], chat: Chat, privileged: bool) -> Candidates:
    """Make the row of a position. turns: those that were sampled there. privileged: as for `sample_positions`."""
    trajectory, played = position.trajectory, turn_output(position.row, position.turn)
    text = chat.decode(position.prompt)
    prefix = privileged_prefix(trajectory.task.ground_truth) if privileged else ""
    return Candidates(
        input=text,
        input_with_ground_truth=prefix + text,
        older_output=chat.reply_text(played),
        reward=trajectory.reward or 0.0,
        ground_truth=trajectory.task.ground_truth,
        messages=trajectory.dialogue_history[: 2 * position.turn - 1],
        additional_outputs=tuple(chat.reply_text(sample.ids) for sample in turns),
        additional_reference_logprobs=tuple(float(sample.logps.mean()) for sample in turns),
        additional_reference_logprobs_sum=tuple(float(sample.logps.sum()) for sample in turns),
        extra={
            "trajectory": position.index,
            "turn": position.turn,
            "prompt_ids": position.prompt,
            "output_ids": [sample.ids.tolist() for sample in turns],
            "prefix_length": position.row.prefix,
            "older_ids": played,
        },
    )
