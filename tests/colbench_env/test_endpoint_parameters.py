"""Endpoints that take other parameters: what asks for the same is found, else the run ends with the name of a flag."""

import asyncio
import math

import pytest

from colbench_env.endpoint import TRIAL, Endpoint, EndpointSettings
from colbench_env.endpoint_settings import check_sampling
from colbench_env.episodes import Settings, play
from colbench_env.humans.openai import OpenAISimulator
from colbench_env.types import BadInput, NoReply
from tests.colbench_env.endpoints import Served, completion
from tests.colbench_env.players import TASKS

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which unit?"}]


@pytest.fixture
def serve():
    running = []

    def start(decide, **options):
        running.append(Served(decide, **options))
        return running[-1]

    yield start
    for server in running:
        server.close()


def endpoint(url, **changed):
    return Endpoint(EndpointSettings(**{"url": url, "model": "m", "retries": 0, "flags": "--human"} | changed))


def complete(who, seed=5, messages=ASKED):
    async def reply():
        async with asyncio.timeout(10):
            return await who.complete(messages, seed)

    return asyncio.run(reply())


def without(*names, shape=lambda name: {"error": {"message": f"'{name}' is not supported", "param": name}}, status=400):
    """A server that refuses these parameters whatever their values."""

    def decide(body):
        bad = next((name for name in names if name in body), None)
        return completion() if bad is None else (status, shape(bad))

    return decide


SHAPES = [
    lambda name: {
        "error": {"message": f"Unsupported parameter: '{name}'", "param": name, "code": "unsupported_parameter"}
    },
    lambda name: {"detail": [{"loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 1}]},
    lambda name: {
        "object": "error",
        "message": {"detail": [{"loc": ["body", name], "msg": "Extra inputs"}]},
        "param": None,
    },
    lambda name: [{"error": {"code": 400, "message": f'Unknown name "{name}": Cannot find field.'}}],
    lambda name: f"unknown field `{name}`",
]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [*SHAPES, lambda name: "", lambda name: "<html>Bad request</html>"])
@pytest.mark.parametrize("names", [("max_tokens",), ("max_tokens", "top_p", "temperature"), ("top_p",)])
def test_what_asks_for_the_same_in_other_words_is_found_and_remembered(serve, shape, names):
    server = serve(without(*names, shape=shape))
    who = endpoint(server.url, max_tokens=9)
    assert [complete(who), complete(who)] == ["Euros.", "Euros."]
    assert server.bodies[-1] == who.parameters(5) | {"model": "m", "messages": ASKED}
    assert not {*names} & {*server.bodies[-1]}
    if "max_tokens" in names:
        assert server.bodies[-1]["max_completion_tokens"] == 9
    assert sum(body["messages"] == ASKED for body in server.bodies) == 3  # refused, taken, taken


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_parameter_that_nothing_helps_ends_the_run_with_its_name_and_flag(serve, shape, status):
    server = serve(without("seed", shape=shape, status=status))
    with pytest.raises(
        BadInput, match=rf"refuses the parameter seed \(status {status}\): .*leave it out with --human-omit=seed$"
    ):
        complete(endpoint(server.url))
    assert complete(endpoint(server.url, omit=("seed",))) == "Euros."


@pytest.mark.parametrize(
    ("settings", "refused", "sentence"),
    [
        ({"temperature": 0.5}, "temperature", "leave it out with --human-omit=temperature (and set it to 1)"),
        ({"template": {"a": 1}}, "chat_template_kwargs", "see --human-template"),
        ({"body": {"reasoning_effort": "low"}}, "reasoning_effort", "see --human-body"),
        ({"flags": ""}, "seed", "leave it out with omit=seed"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_to_do_about_each_parameter(serve, settings, refused, sentence):
    server = serve(without(refused))
    with pytest.raises(BadInput) as caught:
        complete(endpoint(server.url, **settings))
    assert f"refuses the parameter {refused} (status 400): '{refused}' is not supported" in str(caught.value)
    assert str(caught.value).endswith(sentence)


def test_max_tokens_under_both_names_refused_names_the_flag(serve):
    server = serve(without("max_tokens", "max_completion_tokens"))
    with pytest.raises(BadInput, match="--human-omit=max_tokens$"):
        complete(endpoint(server.url))
    assert complete(endpoint(server.url, omit=("max_tokens",))) == "Euros."
    assert "max_tokens" not in server.bodies[-1]


def test_temperature_and_top_p_that_exclude_each_other_keep_the_temperature(serve):
    def decide(body):
        both = {"temperature", "top_p"} <= {*body}
        told = {
            "type": "error",
            "error": {"message": "`temperature` and `top_p` cannot both be specified for this model."},
        }
        return (400, told) if both else completion()

    server = serve(decide)
    assert complete(endpoint(server.url, temperature=0.5)) == "Euros."
    assert server.bodies[-1]["temperature"] == 0.5 and "top_p" not in server.bodies[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    ["", "<html>no</html>", "no", {"detail": [1]}, [], {"error": None}, {"error": {"message": "Model Not Exist"}}],
)
@pytest.mark.parametrize("status", [400, 413, 422])
def test_an_endpoint_that_refuses_everything_ends_the_run_whatever_it_says(serve, body, status):
    server = serve(lambda asked: (status, body))
    with pytest.raises(BadInput, match=rf"refuses every request \(status {status}\)"):
        complete(endpoint(server.url))


@pytest.mark.parametrize(
    "body",
    [
        {
            "error": {
                "message": "maximum context length is 2048 tokens; you requested 3000",
                "code": "context_length_exceeded",
            }
        },
        {"error": {"message": "'max_tokens' or 'max_completion_tokens' is too large: 512.", "param": "max_tokens"}},
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1512."},
        {"error": {"message": "The response was filtered", "param": "prompt", "code": "content_filter"}},
        "what temperature?",
        "",
    ],
)
def test_a_request_refused_for_what_it_says_is_that_episodes_failure(serve, body):
    server = serve(lambda asked: completion() if asked["messages"][-1]["content"] == TRIAL else (400, body))
    who = endpoint(server.url)
    for _ in range(2):
        with pytest.raises(NoReply, match=r"refuses the request \(status 400\)"):
            complete(who)
    assert len(server.bodies) == 3  # the trial is sent once
    assert server.bodies[1]["messages"] == [ASKED[0], {"role": "user", "content": TRIAL}]
    assert who.parameters(5) == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 512, "seed": 5}


def test_a_403_of_a_moderator_is_that_episodes_failure_and_one_of_a_key_ends_the_run(serve):
    """OpenRouter's for text that it flags; the trial is no such text."""
    moderated = 403, {"error": {"code": 403, "message": "Your input was flagged", "metadata": {"reasons": ["x"]}}}
    server = serve(lambda body: completion() if body["messages"][-1]["content"] == TRIAL else moderated)
    who = endpoint(server.url)
    for _ in range(2):
        with pytest.raises(NoReply, match=r"\(status 403\): Your input was flagged"):
            complete(who)
    assert len(server.bodies) == 3  # one trial
    with pytest.raises(BadInput, match="refuses the key in the environment variable"):
        complete(endpoint(serve(lambda body: moderated).url))


def test_a_key_that_may_not_list_models_is_tried(serve):
    server = serve(lambda body: completion())
    server.listing = 403
    asyncio.run(endpoint(server.url).check())
    assert [body["messages"][-1]["content"] for body in server.bodies] == [TRIAL]


def test_after_a_reply_a_refusal_is_the_requests_fault_without_a_trial(serve):
    server = serve(lambda asked: completion() if len(server.bodies) == 1 else (422, {"detail": "seed"}))
    who = endpoint(server.url)
    assert complete(who) == "Euros."
    with pytest.raises(NoReply):
        complete(who)
    assert len(server.bodies) == 2


@pytest.mark.slow
def test_many_first_requests_at_once_find_the_parameters_together(serve):
    server = serve(without("max_tokens", "top_p"))
    who = endpoint(server.url)

    async def many():
        return await asyncio.gather(*(who.complete(ASKED, seed) for seed in range(8)))

    assert asyncio.run(many()) == ["Euros."] * 8
    assert sum(body["messages"][-1]["content"] == TRIAL for body in server.bodies) == 3


def test_a_server_error_about_a_parameter_is_a_refusal_and_any_other_may_pass(serve):
    server = serve(without("seed", status=500))
    with pytest.raises(BadInput, match="--human-omit=seed"):
        complete(endpoint(server.url))
    server = serve(lambda asked: (500, {"error": {"message": "Context size has been exceeded."}}))
    with pytest.raises(Exception, match="Context size") as caught:
        complete(endpoint(server.url))
    assert not isinstance(caught.value, BadInput | NoReply)


def test_a_trial_has_a_picture_where_the_request_has_one(serve):
    def decide(body):
        sees = any(isinstance(message["content"], list) for message in body["messages"])
        return (400, {"error": {"message": "At most 0 image(s) may be provided"}}) if sees else completion()

    server = serve(decide)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    with pytest.raises(BadInput, match="refuses every request .*At most 0 image"):
        complete(endpoint(server.url), messages=[{"role": "user", "content": [picture]}])


def test_rows_keep_what_was_sent(serve):
    server = serve(without("max_tokens", "top_p"))
    human = OpenAISimulator(endpoint(server.url, omit=("seed",), body={"reasoning_effort": "low"}, max_tokens=7))
    row = play(
        TASKS[0], lambda told: "Which unit?" if len(told) < 3 else "I WANT TO ANSWER: 1", human, Settings(system="")
    )
    assert row.dialogue_history[2].extra["sent"] == {
        "temperature": 1.0,
        "max_completion_tokens": 7,
        "reasoning_effort": "low",
    }
    told = row.extra["human"]["settings"]
    assert (told["omit"], told["body"], told["max_tokens"]) == (["seed"], {"reasoning_effort": "low"}, 7)


# --- what ends the run, and what an empty reply says -----------------------------------------------------------------


def test_an_address_without_v1_is_asked_about(serve):
    server = serve(lambda asked: completion())
    with pytest.raises(
        BadInput, match=r"nothing answers at http.*/chat/completions \(status 404\); is /v1 missing from the URL\?"
    ):
        complete(endpoint(server.base))
    with pytest.raises(BadInput, match=r"nothing answers at .*; is the URL right\?"):
        complete(endpoint(f"{server.base}/v1/x"))


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (402, "the account has no credit left"),
        (405, "nothing answers at"),
        (301, "nothing answers at"),
        (410, "nothing answers at"),
    ],
)
def test_what_cannot_work_ends_the_run_at_once(serve, status, sentence):
    server = serve(
        lambda asked: (
            status,
            {"error": {"message": "Insufficient Balance" if status == 402 else "That page was not found"}},
        )
    )
    with pytest.raises(BadInput, match=sentence):
        complete(endpoint(server.url))
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("message", "finish", "sentence"),
    [
        (
            {"text": None, "reasoning_content": "x" * 30},
            "length",
            "30 characters of reasoning and nothing said, finish_reason is 'length': 512 tokens",
        ),
        ({"text": "", "reasoning": "Hm."}, "stop", "3 characters of reasoning and nothing said$"),
        ({"text": " "}, "length", "sent an empty reply, finish_reason is 'length': 512 tokens were not enough"),
        ({"text": None, "refusal": "I cannot."}, "stop", "the model refuses: 'I cannot.'"),
        ({"text": [{"type": "thinking", "thinking": []}]}, "stop", "sent an empty reply"),
    ],
)
def test_a_reply_without_words_says_why(serve, message, finish, sentence):
    server = serve(lambda asked: completion(finish=finish, **message))
    with pytest.raises(ValueError, match=sentence):
        complete(endpoint(server.url))


def test_a_reply_in_parts_is_its_text(serve):
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "Eu\ud800ros."},
    ]
    assert complete(endpoint(serve(lambda asked: completion(parts)).url)) == "Eu\ufffdros."


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": math.nan}, "temperature is nan, it must be finite and not negative"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"top_p": 0.0}, "top_p is 0.0, it must be above 0 and at most 1"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"timeout": math.nan}, "timeout=nan"),
        (
            {"omit": ("messages",)},
            "--human-omit: 'messages' cannot be left out, expected temperature, top_p, max_tokens, seed",
        ),
        ({"omit": ("temperature",), "temperature": 0.5}, "temperature is 0.5 and is to be left out, too"),
        ({"body": {"seed": 1}}, "--human-body: 'seed' has a setting of its own"),
        ({"url": "http://a/v1/chat/completions"}, "expected the address up to and with /v1"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(settings, sentence):
    with pytest.raises(BadInput, match=sentence):
        EndpointSettings(**{"flags": "--human"} | settings)


def test_sampling_is_checked_at_both_ends():
    check_sampling(0.0, 1.0)
    check_sampling(2.0, 0.001)
    with pytest.raises(BadInput):
        check_sampling(1.0, 1.001)


def test_a_key_that_is_none_is_refused_without_being_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret\u00e9")
    with pytest.raises(BadInput, match="MY_KEY holds no API key") as caught:
        endpoint("http://a/v1", key="MY_KEY")
    assert "secret" not in str(caught.value)
