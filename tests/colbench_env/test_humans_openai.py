"""Humans behind an endpoint, with the real client and a server that misbehaves in every way."""

import asyncio
import http.server
import json
import threading
import time
import types

import pytest

from colbench_env.endpoint import Endpoint, EndpointSettings
from colbench_env.episodes import EpisodeFailed, Settings, play
from colbench_env.humans import SimulatorRequest
from colbench_env.humans.openai import OpenAISimulator
from colbench_env.simulator_health import WITHOUT_LEAKS
from colbench_env.types import BadInput, Message, NoReply, Task

TASK = Task("Task a.", "def f(x): return x", {"test1": "f(1)"}, "unit: Euros.")
REQUEST = SimulatorRequest(TASK, (Message("user", "Task a."), Message("assistant", "Which unit?")), 5)


class Server:
    """Answers with what is left of `script`, then with "Euros."; keeps the bodies of the requests."""

    def __init__(self):
        self.script, self.bodies, self.keys, self.models = [], [], [], ["m"]
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def send(self, status, text, headers=()):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def do_GET(self):
                if outer.models is None:
                    return self.send(404, "{}")
                self.send(
                    200, json.dumps({"object": "list", "data": [{"id": m, "object": "model"} for m in outer.models]})
                )

            def do_POST(self):
                outer.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.keys.append(self.headers["Authorization"])
                what = outer.script.pop(0) if outer.script else "Euros."
                if what == "DROP":
                    self.close_connection = True
                    return self.connection.close()
                if what == "SLOW":
                    time.sleep(5.0)
                    what = "too late"
                if isinstance(what, tuple):
                    return self.send(*what)
                self.send(200, completion(what))

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()


def completion(text):
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})


def refusal(status, code=None, headers=()):
    return status, json.dumps({"error": {"message": "no, because", "code": code}}), headers


@pytest.fixture
def server():
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def human(server, **changed):
    return OpenAISimulator(Endpoint(EndpointSettings(**{"url": server.url, "model": "m", "retries": 1} | changed)))


def say(who):
    async def reply():
        return await who.reply(REQUEST)

    return asyncio.run(reply())


def asks(messages):
    return "Which unit?" if len(messages) == 1 else "I WANT TO ANSWER: x"


def test_the_request_holds_prompt_sampling_seed_key_and_template_arguments(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    who = human(server, key="MY_KEY", temperature=0.5, top_p=0.9, max_tokens=7, template={"enable_thinking": False})
    assert say(who) == "Euros."
    (body,) = server.bodies
    assert "unit: Euros." in body["messages"][0]["content"]
    del body["messages"]
    assert body == {
        "model": "m",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
        "seed": 5,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert server.keys == ["Bearer secret"]
    assert "secret" not in json.dumps(who.settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    ["DROP", "SLOW", refusal(500), refusal(503), refusal(408), refusal(429, headers=[("Retry-After", "0.1")])],
    ids=["drop", "slow", "500", "503", "408", "429"],
)
def test_what_may_pass_is_tried_again_by_the_client(server, first):
    server.script = [first]
    assert say(human(server, timeout=4.0)) == "Euros."
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "first", ["", " \n", None, (200, "{broken"), (200, "[]"), (200, "{}"), (200, '{"choices": []}')]
)
def test_an_answer_without_words_is_asked_for_again_with_another_seed(server, first):
    server.script = [first]
    row = play(TASK, asks, human(server), Settings(system="", retry_seconds=0.0))
    assert row.dialogue_history[2].content == "Euros."
    assert server.bodies[1]["seed"] - server.bodies[0]["seed"] == 1


def test_a_human_that_stays_empty_is_a_failed_episode_and_never_a_turn(server):
    server.script = [""] * 3
    with pytest.raises(EpisodeFailed, match=r"the human failed: ValueError: .* sent an empty reply \(attempts: 3\)"):
        play(TASK, asks, human(server), Settings(system="", retry_seconds=0.0))
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refusal(401), r"refuses the key in the environment variable NO_KEY \(it is not set\): .*no, because"),
        (refusal(404), r"does not know the model 'm' \(status 404\)"),
    ],
)
def test_a_wrong_key_or_model_ends_the_run_at_once(server, answer, message):
    server.script = [answer]
    with pytest.raises(BadInput, match=message):
        play(TASK, asks, human(server, key="NO_KEY"), Settings(system=""))
    assert len(server.bodies) == 1


def test_a_used_up_quota_ends_the_run(server):
    server.script = [refusal(429, "insufficient_quota")]
    with pytest.raises(BadInput, match="the quota is used up"):
        say(human(server, retries=0))


def test_a_context_too_long_is_the_episodes_failure_and_not_tried_again(server):
    server.script = [refusal(400, "context_length_exceeded")]
    with pytest.raises(EpisodeFailed, match=r"NoReply: .* \(status 400\).* \(attempts: 1\)"):
        play(TASK, asks, human(server), Settings(system=""))
    server.script = [refusal(400, "context_length_exceeded")]
    with pytest.raises(NoReply):
        say(human(server))


@pytest.mark.parametrize(("models", "known"), [(["m"], True), (["a", "b"], False), (None, True), ([], True)])
def test_the_models_name_is_checked_where_the_server_lists_its_models(server, models, known):
    server.models = models
    check = Endpoint(EndpointSettings(server.url, "m")).check
    if known:
        asyncio.run(check())
    else:
        with pytest.raises(BadInput, match="has no model 'm', expected one of a, b$"):
            asyncio.run(check())


def test_an_endpoint_that_is_down_is_one_sentence():
    with pytest.raises(BadInput, match="^http://127.0.0.1:9/v1: the endpoint cannot be reached"):
        asyncio.run(Endpoint(EndpointSettings("http://127.0.0.1:9/v1", "m", retries=0)).check())


def test_no_more_requests_are_under_way_than_allowed(server, monkeypatch):
    under_way, most = 0, 0

    async def create(*_, **__):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        for _ in range(5):  # whoever may begin beside this one has begun by then
            await asyncio.sleep(0)
        under_way -= 1
        return types.SimpleNamespace(choices=[types.SimpleNamespace(message=types.SimpleNamespace(content="Euros."))])

    monkeypatch.setattr("openai.resources.chat.completions.AsyncCompletions.create", create)
    who = human(server, concurrency=2)

    async def five():
        return await asyncio.gather(*(who.reply(REQUEST) for _ in range(5)))

    assert asyncio.run(five()) == ["Euros."] * 5
    assert most == 2


def test_leaks_are_marked_and_counted_and_asked_for_again_if_they_shall_not_be(server):
    server.script = ["```x```"]
    row = play(TASK, asks, human(server), Settings(system=""))
    assert (row.dialogue_history[2].extra["leaks"], row.extra["leaks"], row.extra["reasked"]) == (["fence"], 1, 0)
    server.script = ["```x```", "def f(x):"]
    row = play(TASK, asks, human(server), Settings(system="", no_leaks=True))
    assert (row.dialogue_history[2].content, row.extra["leaks"], row.extra["reasked"]) == ("Euros.", 0, 2)
    server.script = ["```x```"] * 3
    with pytest.raises(EpisodeFailed, match=r"gives the solution away \(fence\) \(attempts: 3\)"):
        play(TASK, asks, human(server), Settings(system="", no_leaks=True))


def test_leaks_are_taken_out_if_the_dialogue_shall_be_free_of_them(server):
    free = Settings(system="", leak_free=True)
    server.script = ["In euros. ```python\nprice = 1```"]
    row = play(TASK, asks, human(server), free)
    said = row.dialogue_history[2]
    assert (said.content, said.extra["leaks_removed"]) == ("In euros.", ["fence"])
    assert "leaks" not in said.extra
    assert (row.extra["leaks"], row.extra["leaks_removed"], row.extra["reasked"]) == (0, 1, 0)
    assert row.extra["rules"]["leak_free"] is True
    server.script = ["def f(x):\n"]
    assert play(TASK, asks, human(server), free).dialogue_history[2].content == WITHOUT_LEAKS
    with pytest.raises(BadInput, match="asked for again or cleaned, not both"):
        Settings(no_leaks=True, leak_free=True)
