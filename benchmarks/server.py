"""64 streaming clients of whom a third leaves half-way, and malformed requests, against the chat server.

    python -m benchmarks.server [--model=DIR] [--clients=64] [--tokens=64] [--temperature=1] [--leave-after=1]
        [--runs=3] [--malformed=10000]

Each client's tokens are compared with those of the sampler for the same prompt and seed.
Throughput is measured with all clients staying; the peer is `Sampler` with as many rows, in this run.
"""

import argparse
import http.client
import json
import multiprocessing
import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import uvicorn

from benchmarks.streaming_clients import Told, ask
from launch.common.settings import EMBEDDED_DIRECTORY
from launch.serving.app import make_app
from launch.serving.loading import Served
from sweet_jax.generation import LockstepEngine, Request, Sampling
from sweet_jax.generation.load import load_engine
from sweet_jax.mesh import MeshShape


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
    directory = EMBEDDED_DIRECTORY if arguments.model == "embedded" else Path(arguments.model)
    loaded = load_engine(directory, MeshShape(1, 1), rows=clients, max_length=64 + tokens)
    served = Served("served", loaded.engine, loaded.chat)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(make_app(served), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    sampling = Sampling(arguments.temperature, max_new_tokens=tokens)
    alone = LockstepEngine(loaded.model, loaded.params, served.chat.end_ids, served.chat.pad_id, clients, 64 + tokens)
    prompts = [f"Tell me about the number {n}." for n in range(clients)]
    ids = [served.chat.prompt_ids([{"role": "user", "content": prompt}]) for prompt in prompts]
    # Clients in a process of their own, as they are in life: they take nothing of the server's interpreter.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:

        def asked(leave_after: int) -> Told:
            told = process.submit(ask, port, served.name, prompts, tokens, arguments.temperature, leave_after).result()
            stayed = sum(got is not None for got in told.tokens)
            wrong = sum(
                not _same(served, got, turn.ids.tolist())
                for got, turn in zip(told.tokens, expected, strict=True)
                if got is not None
            )
            print(
                f"{stayed} of {clients} clients stayed, {wrong} with lost or mixed tokens, {told.seconds:.2f} s",
                flush=True,
            )
            return told

        ours, theirs, ours_cpu, theirs_cpu = [], [], [], []
        for _ in range(arguments.runs + 1):  # the first compiles
            started, used = time.perf_counter(), time.process_time()
            expected = alone.sample_all([Request(prompt, seed, sampling) for seed, prompt in enumerate(ids)])
            theirs.append(time.perf_counter() - started)
            theirs_cpu.append(time.process_time() - used)
            used = time.process_time()
            ours.append(asked(0).seconds)
            ours_cpu.append(time.process_time() - used)
        if arguments.leave_after:
            asked(arguments.leave_after)
    count = sum(len(turn.ids) for turn in expected)
    server_s, sampler_s = statistics.median(ours[1:]), statistics.median(theirs[1:])
    ratios = sorted(other / mine for mine, other in zip(ours[1:], theirs[1:], strict=True))
    ratios_cpu = [other / mine for mine, other in zip(ours_cpu[1:], theirs_cpu[1:], strict=True)]
    print(
        f"{clients} clients, {count} tokens, {arguments.runs} runs: server {count / server_s:.0f} tokens/s, sampler "
        f"{count / sampler_s:.0f} tokens/s (medians); ratio {statistics.median(ratios):.2f}, from {ratios[0]:.2f} to "
        f"{ratios[-1]:.2f}; of processor seconds, the clients' left out, {statistics.median(ratios_cpu):.2f}",
        flush=True,
    )
    print(f"malformed requests: {dict(_malformed(port, served.name, arguments.malformed))}")
    server.should_exit = True
    thread.join()
    served.engine.close()


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
