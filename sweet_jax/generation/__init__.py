"""Continuous batching: requests come and go at any time and share one batch; caches are kept across turns.

    engine = Engine(model, params, end_ids, pad_id, rows=32, max_length=2048)
    sample = await engine.sample(Request(ids, seed, Sampling(max_new_tokens=64), session="dialogue 7"))

    samples = LockstepEngine(model, params, end_ids, pad_id, rows=32, max_length=2048).sample_all(requests)

`Engine` has a thread and serves askers of any asyncio loop; `LockstepEngine` computes in the thread of its only asker.
Read `engine.py` or `lockstep.py`, then `scheduler.py` (which request has which row), `programs.py` (what is computed)
and `sampling.py` (how a token is drawn).
"""

from sweet_jax.generation.engine import Engine
from sweet_jax.generation.lockstep import Lockstep, LockstepEngine
from sweet_jax.generation.requests import EngineClosed, Request, Token, check_length
from sweet_jax.generation.sampling import Sample, Sampling

__all__ = [
    "Engine",
    "EngineClosed",
    "Lockstep",
    "LockstepEngine",
    "Request",
    "Sample",
    "Sampling",
    "Token",
    "check_length",
]
