"""SIGTERM, as a preempted machine sends it: the process ends with one sentence and status 143, and nothing is lost.

The signal raises `Terminated` in the main thread, wherever that is, as Ctrl-C raises KeyboardInterrupt: files may be
cut off at any moment. Only `defer_termination` puts it off, until an update is made and saved. Python handles signals
between two bytecodes, so a main thread that waits for a compiler hears of it late. A second thread, which the C handler
wakes at once, therefore ends the process where nothing has happened for GRACE_SECONDS, and at the second SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

STATUS = 128 + signal.SIGTERM  # what a shell says of a process that the signal has ended
GRACE_SECONDS = 10.0  # from the first SIGTERM to the end, where there is nothing to finish
SAME_SECONDS = 1.0  # signals so close together are one: `timeout` signals the process and then its group


class Terminated(KeyboardInterrupt):
    """SIGTERM has come; `place`, where it found the process, is part of the sentence.

    No Exception, so that nobody takes it for an error and goes on; asyncio lets a KeyboardInterrupt through.
    """

    def __init__(self, place: str = ""):
        super().__init__(f"stopped by SIGTERM{place and ' '}{place}; run the same command again to continue")


_came = threading.Event()
_raised = False
_deferred = False
_own = 0  # signals that the process has sent itself and not yet heard of


def end_at_once(terminated: Terminated) -> None:
    """Print the sentence and end the process, from any thread."""
    with contextlib.suppress(OSError, ValueError):
        print(terminated, file=sys.stderr, flush=True)
    os._exit(STATUS)


on_silence: Callable[[Terminated], None] = end_at_once
"""What the second thread does where the main thread does not answer; `distributed` tells the other processes first."""


def watch_for_sigterm() -> None:
    """Take over SIGTERM. Call this once, in the main thread, before jax is imported.

    libtpu answers SIGTERM with a stack dump where nobody has taken it over before.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.signal(signal.SIGTERM, _raise)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(receiver, sender), daemon=True).start()
    report = sys.unraisablehook

    def raise_again(lost: sys.UnraisableHookArgs) -> None:
        """Raise again what Python has dropped because it was raised in a callback, of the garbage collector, say."""
        if isinstance(lost.exc_value, Terminated):
            threading.Timer(0.05, _send_again).start()  # when the callback is over
        else:
            report(lost)

    sys.unraisablehook = raise_again


def termination_requested() -> bool:
    """Say whether SIGTERM has come."""
    return _came.is_set()


@contextlib.contextmanager
def defer_termination() -> Iterator[Callable[[], bool]]:
    """Keep SIGTERM from raising inside the block; yields `termination_requested`, which says whether it has come.

    Raises Terminated at the end of the block if it has.
    """
    global _deferred, _raised
    _deferred = True
    try:
        yield termination_requested
    except BaseException:
        _raised = termination_requested()  # so the handler will not raise it on the way out
        raise
    finally:
        _deferred = False
    if termination_requested() and not _raised:
        _raised = True
        raise Terminated


def _raise(*_: object) -> None:
    global _raised
    _came.set()
    if not (_raised or _deferred):
        _raised = True
        raise Terminated


def _send_again() -> None:
    global _raised, _own
    _raised = False
    _own += 1
    os.kill(os.getpid(), signal.SIGTERM)


def _listen(receiver: socket.socket, _sender: socket.socket) -> None:
    """Wait for signals; each wakes this thread at once. `_sender` is only kept open."""
    global _own
    first: float | None = None
    while True:
        if receiver.recv(1)[0] != signal.SIGTERM:
            continue
        if _own:
            _own -= 1
            continue
        if first is None:
            first = time.monotonic()
            _came.set()
            threading.Thread(target=_wait, daemon=True).start()
        elif time.monotonic() - first > SAME_SECONDS:
            os._exit(STATUS)


def _wait() -> None:
    silent_since = time.monotonic()
    while time.monotonic() - silent_since < GRACE_SECONDS:
        time.sleep(0.1)
        if _deferred:
            silent_since = time.monotonic()
    on_silence(Terminated())
