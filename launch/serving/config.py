"""Everything that `launch.serve` can be told; imports no jax."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from colbench_env.types import BadInput
from launch.common.flags import FLAT
from launch.common.settings import PROMPT_DATE, check_date


@dataclass(frozen=True)
class Limits:
    """What a client may take of the server; an answer that is read may take as long as it takes."""

    header_timeout: float = 20.0
    """Seconds for the head of a request, from the connection or the request's first byte on."""
    body_timeout: float = 60.0
    """Seconds for the body of a request."""
    keep_alive_timeout: float = 30.0
    """Seconds for the next request of a connection to begin."""
    unread_timeout: float = 120.0
    """Seconds in which a client may read nothing of an answer."""
    max_connections: int = 512
    """Connections at once."""
    max_body_bytes: int = 4 * 2**20
    """Bytes of a body at most."""

    def __post_init__(self) -> None:
        for name, value in ((field.name, getattr(self, field.name)) for field in fields(self)):
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"{name} is {value}, it must be above 0 and finite")


@dataclass(frozen=True)
class ServeConfig:
    """Serve a model to clients of OpenAI's chat completions."""

    model: str = "embedded"
    """embedded (small, in the package), or a Hugging Face directory of a Llama model."""
    mesh: str = "1x1"
    """DATAxTENSOR devices."""
    name: str = ""
    """What clients call the model; empty: the name of its directory."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8000
    """Port to listen at; 0: a free one."""
    rows: int = 32
    """Turns that are sampled side by side."""
    max_length: int = 0
    """Tokens of a prompt and its turn together; 0: 2048, or what the network was made for where that is less."""
    prompt_date: str = PROMPT_DATE
    """Date that chat templates show which ask for today's; the same on every day, so that answers are."""
    seed: int = 0
    """Requests without a seed of their own are given seeds that follow from it."""
    api_key_env: str = ""
    """Environment variable with the key that clients must send; empty: nobody is asked for one."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations."""
    plugin: str | None = None
    """Modules (FILE.py, module, entry point) that bring families of models: docs/plugins.md."""
    limits: Annotated[Limits, FLAT] = Limits()

    def __post_init__(self) -> None:
        check_date("prompt_date", self.prompt_date)
        if not 0 <= self.port < 65536:
            raise BadInput(f"port is {self.port}, it must be at least 0 and below 65536")
        if self.rows < 1 or self.max_length < 0 or self.seed < 0:
            raise BadInput(
                f"rows is {self.rows}, max_length {self.max_length} and seed {self.seed}: at least 1, 0 and 0"
            )
