"""The client of a ColBench server."""

from typing import Any

from openenv.core import EnvClient
from openenv.core.client_types import StepResult

from colbench_env.adapters.openenv.models import ColBenchAction, ColBenchObservation, ColBenchState


class ColBenchClient(EnvClient[ColBenchAction, ColBenchObservation, ColBenchState]):
    """Talks to a server: `with ColBenchClient(base_url="http://localhost:8000").sync() as client: ...`."""

    def _step_payload(self, action: ColBenchAction) -> dict[str, Any]:
        return {"text": action.text}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[ColBenchObservation]:
        done, reward = payload.get("done", False), payload.get("reward")
        observation = ColBenchObservation(**payload["observation"] | {"done": done, "reward": reward})
        return StepResult(observation=observation, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> ColBenchState:
        return ColBenchState(**payload)
