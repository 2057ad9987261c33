"""What is asked of an engine, and what comes back."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from colbench_env.types import BadInput
from models.config import LlamaConfig
from sweet_jax.generation.sampling import TOP, Sampling


class EngineClosed(Exception):
    """The engine was closed, or its thread has ended with an error, before the turn was drawn."""


@dataclass(frozen=True)
class Request:
    """A turn that is wanted.

    ids: the whole prompt so far. seed: unsigned 32 bits. sample: the number of this sample of the prompt; other numbers
    draw other turns. sampling: how tokens are drawn. session: keeps its cache after the turn; the next request of the
    session must begin with the ids read and drawn so far, and only what is new is read. tops: how many alternatives are
    reported of each token, at most 20. cuts: numbers of tokens, ascending, after which reading is cut: requests whose
    first parts are equal share them.
    """

    ids: Sequence[int]
    seed: int
    sampling: Sampling
    session: Hashable | None = None
    sample: int = 0
    tops: int = 0
    cuts: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not len(self.ids):
            raise BadInput("the prompt is empty: there is nothing to go on from")
        if not 0 <= self.seed < 2**32 or not 0 <= self.sample < 2**32:
            raise BadInput(f"seed is {self.seed} and sample {self.sample}, they must be at least 0 and below 2^32")
        if not 0 <= self.tops <= TOP:
            raise BadInput(f"tops is {self.tops}, it must be at least 0 and at most {TOP}")


@dataclass(frozen=True)
class Token:
    """A drawn token, with its log-prob under the distribution it was drawn from (`sampling.Sample`), and the likeliest
    tokens of that distribution as (id, log-prob), as many as the request asked for."""

    id: int
    logp: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class PendingRequest:
    """A request on its way. owner: whose it is, for whoever sends events on. cancelled: nobody waits for it any more;
    set by the owner, read by the scheduler."""

    request: Request
    owner: Any = None
    cancelled: bool = False


TokenEvent = tuple[PendingRequest, list[Token] | BaseException | None]
"""What becomes of a request: tokens were drawn, the turn has ended (None), or it has failed."""


def check_room(request: Request, max_length: int) -> None:
    """Raise BadInput unless the prompt and the longest turn fit into `max_length` tokens."""
    length, longest = len(request.ids), request.sampling.max_new_tokens
    if length + longest > max_length:
        raise BadInput(
            f"a prompt of {length} tokens and a turn of up to {longest} are {length + longest} tokens, "
            f"more than the {max_length} of a row"
        )


def check_length(max_length: int, config: LlamaConfig) -> None:
    """Raise BadInput unless the network was made for rows of that many tokens, and they have room for a turn."""
    if not 2 <= max_length <= config.max_position_embeddings:
        raise BadInput(
            f"max_length is {max_length}, it must be at least 2 and at most the network's "
            f"{config.max_position_embeddings} positions"
        )
