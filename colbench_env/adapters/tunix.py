"""ColBench as a `BaseTaskEnv` of Tunix. The agent's system prompt is `Session.messages[0]`, or one of your own."""

from collections.abc import Mapping
from typing import Any, Self

from tunix.rl.agentic.agents.agent_types import Action
from tunix.rl.agentic.environments.base_environment import BaseTaskEnv, EnvStepResult

from colbench_env.adapters import Session
from colbench_env.source import Source


class ColBenchEnv(BaseTaskEnv):
    """One episode. task: {"split": ..., "index": ..., "seed": ...}, each of which may be left out."""

    def __init__(self, task: Mapping[str, Any] | None = None, *, source: Source | None = None, **others: Any):
        source = source or Source()
        super().__init__(dict(task or {}), max_steps=others.pop("max_steps", source.settings.max_turns), **others)
        self._session = Session(source)

    @property
    def system_prompt(self) -> str:
        """What the benchmark tells the agent before the dialogue."""
        return self._session.source.settings.system_prompt

    def _initial_observation(self) -> str:
        return self._session.begin(*(self.task.get(name) for name in ("split", "index", "seed")))

    def _step_impl(self, action: Any) -> EnvStepResult:
        """Say the agent's turn. Raises Spoilt where the machine failed: such an episode has no reward."""
        session = self._session
        text = session.step(action.action if isinstance(action, Action) else action)
        info = {"success": session.success, "turns_left": session.turns_left, "task_id": session.task_id}
        return EnvStepResult(observation=text, reward=session.reward or 0.0, done=session.done, info=info)

    @classmethod
    def from_dict(cls, env_args: dict[str, Any]) -> Self:
        """Make one of a row of a dataset: `split`, `index` and `seed`, and under `source` the values of a `Source`."""
        args = dict(env_args)
        source = Source.from_values(args.pop("source", None) or {})
        task: dict[str, Any] = {name: args.pop(name) for name in ("split", "index", "seed") if name in args}
        return cls(task, source=source, **args)
