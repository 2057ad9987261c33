"""One event loop on a thread of its own, for those who are not asynchronous and want a coroutine's result."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start the coroutine on the background loop and return its future result."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop())


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run the coroutine on the background loop while this thread waits, and return or raise what it does."""
    future = submit(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # Ctrl-C: nobody waits for it any more
        raise


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="colbench-background", daemon=True).start()
    return loop
