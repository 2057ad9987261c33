"""ColBench as an OpenEnv environment: `ColBenchEnvironment`, its client, and a server.

    uvicorn colbench_env.adapters.openenv.server:app --port 8000     # COLBENCH_TASKS, COLBENCH_HUMAN, ...: see `Source`

The reference and the tests never leave the server.
"""

from colbench_env.adapters.openenv.client import ColBenchClient
from colbench_env.adapters.openenv.environment import ColBenchEnvironment
from colbench_env.adapters.openenv.models import ColBenchAction, ColBenchObservation, ColBenchState
from colbench_env.adapters.openenv.rubric import TurnCredit

__all__ = [
    "ColBenchAction",
    "ColBenchClient",
    "ColBenchEnvironment",
    "ColBenchObservation",
    "ColBenchState",
    "TurnCredit",
]
