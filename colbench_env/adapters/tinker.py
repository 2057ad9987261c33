"""ColBench as a `MessageEnv` of the Tinker cookbook; `EnvFromMessageEnv(renderer, ColBenchEnv(...))` trains on it."""

import asyncio

from tinker_cookbook.renderers import get_text_content
from tinker_cookbook.renderers.base import Message
from tinker_cookbook.rl.message_env import MessageEnv, MessageStepResult

from colbench_env.adapters import Session
from colbench_env.source import Source


class ColBenchEnv(MessageEnv):
    """One episode about task `index` of `split`. Raises BadInput for one there is not, and Spoilt where the machine
    failed: such an episode has no reward."""

    def __init__(self, source: Source, split: str = "", index: int | None = None, seed: int | None = None):
        self._session, self._which = Session(source), (split, index, seed)
        self._session.begin(*self._which)
        self.example_id = self._session.task_id

    async def initial_observation(self) -> list[Message]:
        """Begin the episode: the system prompt and what the user says."""
        await asyncio.to_thread(self._session.begin, *self._which)
        return self._messages()

    async def step(self, message: Message) -> MessageStepResult:
        """Say the agent's turn: the reward is 0.0 until the last one."""
        session = self._session
        await asyncio.to_thread(session.step, get_text_content(message))
        metrics = {"success": float(session.success), "tests_passed": session.reward or 0.0} if session.done else {}
        return MessageStepResult(
            reward=session.reward or 0.0, episode_done=session.done, next_messages=self._messages(), metrics=metrics
        )

    def _messages(self) -> list[Message]:
        return [Message(role=message["role"], content=message["content"]) for message in self._session.messages]
