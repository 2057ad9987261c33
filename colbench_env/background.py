"""One event loop on a thread of its own, for those who are not asynchronous and want a coroutine's result."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """The future result of the coroutine, which runs on the background loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop())


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns or raises; it runs on the background loop while this thread waits."""
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
