"""64 streaming clients of whom a third leaves half-way, and malformed requests, against the chat server.

    python -m benchmarks.server [--model=DIR] [--clients=64] [--tokens=64] [--temperature=1] [--leave-after=1]
        [--runs=3] [--malformed=10000]

Each client's tokens are compared with those of the sampler for the same prompt and seed.
Throughput is measured with all clients staying; the peer is `Sampler` with as many rows, in this run.
"""

import argparse
import asyncio
import http.client
import json
import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import openai
import uvicorn

from launch.serving.app import make_app
from launch.serving.config import ServeConfig
from launch.serving.loading import Served, load_served
from sweet_jax.sampler import Sampler, Sampling


def main() -> None:
    """Prints what was lost, tokens a second beside the sampler's, and the answers to malformed requests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)  # the embedded model ends early below 2
    parser.add_argument("--leave-after", type=int, default=1)  # tokens
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--malformed", type=int, default=10_000)
    arguments = parser.parse_args()
    clients, tokens = arguments.clients, arguments.tokens
    served = load_served(ServeConfig(arguments.model, rows=clients, max_length=64 + tokens), None)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(served), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    sampler = Sampler(
        served.model, served.params, served.chat.end_ids, served.chat.pad_id,
        Sampling(arguments.temperature, max_new_tokens=tokens), clients, (64,),
    )  # fmt: skip
    messages = [[{"role": "user", "content": f"Tell me about the number {n}."}] for n in range(clients)]
    prompts = [served.chat.prompt_ids(each) for each in messages]
    ours, theirs = [], []
    for run in range(arguments.runs + 1):  # the first compiles
        started = time.perf_counter()
        expected = [turn for (turn,) in sampler.sample(prompts, range(clients))]
        theirs.append(time.perf_counter() - started)
        started = time.perf_counter()
        found = asyncio.run(_ask(port, served, messages, tokens, arguments.temperature, 0))
        ours.append(time.perf_counter() - started)
        leaving = asyncio.run(_ask(port, served, messages, tokens, arguments.temperature, arguments.leave_after))
        for name, each in (("all stay", found), ("a third leaves", leaving)):
            wrong = sum(
                not _same(served, got, turn.ids.tolist())
                for got, turn in zip(each, expected, strict=True)
                if got is not None
            )
            stayed = sum(got is not None for got in each)
            print(
                f"run {run}, {name}: {stayed} of {clients} clients stayed, {wrong} with lost or mixed tokens",
                flush=True,
            )
    count = sum(len(turn.ids) for turn in expected)
    server_s, sampler_s = statistics.median(ours[1:]), statistics.median(theirs[1:])
    print(
        f"{clients} clients, {count} tokens: server {count / server_s:.0f} tokens/s, sampler {count / sampler_s:.0f} "
        f"tokens/s, ratio {sampler_s / server_s:.2f} (medians of {arguments.runs}: {server_s:.2f} s, {sampler_s:.2f} s)"
    )
    print(f"malformed requests: {dict(_malformed(port, served.name, arguments.malformed))}")
    server.should_exit = True
    thread.join()
    served.engine.close()


async def _ask(
    port: int, served: Served, messages: Sequence[Any], tokens: int, temperature: float, leave_after: int
) -> list[tuple[str, ...] | None]:
    """The tokens of each client as text; None for those who left after `leave_after`, if that is not 0."""

    async def one(client: openai.AsyncOpenAI, number: int) -> tuple[str, ...] | None:
        found: list[str] = []
        stream = await client.chat.completions.create(
            model=served.name,
            messages=messages[number],
            seed=number,
            stream=True,
            max_tokens=tokens,
            logprobs=True,
            temperature=temperature,
        )
        async with stream:
            async for chunk in stream:
                told = chunk.choices[0].logprobs
                found += [each.token for each in told.content] if told else []
                if leave_after and number % 3 == 0 and len(found) >= leave_after:
                    return None
        return tuple(found)

    async with openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=600
    ) as client:
        return await asyncio.gather(*(one(client, number) for number in range(len(messages))))


def _same(served: Served, found: Sequence[str], ids: Sequence[int]) -> bool:
    return list(found) == [served.chat.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]


def _malformed(port: int, name: str, count: int) -> Counter[str]:
    """Answers by status; an answer that is not in OpenAI's shape counts as such."""
    fuzz, found = random.Random(0), Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    values = [
        None,
        True,
        -1,
        0,
        10**30,
        1e400,
        float("nan"),
        "",
        "x",
        "\ud800",
        [],
        {},
        [[]],
        {"a": {}},
        [1, "x"],
        "9" * 99,
    ]
    fields = ["messages", "stream", "stop", "n", "temperature", "top_p", "max_tokens", "logprobs", "tools", "seed", "q"]
    for _ in range(count):
        good = {"model": name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        kind = fuzz.randrange(4)
        if kind == 0:  # bytes
            body = fuzz.randbytes(fuzz.randrange(64))
        elif kind == 1:  # a request cut off
            body = json.dumps(good).encode()
            body = body[: fuzz.randrange(len(body))]
        elif kind == 2:  # fields of any kind, one of them always wrong
            body = json.dumps(
                good | {fuzz.choice(fields): fuzz.choice(values) for _ in range(3)} | {"top_p": "x"}
            ).encode()
        else:  # a message of any kind
            message = {key: fuzz.choice(values) for key in ("role", "content", "name")} | {"role": "king"}
            body = json.dumps(good | {"messages": [message]}).encode()
        connection.request("POST", "/v1/chat/completions", body)
        answer = connection.getresponse()
        told = answer.read()
        shaped = b'"error":{"message":' in told and 400 <= answer.status < 500
        found[str(answer.status) if shaped else f"{answer.status} {told[:80]!r}"] += 1
    connection.close()
    return found


if __name__ == "__main__":
    main()
