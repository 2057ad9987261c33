"""The server: `uvicorn colbench_env.adapters.openenv.server:app`, told what to play by environment variables."""

import os
import sys
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openenv.core.env_server.http_server import create_app

from colbench_env.adapters.openenv.environment import ColBenchEnvironment
from colbench_env.adapters.openenv.models import ColBenchAction, ColBenchObservation, ColBenchState
from colbench_env.adapters.openenv.rubric import StepCredit
from colbench_env.import_function import import_function
from colbench_env.source import Source
from colbench_env.types import BadInput


def make_app(source: Source, sessions: int = 64, credit: StepCredit | None = None) -> FastAPI:
    """Make the server, for at most `sessions` episodes at a time. Raises BadInput before it serves anything.

    credit: what each turn of a graded dialogue is worth; None: the last turn gets the reward.
    """
    source.tasks_of(source.splits[0])
    _ = source.simulator, source.grader
    app = create_app(
        lambda: ColBenchEnvironment(source, credit),
        ColBenchAction,
        ColBenchObservation,
        env_name="colbench",
        max_concurrent_envs=sessions,
        state_cls=ColBenchState,
    )

    async def refuse(request: Request, problem: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(problem)}, status_code=400)

    app.add_exception_handler(BadInput, refuse)
    app.add_exception_handler(ValueError, refuse)
    return app


def __getattr__(name: str) -> Any:
    """Make `app`, for uvicorn, when it is asked for: who imports `make_app` starts no grader."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        sessions = os.environ.get("COLBENCH_SESSIONS", "64")
        if not sessions.isdecimal() or int(sessions) < 1:
            raise BadInput(f"COLBENCH_SESSIONS is {sessions!r}, expected a whole number of at least 1")
        named = os.environ.get("COLBENCH_CREDIT")
        return make_app(Source.from_environment(), int(sessions), import_function(named) if named else None)
    except BadInput as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
