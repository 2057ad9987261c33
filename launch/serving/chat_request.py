"""A chat completion as a client asks for it, read from JSON; what cannot be honoured is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from colbench_env.types import BadInput, replace_lone_surrogates
from sweet_jax.generation.sampling import Sampling

MOST_SAMPLES, MOST_STOPS, MOST_TOPS = 128, 4, 20
EMPTY: tuple[Any, ...] = (None, "", [], {})  # asks for nothing, whatever the name


class APIError(Exception):
    """A request that cannot be answered: an HTTP status and the parts of OpenAI's error object."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def to_json(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class _Object(BaseModel):
    """A JSON object of which every field is honoured, or asks for nothing and is left out, or is refused.

    IGNORED: fields that change no answer. NEUTRAL: fields that are not served, and their values that ask for nothing.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
    IGNORED: ClassVar[tuple[str, ...]] = ()
    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_asks_for_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if not cls._asks_for_nothing(name, value)}

    @classmethod
    def _asks_for_nothing(cls, name: str, value: Any) -> bool:
        if value is None or name in cls.IGNORED:
            return True
        neutral = cls.NEUTRAL.get(name, ()) + (() if name in cls.model_fields else EMPTY)
        return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral)


def _parts(content: Any) -> Any:
    if not isinstance(content, str | list):
        raise PydanticCustomError("string_type", "it must be a string or a list of texts")
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _stops(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Text = Annotated[str, BeforeValidator(lambda text: replace_lone_surrogates(text) if isinstance(text, str) else text)]
MaxTokens = Annotated[int | None, Field(ge=1, le=2**31)]


class _Part(_Object):
    IGNORED = ("cache_control",)

    type: Literal["text"]
    text: Text


class _Message(_Object):
    IGNORED = ("name", "cache_control")  # the chat template sees the role and the content alone
    NEUTRAL = {"type": ("text", "message"), "prefix": (False,), "partial": (False,)}

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_Part], BeforeValidator(_parts), Field(min_length=1)]

    def to_chat(self) -> dict[str, str]:
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": "".join(part.text for part in self.content)}


class _StreamOptions(_Object):
    NEUTRAL = {"include_obfuscation": (True, False), "continuous_usage_stats": (False,)}

    include_usage: bool = False


class ChatRequest(_Object):
    """What the client wants, its fields named as in OpenAI's request; top_k is vLLM's."""

    IGNORED = (
        "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "cache_salt",
        "request_id", "prediction",
    )  # fmt: skip
    NEUTRAL = {
        # OpenAI's
        "frequency_penalty": (0,), "presence_penalty": (0,), "store": (False,), "modalities": (["text"],),
        "tool_choice": ("none", "auto"), "function_call": ("none", "auto"), "parallel_tool_calls": (True, False),
        "response_format": ({"type": "text"},), "service_tier": ("auto", "default"), "verbosity": ("medium",),
        "reasoning_effort": ("none",), "stop": ("",),
        # those of vLLM, SGLang, llama.cpp and Hugging Face's generation
        "repetition_penalty": (1,), "repeat_penalty": (1,), "length_penalty": (1,), "min_p": (0,), "typical_p": (1,),
        "top_a": (0,), "tfs_z": (1,), "mirostat": (0,), "no_repeat_ngram_size": (0,), "min_tokens": (0,),
        "best_of": (1,), "num_beams": (1,), "use_beam_search": (False,), "early_stopping": (False,),
        "do_sample": (True,), "echo": (False,), "ignore_eos": (False,), "include_stop_str_in_output": (False,),
        "skip_special_tokens": (True,), "spaces_between_special_tokens": (True, False), "detokenize": (True,),
        "add_generation_prompt": (True,), "continue_final_message": (False,), "add_special_tokens": (False,),
        "include_reasoning": (True, False), "separate_reasoning": (True, False), "return_token_ids": (False,),
        "return_tokens_as_token_ids": (False,), "priority": (0,),
    }  # fmt: skip

    model: str
    messages: Annotated[list[_Message], Field(min_length=1)]
    stream: bool = False
    stream_options: _StreamOptions = _StreamOptions()
    stop: Annotated[
        list[Annotated[Text, Field(min_length=1)]], BeforeValidator(_stops), Field(max_length=MOST_STOPS)
    ] = []
    seed: int | None = None
    n: Annotated[int, Field(ge=1, le=MOST_SAMPLES)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] = 0
    max_tokens: MaxTokens = None
    max_completion_tokens: MaxTokens = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOPS)] = 0

    def room(self) -> int | None:
        """Return the most tokens of a turn; None for as many as there is room for."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    def sampling(self, max_new_tokens: int) -> Sampling:
        return Sampling(self.temperature, max(self.top_k, 0), self.top_p, max_new_tokens)


def read_chat_request(body: bytes, model: str) -> ChatRequest:
    """Read the request from the body of a POST. Raises APIError for anything else, or another model."""
    try:
        given = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"the body is not JSON in UTF-8: {error}") from error
    try:
        request = ChatRequest.model_validate(given)
        request.sampling(1)
    except ValidationError as error:
        raise _refusal(error) from error
    except BadInput as error:
        raise APIError(400, str(error)) from error
    if request.model != model:
        raise APIError(404, f"there is no model {_shown(request.model)}, only {model!r}", "model_not_found", "model")
    if request.stream_options.include_usage and not request.stream:
        raise APIError(400, "stream_options.include_usage is for streams: set stream to true", None, "stream_options")
    if None not in (most := (request.max_tokens, request.max_completion_tokens)) and most[0] != most[1]:
        raise APIError(
            400, f"max_tokens is {most[0]} and max_completion_tokens {most[1]}: give one", None, "max_tokens"
        )
    if request.top_logprobs and not request.logprobs:
        raise APIError(400, "top_logprobs needs logprobs to be true", None, "top_logprobs")
    return request


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _refusal(error: ValidationError) -> APIError:
    """Describe the first field that is wrong."""
    first = error.errors(include_url=False, include_context=False)[0]
    location = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).removeprefix(".")
    value, param = _shown(first["input"]), location[:99] or None
    match first["type"]:
        case "missing":
            return APIError(400, f"{location} is missing", None, param)
        case "extra_forbidden":
            return APIError(400, f"{_shown(location)} = {value} is not served", "unsupported_parameter", param)
        case kind:
            expected = re.sub(r"^\w+ should", "it should", first["msg"]).replace(" after validation", "")
            if kind == "model_type":  # pydantic's words name the class
                expected = "it should be an object"
            code = "invalid_type" if kind.endswith("_type") else None
            return APIError(400, f"{location or 'the body'} is {value}: {expected}", code, param)


def _shown(value: Any) -> str:
    """Format the value for a message: short, and in ASCII. (Python refuses to format integers of 5,000 digits.)"""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too long to be shown"
    return text if len(text) <= 80 else f"{text[:80]}..."
