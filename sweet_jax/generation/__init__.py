"""Continuous batching: requests come and go at any time and share one batch; caches are kept across turns.

    engine = Engine(model, params, end_ids, pad_id, rows=32, max_length=2048)
    sample = await engine.sample(Request(ids, seed, Sampling(max_new_tokens=64), session="dialogue 7"))

Read `engine.py` (the thread), then `batch.py` (who sits in which row), then `programs.py` (what is computed).
"""

from sweet_jax.generation.engine import Engine, check_length
from sweet_jax.generation.requests import EngineClosed, Request, Token

__all__ = ["Engine", "EngineClosed", "Request", "Token", "check_length"]
