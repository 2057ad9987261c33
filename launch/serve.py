"""`python -m launch.serve`: a model behind OpenAI's chat completions. Read `main`, then `launch.serving.app`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from types import FrameType

from launch.common import cli
from launch.serving.config import ServeConfig


def main() -> None:
    """Parse the flags, take the port, load the model, serve until SIGTERM (status 143) or Ctrl-C (0)."""
    config: ServeConfig = cli.parse_plain(ServeConfig, sys.argv[1:], "launch.serve")
    key = _api_key(config)
    with _listener(config) as listener:
        _serve(config, key, listener)


def _serve(config: ServeConfig, key: str | None, listener: socket.socket) -> None:
    # jax and what imports it only now: `--help`, bad flags and a busy port should be answered at once.
    from launch.common import stopping
    from launch.common.console import Console

    try:
        from launch.serving.app import make_app
        from launch.serving.connections import make_server
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        raise cli.bad_input(f"a server needs the package {missing}: pip install -e '.[serve]'") from None
    from launch.serving.loading import load_served
    from sweet_jax.plugins import load_plugins

    load_plugins(config.plugin or "")
    console = Console()
    served = load_served(config, key)
    server = make_server(make_app(served), config.limits)
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        server.handle_exit(number, frame)

    # In place of uvicorn's handlers, after which it would send the process the signal once more.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    host, port = listener.getsockname()[:2]
    console.say(f"serving {served.name} at http://{host}:{port}/v1, {config.rows} rows of {served.engine.max_length}")
    try:
        server.run(sockets=[listener])
    finally:
        served.engine.close()
    if signal.SIGTERM in received:
        raise stopping.Terminated
    console.say("ended")


def _api_key(config: ServeConfig) -> str | None:
    if not config.api_key_env:
        return None
    if not os.environ.get(config.api_key_env):
        raise cli.bad_input(f"--api-key-env={config.api_key_env}: there is no such variable, or an empty one")
    return os.environ[config.api_key_env]


def _listener(config: ServeConfig) -> socket.socket:
    """Open the socket that is served, first, so that a busy port is reported before a model is read."""
    listener = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise cli.bad_input(f"--host={config.host} --port={config.port}: {error.strerror}") from error
    return listener


if __name__ == "__main__":
    cli.run(main)
