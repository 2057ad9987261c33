"""What endpoints say when they refuse a request, in the shapes of many servers."""

import json
import time

import pytest

from colbench_env.refusals import MAX_SHOWN, read_refusal

SENT = ("temperature", "top_p", "max_tokens", "seed", "chat_template_kwargs")
EXTRA = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted", "input": 42}


def openai(message, param=None, code=None):
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "named"),
    [
        (
            400,
            openai("Unsupported parameter: 'max_tokens' is not supported with this model.", "max_tokens"),
            ["max_tokens"],
        ),
        (
            400,
            openai("Unsupported parameter: 'temperature' is not supported with this model.", "model"),
            ["temperature"],
        ),
        (400, openai("Unrecognized request argument supplied: seed"), ["seed"]),
        (422, {"detail": [EXTRA]}, ["seed"]),
        (
            422,
            {"object": "error", "message": {"detail": [EXTRA]}, "type": "invalid_request_error", "param": None},
            ["seed"],
        ),
        (
            400,
            {"error": {"code": 400, "message": "Validation error at #/seed: Extra inputs are not permitted"}},
            ["seed"],
        ),
        (
            400,
            {"object": "error", "message": f"[{EXTRA!r}]", "type": "BadRequestError", "param": None, "code": 400},
            ["seed"],
        ),
        (
            400,
            {
                "type": "error",
                "error": {
                    "type": "invalid_request_error",
                    "message": "`temperature` and `top_p` cannot both be specified",
                },
            },
            ["temperature", "top_p"],
        ),
        (
            400,
            [
                {
                    "error": {
                        "code": 400,
                        "message": 'Unknown name "seed": Cannot find field.',
                        "status": "INVALID_ARGUMENT",
                    }
                }
            ],
            ["seed"],
        ),
        (
            422,
            {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"},
            ["top_p"],
        ),
        (422, {"error": "Input validation error: `max_new_tokens` must be <= 192"}, ["max_tokens"]),
        (
            400,
            {
                "code": "Client specified an invalid argument",
                "error": "Argument not supported on this model: maxTokens",
            },
            ["max_tokens"],
        ),
        (
            400,
            openai("litellm.UnsupportedParamsError: x does not support parameters: ['seed']", "None", "400"),
            ["seed"],
        ),
        (400, "unknown field `chat_template_kwargs`", ["chat_template_kwargs"]),
        (400, openai("too long", "input_tokens, max_tokens"), ["max_tokens"]),
        (
            422,
            {"detail": [{"loc": ["body", "messages", 0, "name"], "msg": "no", "input": {"seed": 1, "top_p": 1}}]},
            [],
        ),
        (400, openai("Invalid content: no", "messages"), []),
        (400, "", []),
        (400, None, []),
        (502, "<html><style>p {}</style><h1>Bad gateway</h1></html>", []),
    ],
)
def test_the_parameters_that_an_error_names_are_found_in_the_shapes_of_many_servers(status, body, named):
    refusal = read_refusal(status, body if isinstance(body, str) else json.dumps(body))
    assert list(refusal.about(SENT)) == named


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"detail": [{"loc": ["body", "seed"], "msg": "not permitted"}]}', "not permitted (body.seed)"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"error": {"message": "no\\nnever"}}', "no never"),
        ('{"error": "busy"}', "busy"),
        ("<!doctype html><title>502</title><p>Bad &amp; gone", "502 Bad & gone"),
        ("plain words", "plain words"),
        ("", "it gives no reason"),
        ("[]", "[]"),
        ('{"code": "quota"}', "quota"),
    ],
)
def test_an_error_of_any_shape_is_one_line(body, message):
    assert read_refusal(400, body).message == message


@pytest.mark.parametrize(
    ("body", "about_model"),
    [
        ('{"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}', True),
        ('{"object": "error", "message": "The model `m` does not exist.", "type": "NotFoundError"}', True),
        ('{"error": {"message": "no such deployment"}}', True),
        ('{"error": {"message": "nothing of that name here"}}', True),
        ('{"detail": "Not Found"}', False),
        ('{"error": {"message": "Invalid URL (POST /chat/completions)", "type": "invalid_request_error"}}', False),
        ('{"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}', False),
        ('{"error": {"code": "404", "message": "Resource not found"}}', False),
        ("404 page not found", False),
        ("<html><h1>404 Not Found</h1>nginx</html>", False),
        ("", False),
    ],
)
def test_a_missing_model_is_told_from_a_missing_address(body, about_model):
    assert read_refusal(404, body).about_model("m") is about_model


def test_an_account_that_cannot_pay_is_told_from_too_many_requests():
    assert read_refusal(429, '{"error": {"message": "no", "code": "insufficient_quota"}}').out_of_credit
    assert read_refusal(400, '{"error": {"message": "Your credit balance is too low"}}').out_of_credit
    assert not read_refusal(
        429, '{"error": {"message": "You exceeded your current quota, retry in 30 s"}}'
    ).out_of_credit


@pytest.mark.parametrize("piece", ["<", "a", " ", "not ", '{"a":', "[", "<style>", "url "])
def test_a_megabyte_of_anything_is_read_at_once(piece):
    started = time.process_time()
    refusal = read_refusal(404, piece * (1_000_000 // len(piece)))
    refusal.about(SENT)
    refusal.about_model("m")
    assert time.process_time() - started < 1.0
    assert len(refusal.message) <= MAX_SHOWN
