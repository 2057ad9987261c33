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
    """What a client may take of the server; times in seconds. `ServeConfig` says what each is."""

    header_timeout: float = 20.0
    body_timeout: float = 60.0
    keep_alive_timeout: float = 30.0
    unread_timeout: float = 120.0
    max_connections: int = 512
    max_body_bytes: int = 4 * 2**20

    def __post_init__(self) -> None:
        for name, value in ((field.name, getattr(self, field.name)) for field in fields(self)):
            if not (math.isfinite(value) and value > 0):
                raise BadInput(f"{name} is {value}, it must be above 0 and finite")


@dataclass(frozen=True)
class ServeConfig:
    """Serves a model to clients of OpenAI's chat completions.

    model: "embedded" (the small start policy that comes with the package) or a Hugging Face directory of a Llama model.
    mesh: DATAxTENSOR devices. name: what clients call the model; by default its directory's name.
    host, port: where to listen; port 0 takes a free one. rows: turns that are drawn side by side.
    max_length: tokens of a prompt and its turn together; 0: 2048, or what the network was made for where that is less.
    prompt_date: what chat templates show that ask for today's date; the same on every day, so that answers are.
    seed: requests without a seed of their own are given seeds that follow from it.
    api_key_env: an environment variable with the key that clients must send; without it nobody is asked for one.
    header_timeout: seconds for the head of a request, from the connection or the request's first byte on.
    body_timeout: seconds for its body, which may have max_body_bytes. keep_alive_timeout: seconds for the next request
    of a connection to begin. unread_timeout: seconds in which a client may read nothing of an answer. max_connections:
    at once. An answer that is read may take as long as it takes.
    """

    model: str = "embedded"
    mesh: str = "1x1"
    name: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    rows: int = 32
    max_length: int = 0
    prompt_date: str = PROMPT_DATE
    seed: int = 0
    api_key_env: str = ""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["xla", "splash", "cudnn"] = "xla"
    limits: Annotated[Limits, FLAT] = Limits()

    def __post_init__(self) -> None:
        check_date("prompt_date", self.prompt_date)
        if not 0 <= self.port < 65536:
            raise BadInput(f"port is {self.port}, it must be at least 0 and below 65536")
        if self.rows < 1 or self.max_length < 0 or self.seed < 0:
            raise BadInput(
                f"rows is {self.rows}, max_length {self.max_length} and seed {self.seed}: at least 1, 0 and 0"
            )
