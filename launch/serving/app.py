"""The ASGI application: /v1/models, /v1/chat/completions, /health."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from colbench_env.types import BadInput
from launch.serving.chat_request import APIError, ChatRequest, read_chat_request
from launch.serving.config import Limits
from launch.serving.loading import Served
from launch.serving.streaming import Detokenizer, LogProbs, StopStrings
from sweet_jax.data.token_bytes import TokenBytes
from sweet_jax.generation import EngineClosed, Request


@dataclass(frozen=True)
class Piece:
    """Some text of one choice, with the log-probs of its tokens; the last piece says why it is the last."""

    choice: int
    text: str
    logprobs: list[dict[str, Any]]
    finish: str | None = None


def make_app(served: Served) -> Starlette:
    """Make the application that serves the model. It enforces the limits on bodies."""
    seeds = itertools.count(served.seed)
    token_bytes = TokenBytes(served.chat.tokenizer)

    async def health(_: HttpRequest) -> Response:
        _check_engine(served)
        return JSONResponse({"status": "ok"})

    async def models(request: HttpRequest) -> Response:
        _check_key(request, served)
        return JSONResponse({"object": "list", "data": [_model(served)]})

    async def model(request: HttpRequest) -> Response:
        _check_key(request, served)
        if request.path_params["name"] != served.name:
            raise APIError(404, f"there is no such model, only {served.name!r}", "model_not_found", "model")
        return JSONResponse(_model(served))

    async def chat(http: HttpRequest) -> Response:
        _check_key(http, served)
        # In threads: a long message takes seconds, in which others want their tokens. A `Chat` may be used by several.
        request = await asyncio.to_thread(read_chat_request, await _body(http, served.limits), served.name)
        seed = (next(seeds) if request.seed is None else request.seed) % 2**32
        requests = await asyncio.to_thread(_engine_requests, served, request, seed)
        _check_engine(served)  # before a stream has its status
        completion = _Completion(served, request, requests, token_bytes)
        if request.stream:
            return StreamingResponse(completion.events(), media_type="text/event-stream")
        answer = asyncio.ensure_future(completion.whole())
        gone = asyncio.ensure_future(_disconnected(http))
        try:
            await asyncio.wait([answer, gone], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnect()
            return JSONResponse(answer.result())
        finally:
            answer.cancel()
            gone.cancel()

    def refused(_: HttpRequest, error: Exception) -> Response:
        match error:
            case APIError():
                found = error
            case EngineClosed():
                found = APIError(503, str(error), "engine_closed")
            case HTTPException():
                found = APIError(error.status_code, str(error.detail))
            case ClientDisconnect():
                return Response(status_code=499)
            case _:
                found = APIError(500, f"{type(error).__name__}: {error}")
        # The rest of a body that took too long is not waited for.
        headers = {"connection": "close"} if found.status == 408 else None
        return JSONResponse(found.to_json(), found.status, headers)

    kinds = (APIError, EngineClosed, HTTPException, ClientDisconnect, Exception)
    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/v1/chat/completions", chat, methods=["POST"]),
        ],
        exception_handlers={kind: refused for kind in kinds},
    )


def _model(served: Served) -> dict[str, Any]:
    return {"id": served.name, "object": "model", "created": 0, "owned_by": "sweet-jax"}


def _check_key(request: HttpRequest, served: Served) -> None:
    given = re.sub("(?i)^bearer +", "", request.headers.get("authorization", "")).encode("latin-1")
    if served.api_key is not None and not hmac.compare_digest(given, served.api_key.encode()):
        raise APIError(401, "the API key is missing or wrong", "invalid_api_key")


def _check_engine(served: Served) -> None:
    if served.engine.ended is not None:
        raise EngineClosed(served.engine.ended)


async def _body(request: HttpRequest, limits: Limits) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_timeout):
            async for part in request.stream():
                body += part
                if len(body) > limits.max_body_bytes:
                    raise APIError(413, f"the body is longer than {limits.max_body_bytes} bytes", "request_too_large")
    except TimeoutError as error:
        raise APIError(408, f"the body was not whole after {limits.body_timeout:g} s", "request_timeout") from error
    return bytes(body)


async def _disconnected(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _engine_requests(served: Served, request: ChatRequest, seed: int) -> list[Request]:
    """Make the engine's requests, one for each choice. Raises APIError where there is no room."""
    try:
        ids = served.chat.prompt_ids([message.to_chat() for message in request.messages])
    except BadInput as error:
        raise APIError(400, str(error), param="messages") from error
    room = served.engine.max_length - len(ids)
    new_tokens = request.room() or max(room, 1)
    if new_tokens > room:
        raise APIError(
            400,
            f"the model's context is {served.engine.max_length} tokens long; the messages are {len(ids)} tokens and "
            f"up to {new_tokens} more were asked for",
            "context_length_exceeded",
            "messages",
        )
    sampling = request.sampling(new_tokens)
    return [Request(ids, seed, sampling, sample=number, tops=request.top_logprobs) for number in range(request.n)]


class _Completion:
    """The answer to one request, as one JSON object or as a stream of events."""

    def __init__(self, served: Served, request: ChatRequest, requests: list[Request], token_bytes: TokenBytes):
        self._served, self._request, self._requests, self._token_bytes = served, request, requests, token_bytes
        self._head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": served.name}
        self._drawn = 0

    async def whole(self) -> dict[str, Any]:
        texts = [""] * self._request.n
        logprobs: list[list[dict[str, Any]]] = [[] for _ in texts]
        finishes: list[str | None] = [None] * len(texts)
        async with contextlib.aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                texts[piece.choice] += piece.text
                logprobs[piece.choice] += piece.logprobs
                finishes[piece.choice] = piece.finish
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": texts[index], "refusal": None},
                "logprobs": self._logprobs(logprobs[index]),
                "finish_reason": finishes[index],
            }
            for index in range(self._request.n)
        ]
        return self._head | {"object": "chat.completion", "choices": choices, "usage": self._usage()}

    async def events(self) -> AsyncIterator[str]:
        usage = {"usage": None} if self._request.stream_options.include_usage else {}
        head = self._head | {"object": "chat.completion.chunk"} | usage
        try:
            for index in range(self._request.n):
                yield _event(head | {"choices": [_choice(index, {"role": "assistant", "content": ""}, None, None)]})
            async with contextlib.aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    delta = {"content": piece.text} if piece.text else {}
                    choice = _choice(piece.choice, delta, self._logprobs(piece.logprobs), piece.finish)
                    yield _event(head | {"choices": [choice]})
            if self._request.stream_options.include_usage:
                yield _event(head | {"choices": [], "usage": self._usage()})
            yield "data: [DONE]\n\n"
        except EngineClosed as error:  # the status is sent already
            yield _event(APIError(503, str(error), "engine_closed").to_json())

    async def _pieces(self) -> AsyncGenerator[Piece, None]:
        """Yield the pieces of all choices as they come."""
        queue: asyncio.Queue[Piece | BaseException] = asyncio.Queue()

        async def put(choice: int, request: Request) -> None:
            try:
                async with contextlib.aclosing(self._choice(choice, request)) as pieces:
                    async for piece in pieces:
                        queue.put_nowait(piece)
            except Exception as error:
                queue.put_nowait(error)

        tasks = [asyncio.ensure_future(put(choice, request)) for choice, request in enumerate(self._requests)]
        try:
            unfinished = len(tasks)
            while unfinished:
                piece = await queue.get()
                if isinstance(piece, BaseException):
                    raise piece
                unfinished -= piece.finish is not None
                yield piece
        finally:
            for task in tasks:
                task.cancel()

    async def _choice(self, choice: int, request: Request) -> AsyncGenerator[Piece, None]:
        end_ids, text = self._served.chat.end_ids, Detokenizer(self._token_bytes)
        stop, logprobs = StopStrings(self._request.stop), LogProbs(self._token_bytes, end_ids)
        shown, finish = "", "length"
        pending: list[dict[str, Any]] = []
        async with contextlib.aclosing(self._served.engine.bursts(request)) as bursts:
            async for burst in bursts:
                # A stop string ends the turn at the very token that completes it.
                for tokens in [[token] for token in burst] if self._request.stop else [burst]:
                    self._drawn += len(tokens)
                    pending += logprobs.add(tokens) if self._request.logprobs else []
                    if tokens[-1].id in end_ids:
                        finish, tokens = "stop", tokens[:-1]
                    shown += stop.add(text.add([token.id for token in tokens]))
                    if stop.found:
                        yield Piece(choice, shown, pending, "stop")
                        return
                if shown and finish == "length":
                    yield Piece(choice, shown, pending)
                    shown, pending = "", []
        shown += stop.add(text.end())
        yield Piece(choice, shown + stop.end(), pending, "stop" if stop.found else finish)

    def _usage(self) -> dict[str, int]:
        read = len(self._requests[0].ids)
        return {"prompt_tokens": read, "completion_tokens": self._drawn, "total_tokens": read + self._drawn}

    def _logprobs(self, tokens: list[dict[str, Any]]) -> dict[str, Any] | None:
        return {"content": tokens, "refusal": None} if self._request.logprobs else None


def _choice(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
