"""What is asked of the engine, what comes back, and the bridge between its thread and the loop of who asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from colbench_env.types import BadInput
from sweet_jax.generation.batch_sampler import Sampling
from sweet_jax.generation.sampling import TOP


class EngineClosed(Exception):
    """The engine was closed, or its thread has ended with an error, before the turn was drawn."""


@dataclass(frozen=True)
class Request:
    """A turn that is wanted.

    ids: the whole prompt so far. seed: unsigned 32 bits. sample: the number of this sample of the prompt, as in
    `Sampler.sample`; other numbers draw other turns. sampling: how tokens are drawn. session: keeps its cache after the
    turn; the next request of the session must begin with the ids read and drawn so far, and only what is new is read.
    tops: how many alternatives are told of each token, at most 20.
    """

    ids: Sequence[int]
    seed: int
    sampling: Sampling
    session: Hashable | None = None
    sample: int = 0
    tops: int = 0

    def __post_init__(self) -> None:
        if not len(self.ids):
            raise BadInput("the prompt is empty: there is nothing to go on from")
        if not 0 <= self.seed < 2**32 or not 0 <= self.sample < 2**32:
            raise BadInput(f"seed is {self.seed} and sample {self.sample}, they must be at least 0 and below 2^32")
        if not 0 <= self.tops <= TOP:
            raise BadInput(f"tops is {self.tops}, it must be at least 0 and at most {TOP}")


@dataclass(frozen=True)
class Token:
    """A drawn token, with its log-prob under the distribution it was drawn from (`batch_sampler.Sample`), and the
    likeliest tokens of that distribution as (id, log-prob), as many as the request asked for."""

    id: int
    logp: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Ticket:
    """A request on its way. The thread writes to `inbox` through `send`; the asker's loop reads it.

    inbox: lists of tokens, then None or an exception. cancelled: the asker has gone; set by its loop, read by the
    thread.
    """

    request: Request
    loop: asyncio.AbstractEventLoop
    inbox: asyncio.Queue = field(default_factory=asyncio.Queue)
    cancelled: bool = False


Letter = tuple[Ticket, list[Token] | BaseException | None]
"""What somebody is told: tokens, the end of the turn (None), or that it has failed."""


def send(letters: Sequence[Letter]) -> None:
    """Puts each letter, in order, into its inbox; every asker's loop is woken once for all of its letters."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Letter]] = {}
    for letter in letters:
        by_loop.setdefault(letter[0].loop, []).append(letter)
    for loop, its in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the asker's loop is closed: nobody is left to hear it
            loop.call_soon_threadsafe(_put, its)


def _put(letters: Sequence[Letter]) -> None:
    for ticket, what in letters:
        ticket.inbox.put_nowait(what)
