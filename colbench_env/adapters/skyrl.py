"""ColBench as a `BaseTextEnv` of SkyRL-gym; importing this registers the environment `colbench`."""

from collections.abc import Mapping
from typing import Any

import skyrl_gym
from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

from colbench_env.adapters import Session
from colbench_env.source import Source

MADE = ("split", "index", "seed")


def rows(source: Source, split: str) -> list[dict[str, Any]]:
    """Make the rows of a dataset: prompt, environment, and which task it is."""
    session, made = Session(source), []
    for index in range(len(source.tasks_of(split))):
        session.begin(split, index)
        made.append({"prompt": session.messages, "env_class": "colbench", "split": split, "index": index})
    return made


class ColBenchEnv(BaseTextEnv):
    """One episode. env_config: values of a `Source`. extras: the row, of which split, index and seed count."""

    def __init__(self, env_config: Mapping[str, Any] | None = None, extras: Mapping[str, Any] | None = None):
        super().__init__()
        self._session = Session(Source.from_values(dict(env_config or {})))
        self._which = {name: value for name, value in (extras or {}).items() if name in MADE}
        self.max_turns = self._session.source.settings.max_turns

    def init(self, prompt: list[dict[str, str]]) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """Begin the episode and return its messages, in place of the row's; raises BadInput for a task there is not."""
        self._session.begin(**self._which)
        return self._session.messages, {"task_id": self._session.task_id}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Say the agent's turn. Raises Spoilt where the machine failed: such an episode has no reward."""
        session = self._session
        text = session.step(action)
        self.turns += 1
        said = [] if session.done else [{"role": "user", "content": text}]
        metadata = {"task_id": session.task_id, "turns_left": session.turns_left}
        return BaseTextEnvStepOutput(
            observations=said, reward=session.reward or 0.0, done=session.done, metadata=metadata
        )

    def get_metrics(self) -> dict[str, float]:
        """Return what is averaged over episodes."""
        return {"success": float(self._session.success), "turns": float(self.turns)}

    def close(self) -> None:
        """Forget the episode."""
        self._session.close()


if "colbench" not in skyrl_gym.registry:
    skyrl_gym.register(id="colbench", entry_point=f"{__name__}:ColBenchEnv")
