"""Clients of a chat server that stream side by side: `benchmarks.server` runs them in a process of their own."""

import asyncio
import time
from dataclasses import dataclass

import openai


@dataclass(frozen=True)
class Told:
    """tokens: of each client, as text; None for those who left. seconds: until the last had its answer."""

    tokens: list[tuple[str, ...] | None]
    seconds: float


def ask(port: int, model: str, prompts: list[str], tokens: int, temperature: float, leave_after: int) -> Told:
    """What the clients were told. Every third leaves after `leave_after` tokens, if that is not 0."""

    async def one(client: openai.AsyncOpenAI, number: int) -> tuple[str, ...] | None:
        found: list[str] = []
        stream = await client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompts[number]}],
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

    async def all_of_them() -> Told:
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=600
        ) as client:
            started = time.perf_counter()
            found = await asyncio.gather(*(one(client, number) for number in range(len(prompts))))
            return Told(found, time.perf_counter() - started)

    return asyncio.run(all_of_them())
