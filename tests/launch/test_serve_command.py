"""The command `launch.serve`: flags, ports and signals."""

import os
import signal
import socket
import subprocess
import sys

import pytest

import sweet_jax.generation.load
from launch import rollout, serve


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--port=0", "--model=/nowhere"], "/nowhere"),
        (["--port=0", "--mesh=4x2", "--rows=6"], "a batch of 6 cannot be divided"),
        (["--api-key-env=NOT_THERE"], "--api-key-env=NOT_THERE: there is no such variable"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_sentence(in_process, flags, complaint):
    assert complaint in in_process(serve.main, *flags).refuses()


@pytest.mark.parametrize(("flag", "complaint"), [("--port=70000", "port is 70000"), ("--rows=0", "rows is 0")])
def test_flags_out_of_range_end_the_command_with_status_2(in_process, flag, complaint):
    ended = in_process(serve.main, flag)
    assert ended.status == 2 and complaint in ended.stderr


def test_rows_longer_than_the_network_was_made_for_are_refused_before_weights_are_read(in_process, monkeypatch):
    monkeypatch.setattr(sweet_jax.generation.load, "load_llama", lambda *_: pytest.fail("weights are read"))
    complaint = "max_length is 1025, it must be at least 2 and at most the network's 1024 positions"
    assert complaint in in_process(serve.main, "--port=0", "--max-length=1025").refuses()
    assert complaint in in_process(rollout.main, "--max-length=1025").refuses()


def test_a_server_without_its_extra_says_what_to_install(in_process, monkeypatch):
    for name in ("launch.serving.app", "starlette.applications"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "starlette", None)
    refused = in_process(serve.main, "--model=/nowhere", "--port=0").refuses()
    assert refused == "error: a server needs the package starlette: pip install -e '.[serve]'"


def test_a_busy_port_is_told_before_a_model_is_read(in_process):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refusal = in_process(serve.main, f"--port={port}", "--model=/nowhere").refuses()
    assert refusal == f"error: --host=127.0.0.1 --port={port}: Address already in use"


@pytest.mark.slow
def test_sigterm_ends_the_command_with_a_sentence_and_status_143():
    command = [sys.executable, "-m", "launch.serve", "--port=0", "--rows=2"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert line.startswith("serving embedded at http://127.0.0.1:") and line.endswith("/v1, 2 rows of 1024\n")
        said, status = process.stderr.read(), process.wait()
        assert (said, status) == ("stopped by SIGTERM; run the same command again to continue\n", 143)


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_status_0():
    command = [sys.executable, "-m", "launch.serve", "--port=0", "--rows=2"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert (process.stderr.read(), process.wait()) == ("ended\n", 0)


SLOW_CLOSE = """
import os, signal, sys, threading, time
from types import SimpleNamespace as Stub

from starlette.responses import Response

async def app(scope, receive, send):
    os.kill(os.getpid(), signal.SIGTERM)
    await Response()(scope, receive, send)

def close():  # as an engine in whose thread a program is compiled
    if {second}:
        threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    time.sleep(30)

served = Stub(name="stub", engine=Stub(max_length=10, close=close))
sys.modules |= {{  # none of them, so no jax
    "launch.serving.loading": Stub(load_served=lambda *_: served),
    "launch.serving.app": Stub(make_app=lambda _: app),
    "sweet_jax.generation.sampling": Stub(Sampling=None),
}}
from launch.common import cli, stopping
from launch import serve

stopping.GRACE_SECONDS, stopping.SAME_SECONDS = {grace}, 0.2
cli.run(serve.main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grace", "second", "expected"),
    [(0.5, False, "stopped by SIGTERM; run the same command again to continue\n"), (20, True, "")],
    ids=["grace", "second"],
)
def test_an_engine_that_does_not_close_is_left_after_the_grace_or_at_a_second_sigterm(grace, second, expected):
    command = [sys.executable, "-c", SLOW_CLOSE.format(grace=grace, second=second), "--port=0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        port = int(process.stderr.readline().partition("127.0.0.1:")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
            try:
                assert (process.communicate(timeout=15)[1], process.returncode) == (expected, 143)
            finally:
                process.kill()
