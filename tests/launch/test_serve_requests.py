"""What clients may ask the server for: served, left out because it asks for nothing, or refused by name."""

import json

import hypothesis
import hypothesis.strategies as st
import pytest

from launch.serving.chat_request import APIError, ChatRequest, read_chat_request
from sweet_jax.generation.sampling import Sampling

HELLO = {"role": "user", "content": "hello"}


def body(**fields):
    return json.dumps({"model": "m", "messages": [HELLO]} | fields).encode()


def read(**fields):
    return read_chat_request(body(**fields), "m")


def said(asked):
    return [message.to_chat() for message in asked.messages]


def refusal(**fields):
    with pytest.raises(APIError) as caught:
        read(**fields)
    assert caught.value.status in (400, 404)
    return caught.value


def test_what_is_asked_for_is_read():
    asked = read(
        temperature=0.5, top_p=0.9, top_k=7, max_tokens=11, seed=-3, n=2, stop=["a", "b"], stream=True,
        stream_options={"include_usage": True}, logprobs=True, top_logprobs=4,
    )  # fmt: skip
    assert asked.sampling(5) == Sampling(0.5, 7, 0.9, 5)
    assert (asked.room(), asked.seed, asked.n, asked.stop, asked.top_logprobs) == (11, -3, 2, ["a", "b"], 4)
    assert asked.stream and asked.stream_options.include_usage and asked.logprobs
    assert said(asked) == [HELLO]


def test_what_is_not_asked_for_has_openais_default():
    asked = read()
    assert asked.sampling(5) == Sampling(1.0, 0, 1.0, 5)
    assert (asked.room(), asked.seed, asked.n, asked.stop, asked.logprobs) == (None, None, 1, [], False)
    assert read(max_completion_tokens=3).room() == read(max_tokens=3, max_completion_tokens=3).room() == 3


NOTHING = [  # in a request
    ("top_k", -1), ("top_k", 0), ("repetition_penalty", 1), ("repetition_penalty", 1.0), ("min_p", 0), ("min_p", 0.0),
    ("presence_penalty", 0), ("frequency_penalty", 0.0), ("length_penalty", 1.0), ("typical_p", 1), ("min_tokens", 0),
    ("logit_bias", {}), ("tools", []), ("functions", []), ("tool_choice", "none"), ("tool_choice", "auto"),
    ("function_call", "none"), ("parallel_tool_calls", True), ("parallel_tool_calls", False),
    ("response_format", {"type": "text"}), ("modalities", ["text"]), ("store", False), ("service_tier", "auto"),
    ("n", 1), ("best_of", 1), ("use_beam_search", False), ("early_stopping", False), ("echo", False),
    ("ignore_eos", False), ("skip_special_tokens", True), ("spaces_between_special_tokens", True),
    ("spaces_between_special_tokens", False), ("include_stop_str_in_output", False), ("stop_token_ids", []),
    ("bad_words", []), ("chat_template_kwargs", {}), ("extra_body", {}), ("documents", []), ("suffix", ""),
    ("add_generation_prompt", True), ("continue_final_message", False), ("stop", ""), ("stop", []),
    ("stream_options", {}), ("stream_options", {"include_usage": False}), ("stream_options", {"include_usage": None}),
    ("top_logprobs", 0), ("logprobs", False), ("user", "somebody"), ("metadata", {"run": "3"}),
    ("safety_identifier", "x"), ("prompt_cache_key", "x"), ("verbosity", "medium"), ("reasoning_effort", "none"),
    ("prediction", {"type": "content", "content": "hello"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), NOTHING, ids=repr)
def test_a_field_of_a_request_that_asks_for_nothing_is_served(name, value):
    asked = read(**{name: value})
    assert asked.sampling(5) == Sampling(1.0, 0, 1.0, 5)
    assert asked.model_copy(update={"top_k": 0}) == read()


@pytest.mark.parametrize(
    "name", [*sorted(ChatRequest.model_fields.keys() - {"model", "messages"}), "guided_json", "never_heard_of"]
)
def test_null_asks_for_nothing_whatever_the_name(name):
    assert read(**{name: None}) == read()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("repetition_penalty", 1.2), ("min_p", 0.1), ("presence_penalty", -1), ("frequency_penalty", 0.5),
        ("length_penalty", 0.8), ("logit_bias", {"5": 1}), ("tools", [{"type": "function"}]),
        ("tool_choice", "required"), ("tool_choice", {"type": "function"}),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]), ("store", True), ("best_of", 2), ("use_beam_search", True), ("echo", True),
        ("ignore_eos", True), ("skip_special_tokens", False), ("include_stop_str_in_output", True),
        ("stop_token_ids", [3]), ("bad_words", ["no"]), ("chat_template_kwargs", {"a": 1}), ("min_tokens", 4),
        ("guided_json", {"type": "object"}), ("repetition_penalty", True), ("presence_penalty", False),
        ("stream_options", {"continuous_usage_stats": True}), ("continue_final_message", True), ("never", 0),
        ("reasoning_effort", "high"), ("web_search_options", {"a": {}}),
    ],
)  # fmt: skip
def test_a_field_that_would_change_the_answer_is_refused_by_name(name, value):
    found = refusal(**{name: value})
    assert (found.code, found.param.split(".")[0]) == ("unsupported_parameter", name)
    assert f"'{found.param}' = " in found.message and found.message.endswith(" is not served")


@pytest.mark.parametrize(
    "extra",
    [
        {"type": "text"}, {"type": "message"}, {"tool_calls": []}, {"annotations": []}, {"tool_calls": None},
        {"function_call": None, "audio": None, "refusal": None, "tool_call_id": None}, {"reasoning_content": ""},
        {"reasoning_content": None}, {"reasoning": ""}, {"name": "anna"}, {"prefix": False}, {"partial": False},
        {"refusal": ""}, {"images": []}, {"cache_control": {"type": "ephemeral"}},
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_a_field_of_a_message_that_asks_for_nothing_is_served(role, extra):
    message = {"role": role, "content": "hello"}
    assert said(read(messages=[message | extra, HELLO])) == [message, HELLO]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "image"), ("tool_calls", [{"id": "1"}]), ("reasoning_content", "I think"), ("prefix", True),
        ("tool_call_id", "1"), ("function_call", {"name": "f"}), ("audio", {"id": "1"}), ("weight", 0),
    ],
)  # fmt: skip
def test_a_field_of_a_message_that_would_change_it_is_refused_by_name(name, value):
    found = refusal(messages=[HELLO, HELLO | {name: value}])
    assert (found.code, found.param) == ("unsupported_parameter", f"messages[1].{name}")


def test_what_a_client_was_answered_can_be_sent_back():
    answer = {
        "role": "assistant", "content": "ho", "refusal": None, "annotations": [], "audio": None, "function_call": None,
        "tool_calls": [], "reasoning_content": None,
    }  # fmt: skip
    assert said(read(messages=[HELLO, answer, HELLO])) == [HELLO, {"role": "assistant", "content": "ho"}, HELLO]


def test_a_developer_is_the_system_and_a_list_of_texts_is_their_text():
    parts = [
        {"type": "text", "text": "be "},
        {"type": "text", "text": "short", "annotations": [], "cache_control": {"type": "ephemeral"}},
    ]
    found = read(messages=[{"role": "developer", "content": parts}, HELLO])
    assert said(found) == [{"role": "system", "content": "be short"}, HELLO]


def test_half_a_character_is_replaced_wherever_text_is_taken():
    parts = [{"type": "text", "text": "\ud83d"}, {"type": "text", "text": "b\udc00🙂"}]
    messages = [{"role": "user", "content": "a\ud83d"}, {"role": "user", "content": parts}]
    found = read_chat_request(body(messages=messages, stop="\ud800!", user="\ud800"), "m")
    assert [message["content"] for message in said(found)] == ["a\ufffd", "\ufffdb\ufffd🙂"]
    assert found.stop == ["\ufffd!"]


@pytest.mark.parametrize(
    ("fields", "code", "complaint"),
    [
        ({"model": None}, None, "model is missing"),
        ({"model": "gpt"}, "model_not_found", "there is no model 'gpt', only 'm'"),
        ({"model": "\ud800"}, "model_not_found", "there is no model '\\ud800', only 'm'"),
        ({"messages": None}, None, "messages is missing"),
        ({"messages": []}, None, "messages is []: it should have at least 1 item, not 0"),
        ({"messages": "hello"}, "invalid_type", "messages is 'hello': it should be a valid list"),
        ({"messages": ["hello"]}, "invalid_type", "messages[0] is 'hello': it should be an object"),
        ({"messages": [{"content": "?"}]}, None, "messages[0].role is missing"),
        ({"messages": [{"role": "king", "content": "?"}]}, None,
         "messages[0].role is 'king': it should be 'system', 'developer', 'user' or 'assistant'"),
        ({"messages": [HELLO, {"role": "tool", "content": "4"}]}, None,
         "messages[1].role is 'tool': it should be 'system', 'developer', 'user' or 'assistant'"),
        ({"messages": [{"role": "user"}]}, None, "messages[0].content is missing"),
        ({"messages": [{"role": "user", "content": 3}]}, "invalid_type",
         "messages[0].content is 3: it must be a string or a list of texts"),
        ({"messages": [{"role": "user", "content": []}]}, None,
         "messages[0].content is []: it should have at least 1 item, not 0"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None,
         "messages[0].content[0].type is 'image_url': it should be 'text'"),
        ({"temperature": 3}, None, "temperature is 3: it should be less than or equal to 2"),
        ({"temperature": True}, "invalid_type", "temperature is True: it should be a valid number"),
        ({"temperature": "1"}, "invalid_type", "temperature is '1': it should be a valid number"),
        ({"top_p": 0}, None, "top_p is 0: it should be greater than 0"),
        ({"top_k": -2}, None, "top_k is -2: it should be greater than or equal to -1"),
        ({"n": 0}, None, "n is 0: it should be greater than or equal to 1"),
        ({"n": True}, "invalid_type", "n is True: it should be a valid integer"),
        ({"n": 2.0}, "invalid_type", "n is 2.0: it should be a valid integer"),
        ({"n": 10**300}, None, f"n is 1{'0' * 79}...: it should be less than or equal to 128"),
        ({"stream": 1}, "invalid_type", "stream is 1: it should be a valid boolean"),
        ({"max_tokens": 0}, None, "max_tokens is 0: it should be greater than or equal to 1"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, None, "max_tokens is 3 and max_completion_tokens 4: give one"),
        ({"seed": 1.5}, "invalid_type", "seed is 1.5: it should be a valid integer"),
        ({"stop": ["a"] * 5}, None, "stop is ['a', 'a', 'a', 'a', 'a']: it should have at most 4 items, not 5"),
        ({"stop": ["a", ""]}, None, "stop[1] is '': it should have at least 1 item, not 0"),
        ({"stop": 3}, "invalid_type", "stop is 3: it should be a valid list"),
        ({"top_logprobs": 2}, None, "top_logprobs needs logprobs to be true"),
        ({"logprobs": True, "top_logprobs": 21}, None, "top_logprobs is 21: it should be less than or equal to 20"),
        ({"stream_options": {"include_usage": True}}, None,
         "stream_options.include_usage is for streams: set stream to true"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_one_sentence(fields, code, complaint):
    found = refusal(**fields)
    assert (found.message, found.code) == (complaint, code)
    assert found.to_json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (b"", "the body is not JSON in UTF-8: Expecting value"),
        (b"hello", "the body is not JSON in UTF-8: Expecting value"),
        (b"\xff", "the body is not JSON in UTF-8: 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"[]", "the body is []: it should be an object"),
        (b"null", "the body is None: it should be an object"),
        (b'{"user": NaN}', "the body is not JSON in UTF-8: NaN is no number of JSON"),
        (b'{"temperature": -Infinity}', "the body is not JSON in UTF-8: -Infinity is no number of JSON"),
        (body(temperature=0)[:-2] + b"1e999}", "temperature is inf: it should be a finite number"),
        (body(seed=0)[:-2] + b"9" * 5000 + b"}", "the body is not JSON in UTF-8: Exceeds the limit"),
        (b"[" * 4_000_000, "the body is not JSON in UTF-8: maximum recursion depth exceeded"),
        (b'{"a":' * 800_000, "the body is not JSON in UTF-8: maximum recursion depth exceeded"),
        (body(x=0)[:-2] + b"[" * 900 + b"]" * 900 + b"}", f"'x' = {'[' * 80}... is not served"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_body_that_is_no_request_is_one_sentence(given, complaint):
    with pytest.raises(APIError) as caught:
        read_chat_request(given, "m")
    assert caught.value.status == 400
    assert caught.value.message.startswith(complaint) and "\n" not in caught.value.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [*ChatRequest.model_fields, *ChatRequest.NEUTRAL, *ChatRequest.IGNORED, "tools", "x", "\ud800"]
)


@pytest.mark.slow
@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    st.binary(max_size=40)
    | VALUES.map(json.dumps).map(str.encode)
    | st.dictionaries(FIELDS, VALUES, max_size=4).map(lambda fields: body(**fields))
    | VALUES.map(lambda value: body(messages=[{"role": "user", "content": [value]}]))
    | st.dictionaries(st.text(max_size=5), VALUES).map(lambda fields: body(messages=[HELLO | fields]))
)
def test_any_body_is_read_or_refused_in_one_sentence_of_ascii_or_utf_8(given):
    try:
        asked = read_chat_request(given, "m")
    except APIError as refused:
        assert refused.status in (400, 404) and refused.message
        json.dumps(refused.to_json()).encode()
        refused.message.encode()
    else:
        assert all(message["content"].encode() is not None for message in said(asked))
