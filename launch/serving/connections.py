"""The HTTP server, whose connections end in time: a client sends its request soon, or makes room for others."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from launch.serving.chat_request import APIError
from launch.serving.config import Limits

GRACE_SECONDS = 5  # for streams that are under way when the server is told to end


def make_server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """Make the server of the application; its signal handlers and its sockets are the caller's."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            loop="asyncio",  # uvloop would take the wakeup fd, through which `launch.common.stopping` hears of SIGTERM
            http=functools.partial(LimitedProtocol, limits),  # type: ignore[arg-type]  # any callable
            ws="none",
            lifespan="off",
            log_level="warning",
            timeout_keep_alive=limits.keep_alive_timeout,  # type: ignore[arg-type]  # float seconds
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


class LimitedProtocol(H11Protocol):
    """A connection that ends where no request comes, where its answer is not read, or where there are too many.

    uvicorn itself ends one that is silent after an answer, and counts no time before the first request, nor from the
    first byte of a request on, nor while a client does not read. The body's time is counted by who reads it.
    """

    def __init__(self, limits: Limits, **settings: Any):
        super().__init__(**settings)
        self._limits = limits
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # narrower than the base class
        if len(self.connections) > self._limits.max_connections:
            taken = f"all {self._limits.max_connections} connections are taken"
            self._refuse(APIError(503, taken, "too_many_connections"))
        else:
            self._start_timer("head", self._limits.header_timeout)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._start_timer("head", self._limits.header_timeout)
        super().data_received(data)

    def handle_events(self) -> None:
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self._stop_timer("head")
            self._follow_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._follow_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._follow_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, or wait if some of the answer is unread; uvicorn counts from when it is written."""
        if self.transport.get_write_buffer_size():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for name in list(self._timers):
            self._stop_timer(name)
        super().connection_lost(exc)

    def _follow_reading(self) -> None:
        """Give the client its time to read something of what is left.

        Only where nothing more is written meanwhile (the application has ended, or waits): then what is left shrinks
        with what is read.
        """
        self._stop_timer("unread")
        unread = self.transport.get_write_buffer_size()
        ended = self.cycle is not None and self.cycle.response_complete
        if unread and (ended or self.flow.write_paused):
            check = functools.partial(self._check_reading, unread)
            self._start_timer("unread", self._limits.unread_timeout, check)

    def _check_reading(self, unread_before: int) -> None:
        if self.transport.get_write_buffer_size() < unread_before:
            self._follow_reading()
        else:
            self.transport.abort()

    def _start_timer(self, name: str, seconds: float, then: Callable[[], None] | None = None) -> None:
        """Call `then`, or end the connection, after so many seconds; a running timer of that name goes on."""
        if name not in self._timers:
            self._timers[name] = self.loop.call_later(seconds, then or self.transport.abort)

    def _stop_timer(self, name: str) -> None:
        if name in self._timers:
            self._timers.pop(name).cancel()

    def _refuse(self, refused: APIError) -> None:
        body = json.dumps(refused.to_json()).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        for event in (h11.Response(status_code=refused.status, headers=headers), h11.Data(body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()
