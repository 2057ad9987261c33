"""Connections of the server: what idle, slow, dead and too many clients may take of it. No network is compiled."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

import launch.serving.app
from colbench_env.types import BadInput
from launch.common.settings import EMBEDDED_DIRECTORY
from launch.serving.app import make_app
from launch.serving.chat_request import APIError
from launch.serving.config import Limits
from launch.serving.connections import make_server
from launch.serving.loading import Served
from sweet_jax.data.chat import Chat

SOON, LATE = 0.5, 10.0  # seconds: a time-out, and how long a test waits for what it causes
SHORT_HEAD = Limits(header_timeout=SOON)
HEALTH = b"GET /health HTTP/1.1\r\nhost: here\r\n\r\n"
SMALL = 2**15  # bytes of a buffer
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: here\r\ncontent-length: 100\r\n\r\n"


@pytest.fixture(scope="module")
def chat():
    return Chat.load(EMBEDDED_DIRECTORY)


@contextlib.contextmanager
def listening(app, limits, send_buffer=None):
    """The port of the application and its server; `send_buffer`: bytes that the kernel takes of an answer."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    server = make_server(app, limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def serving(chat, limits):
    """The chat server without a model behind it: it answers /health, and refuses requests for other models."""
    served = Served("embedded", SimpleNamespace(ended=None, max_length=256), chat, limits=limits)
    with listening(make_app(served), limits) as (port, _):
        yield port


def connected(port):
    found = socket.create_connection(("127.0.0.1", port))
    found.settimeout(LATE)
    return found


def received(connection):
    """All that comes until the server closes the connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def dribble(connection, data):
    """Sends a byte every 50 ms until the server has closed the connection."""
    with contextlib.suppress(ConnectionError):
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)


def answered(connection):
    """Status and JSON of one answer, of which a connection may carry several."""
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        return answer.status, json.loads(answer.read())


def test_200_idle_connections_are_closed_and_others_are_answered_meanwhile(chat):
    with serving(chat, SHORT_HEAD) as port, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(port)) for _ in range(200)]
        with connected(port) as client:
            client.sendall(HEALTH)
            assert answered(client) == (200, {"status": "ok"})
        began = time.monotonic()
        assert [received(connection) for connection in idle] == [b""] * 200
        assert time.monotonic() - began < LATE


@pytest.mark.slow
@pytest.mark.parametrize("first", [b"", HEALTH, HEALTH + HEALTH])
def test_a_head_that_comes_byte_by_byte_is_waited_for_only_so_long_first_or_behind_others(chat, first):
    with serving(chat, SHORT_HEAD) as port, connected(port) as client:
        client.sendall(first)
        answers = b""
        while answers.count(b'{"status":"ok"}') < first.count(HEALTH):
            answers += client.recv(65536)
        began = time.monotonic()
        dribble(client, HEALTH[:30] * 10)
        assert received(client) == b"" and time.monotonic() - began < LATE


@pytest.mark.slow
def test_a_silent_connection_is_kept_for_the_next_request_only_so_long(chat):
    limits = Limits(header_timeout=SOON, keep_alive_timeout=3 * SOON)
    with serving(chat, limits) as port, connected(port) as client:
        for _ in range(2):
            client.sendall(HEALTH)
            assert answered(client)[0] == 200
            time.sleep(1.5 * SOON)  # longer than a head may take, which has not begun
        assert received(client) == b""


@pytest.mark.slow
def test_a_body_that_does_not_come_is_a_408_and_the_connection_is_closed(chat):
    with serving(chat, Limits(body_timeout=SOON)) as port, connected(port) as client:
        client.sendall(POST)
        dribble(client, b"{" * 40)
        head, _, body = received(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ") and b"connection: close" in head
        error = {"message": "the body was not whole after 0.5 s", "type": "invalid_request_error"}
        assert json.loads(body) == {"error": error | {"param": None, "code": "request_timeout"}}


@pytest.mark.slow
def test_a_body_that_comes_in_pieces_in_time_is_read(chat):
    with serving(chat, Limits(body_timeout=LATE, header_timeout=SOON)) as port, connected(port) as client:
        client.sendall(POST)
        for _ in range(4):
            client.sendall(b" " * 20)
            time.sleep(SOON / 2)
        client.sendall(b'{"model": "other"}  ')
        assert answered(client)[1]["error"]["message"] == "messages is missing"


def test_what_still_comes_of_a_body_that_was_answered_early_keeps_no_connection(chat):
    with serving(chat, SHORT_HEAD) as port, connected(port) as client:
        client.sendall(POST.replace(b"/v1/chat/completions", b"/v1/completions"))
        assert answered(client)[0] == 404
        dribble(client, b"{" * 40)
        assert received(client) == b""


def test_a_body_may_be_so_long_and_no_longer(chat):
    with serving(chat, Limits(max_body_bytes=100)) as port:
        for length, status in ((100, 400), (101, 413)):
            with connected(port) as client:
                client.sendall(POST.replace(b"100", str(length).encode()) + b" " * length)
                assert answered(client)[0] == status


def test_a_connection_too_many_is_told_so_and_a_later_one_is_served(chat):
    with serving(chat, Limits(max_connections=3)) as port, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(port)) for _ in range(3)]
        with connected(port) as client:
            status, told = answered(client)
        assert (status, told["error"]["code"]) == (503, "too_many_connections")
        assert told["error"]["message"] == "all 3 connections are taken"
        idle[0].close()
        for _ in range(100):
            with connected(port) as client, contextlib.suppress(ConnectionError):
                client.sendall(HEALTH)
                if (found := answered(client)) == (200, {"status": "ok"}):
                    break
            time.sleep(0.02)
        assert found == (200, {"status": "ok"})


@pytest.mark.parametrize("slow", ["read_chat_request", "_engine_requests"])
def test_others_are_answered_while_a_long_message_is_read_and_tokenised(chat, monkeypatch, slow):
    others_answered, in_time = threading.Event(), []

    def waits(*arguments):
        in_time.append(others_answered.wait(2.0))
        raise APIError(400, "done")

    monkeypatch.setattr(launch.serving.app, slow, waits)
    body = json.dumps({"model": "embedded", "messages": [{"role": "user", "content": "hi"}]}).encode()
    with serving(chat, Limits()) as port, connected(port) as asks, connected(port) as other:
        asks.sendall(POST.replace(b"100", str(len(body)).encode()) + body)
        time.sleep(0.2)
        other.sendall(HEALTH)
        assert answered(other) == (200, {"status": "ok"})
        others_answered.set()
        assert answered(asks)[1]["error"]["message"] == "done"
    assert in_time == [True]


def test_threads_that_tokenise_at_once_get_what_each_gets_alone(chat):
    def ids(number):
        text = f"{number} <|end|> " * (number % 3) + "count the words " * 200 * (number % 4)
        return chat.prompt_ids([{"role": "user", "content": text}])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ids, range(24))) == [ids(number) for number in range(24)]


def streams(pieces, size, pause):
    """An application that answers with `pieces` times `size` bytes, and waits before each."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for left in reversed(range(pieces)):
            await asyncio.sleep(pause)
            await send({"type": "http.response.body", "body": b"x" * size, "more_body": left > 0})

    return app


@pytest.mark.slow
def test_a_stream_that_is_read_may_take_longer_than_every_time_out():
    limits = Limits(header_timeout=SOON, body_timeout=SOON, keep_alive_timeout=SOON, unread_timeout=SOON)
    with listening(streams(pieces=6, size=3, pause=SOON / 2), limits) as (port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LATE)
        connection.request("POST", "/", b"body")
        assert connection.getresponse().read() == b"xxx" * 6
        connection.close()


def test_a_client_that_does_not_read_its_answer_loses_its_connection():
    app, limits = streams(pieces=64, size=2**20, pause=0), Limits(unread_timeout=SOON)
    with listening(app, limits) as (port, server), connected(port) as client:
        client.sendall(HEALTH)
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        wait_until_all_are_closed(server)
        assert len(received(client)) < 64 * 2**20


def wait_until_all_are_closed(server):
    for _ in range(100):
        if not server.server_state.connections:
            return
        time.sleep(LATE / 100)
    raise AssertionError("connections are still open")


def connected_with_small_buffer(port):
    """A client whose kernel takes little of an answer before it reads."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
    found.connect(("127.0.0.1", port))
    found.settimeout(LATE)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"keep_alive_timeout": SOON}, {"unread_timeout": SOON}], ids=str)
def test_an_answer_that_is_read_all_the_time_is_whole_however_long_that_takes(limits):
    size = 2**20
    with (
        listening(streams(1, size, pause=0), Limits(**limits), send_buffer=SMALL) as (port, _),
        connected_with_small_buffer(port) as client,
    ):
        client.sendall(HEALTH)
        got, began = 0, time.monotonic()
        while got < size and (part := client.recv(SMALL)):
            got += len(part)
            time.sleep(0.04)
        assert got >= size and time.monotonic() - began > 1.5 * SOON


@pytest.mark.slow
@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
@pytest.mark.parametrize("size", [5 * 2**15, 2**20])
def test_a_client_that_does_not_read_the_end_of_its_answer_loses_its_connection(more, size):
    """Whether so much is left that uvicorn counts it as too much, or less."""
    limits = Limits(unread_timeout=SOON, keep_alive_timeout=SOON)
    with (
        listening(streams(1, size, pause=0), limits, send_buffer=SMALL) as (port, server),
        connected_with_small_buffer(port) as client,
    ):
        client.sendall(HEALTH[:-2] + more + b"\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        wait_until_all_are_closed(server)


@pytest.mark.slow
def test_a_connection_is_kept_for_the_next_request_after_an_answer_that_took_long_to_read():
    limits, size = Limits(keep_alive_timeout=SOON), 2**20
    with (
        listening(streams(1, size, pause=0), limits, send_buffer=SMALL) as (port, _),
        connected_with_small_buffer(port) as client,
    ):
        for _ in range(2):
            client.sendall(HEALTH)
            time.sleep(1.5 * SOON)
            with http.client.HTTPResponse(client) as answer:
                answer.begin()
                assert len(answer.read()) == size
        assert received(client) == b""


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"header_timeout": 0.0}, "header_timeout is 0.0, it must be above 0 and finite"),
        ({"body_timeout": float("nan")}, "body_timeout is nan"),
        ({"keep_alive_timeout": float("inf")}, "keep_alive_timeout is inf"),
        ({"max_connections": 0}, "max_connections is 0"),
        ({"max_body_bytes": -1}, "max_body_bytes is -1"),
    ],
)
def test_limits_out_of_range_are_refused(limits, complaint):
    with pytest.raises(BadInput, match=complaint):
        Limits(**limits)
