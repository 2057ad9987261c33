"""Dialogues between an agent and a simulated human: many episodes side by side, sampled turn by turn.

Every turn draws with a seed made of the run's seed, the task, the sample and the turn: an episode does not depend on
which others are played beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from colbench_env.dialogue import Episode, chat_messages
from colbench_env.episodes import seed_of
from colbench_env.humans import Human, HumanRequest, human_prompt
from colbench_env.types import BadInput, Task, Trajectory
from sweet_jax.batch import TokenRow
from sweet_jax.chat import Chat
from sweet_jax.rows import TOKENS, row_to_json
from sweet_jax.sampler import Sampler


@dataclass(frozen=True)
class Assignment:
    """One dialogue that is wanted: sample number `sample` about `task`."""

    task: Task
    sample: int


@dataclass
class _Play:
    """An episode under way: its state and the token ids so far (`turns` as in `TokenRow`)."""

    wanted: Assignment
    episode: Episode
    ids: list[int]
    turns: list[int]
    cut: int = 0  # agent turns that ended for length

    def add(self, ids: Sequence[int], turn: int) -> None:
        self.ids += [int(token) for token in ids]
        self.turns += [turn] * len(ids)


@dataclass(frozen=True)
class Table:
    """Who plays: the agent's chat, sampler and system prompt, the human, and the rules."""

    chat: Chat
    sampler: Sampler
    human: Human
    system: str
    max_turns: int
    max_prompt: int
    seed: int

    def play(
        self, wanted: Sequence[Assignment], progress: Callable[[int], None] = lambda finished: None
    ) -> list[Trajectory]:
        """A finished, ungraded trajectory for each assignment, in order. `progress` is told how many have ended.

        An episode whose prompt outgrows `max_prompt` tokens ends there without an answer.
        """
        plays = [self._begin(assignment) for assignment in wanted]
        for turn in range(1, self.max_turns + 1):
            for play in plays:
                if not play.episode.done and len(play.ids) > self.max_prompt:
                    play.episode = play.episode.give_up()
            active = [play for play in plays if not play.episode.done]
            if not active:
                break
            self._agent_turn(active, turn)
            progress(sum(play.episode.done for play in plays))
            self._human_turn([play for play in active if play.episode.human_is_next], turn)
        return [self._finished(play) for play in plays]

    def _begin(self, wanted: Assignment) -> _Play:
        episode = Episode(wanted.task, max_turns=self.max_turns)
        ids = self.chat.prompt_ids(chat_messages(episode.messages, self.system))
        if len(ids) > self.max_prompt:
            raise BadInput(
                f"task {wanted.task.task_id} ({wanted.task.problem_description[:40]!r}...): the first prompt has "
                f"{len(ids)} tokens, more than the {self.max_prompt} that leave room for a turn"
            )
        return _Play(wanted, episode, list(ids), [0] * len(ids))

    def _agent_turn(self, active: Sequence[_Play], turn: int) -> None:
        seeds = [seed_of(self.seed, "agent", play.wanted.task.task_id, play.wanted.sample, turn) for play in active]
        drawn = self.sampler.sample([play.ids for play in active], seeds)
        for play, (sample,) in zip(active, drawn, strict=True):
            prompt = self.chat.decode(play.ids)
            play.add(sample.ids, turn)
            play.cut += not sample.ended
            extra = {"logprob": round(float(sample.logps.sum()), 4), "tokens": len(sample.ids)}
            play.episode = play.episode.step_agent(self.chat.reply_text(sample.ids), prompt=prompt, extra=extra)

    def _human_turn(self, waiting: Sequence[_Play], turn: int) -> None:
        if not waiting:
            return
        requests = [
            HumanRequest(
                play.wanted.task,
                play.episode.shown_messages,
                seed_of(self.seed, "human", play.wanted.task.task_id, play.wanted.sample, turn),
            )
            for play in waiting
        ]
        for play, reply in zip(waiting, self.human.replies(requests), strict=True):
            play.episode = play.episode.step_human(reply)
            said = play.episode.history[-1].content
            play.add(self.chat.continue_ids(play.ids, said), 0)

    def _finished(self, play: _Play) -> Trajectory:
        last = int(np.flatnonzero(play.turns)[-1]) + 1  # an unanswered human reply is no part of the dialogue
        prefix = int(play.ids[0] == self.chat.bos_id)
        row = TokenRow(np.array(play.ids[:last], np.int32), np.array(play.turns[:last], np.int32), prefix)
        extra = {
            "sample": play.wanted.sample,
            "seed": self.seed,
            "human": {"name": self.human.name, "settings": dict(self.human.settings)},
            "turns_cut": play.cut,
            TOKENS: row_to_json(row),
        }
        return play.episode.to_trajectory(extra)


_ATTEMPTS = 4


class ModelHuman:
    """A human played by a Llama through our own sampler; the prompt is colbench_env's `backend_human`."""

    name = "model"

    def __init__(self, chat: Chat, sampler: Sampler, model_name: str):
        self._chat, self._sampler = chat, sampler
        self.settings: Mapping[str, Any] = {
            "model": model_name,
            "prompt": "backend_human",
            "temperature": sampler.sampling.temperature,
            "max_new_tokens": sampler.sampling.max_new_tokens,
        }

    def replies(self, requests: Sequence[HumanRequest]) -> list[str]:
        """One reply each. A blank one is drawn again with another seed; RuntimeError where it stays blank."""
        found: dict[int, str] = {}
        for attempt in range(_ATTEMPTS):
            left = [index for index in range(len(requests)) if index not in found]
            if not left:
                break
            prompts = [self._chat.prompt_ids([{"role": "user", "content": human_prompt(requests[i])}]) for i in left]
            drawn = self._sampler.sample(prompts, [(requests[i].seed + attempt) % 2**32 for i in left])
            texts = [self._chat.reply_text(sample.ids).strip() for (sample,) in drawn]
            found |= {index: text for index, text in zip(left, texts, strict=True) if text}
        if len(found) < len(requests):
            missing = next(index for index in range(len(requests)) if index not in found)
            task = requests[missing].task.task_id
            raise RuntimeError(f"the simulated human gave no reply about task {task} in {_ATTEMPTS} attempts")
        return [found[index] for index in range(len(requests))]
