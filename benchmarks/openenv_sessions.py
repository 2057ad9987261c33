"""Many sessions at once against the OpenEnv server, and what is no use to it; the last line is JSON.

    python benchmarks/openenv_sessions.py --sessions=64 --episodes=1000

Runs where `./colbench_env[openenv]` is installed. Every session says recorded dialogues (those of the adapters' tests)
one after the other over a WebSocket of its own, and each reply and reward must be that of its dialogue. Then: messages
of the wrong shape, a step after the end, an unknown split and task, an action of 10 MB, and clients that vanish in the
middle of an episode, after which as many sessions must be free again. Memory is that of the server and its children.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

RECORDED = Path(__file__).parents[1] / "tests" / "colbench_env" / "adapters" / "dialogues.jsonl"
DIALOGUES = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
BIG = 10_000_000


async def ask(connection: ClientConnection, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """Send a message and return the answer."""
    await connection.send(json.dumps({"type": kind, "data": data}))
    return json.loads(await connection.recv())


async def play(connection: ClientConnection, row: dict[str, Any]) -> bool:
    """Say a recorded dialogue; whether replies and reward are those recorded."""
    answer = await ask(connection, "reset", {name: row[name] for name in ("split", "index", "seed")})
    replies = [answer["data"]["observation"]["text"]]
    for turn in row["turns"]:
        answer = await ask(connection, "step", {"text": turn})
        replies.append(answer["data"]["observation"]["text"])
    return replies[:-1] == row["replies"] and answer["data"]["reward"] == row["reward"] and answer["data"]["done"]


async def play_all(url: str, sessions: int, episodes: int) -> tuple[int, int]:
    """Play the episodes, `sessions` at a time; returns how many were as recorded, and how many not."""
    left, good, bad = iter(range(episodes)), 0, 0

    async def session() -> None:
        nonlocal good, bad
        async with connect(url, max_size=None) as connection:
            for number in left:
                if await play(connection, DIALOGUES[number % len(DIALOGUES)]):
                    good += 1
                else:
                    bad += 1

    await asyncio.gather(*(session() for _ in range(sessions)))
    return good, bad


async def mistreat(url: str, sessions: int) -> dict[str, str]:
    """Send what is no use, and return the code of each answer; "alive" where an episode can be played afterwards."""
    codes = {}
    async with connect(url, max_size=None) as connection:
        row = DIALOGUES[0]
        bad = {
            "no JSON": "{",
            "unknown type": json.dumps({"type": "jump", "data": {}}),
            "wrong shape": json.dumps({"type": "step", "data": {"question": "?"}}),
            "wrong kind": json.dumps({"type": "step", "data": {"text": 7}}),
            "unknown split": json.dumps({"type": "reset", "data": {"split": "nowhere"}}),
            "unknown task": json.dumps({"type": "reset", "data": {"split": "test", "index": 10**6}}),
            "unknown option": json.dumps({"type": "reset", "data": {"colour": "red"}}),
        }
        for name, message in bad.items():
            await connection.send(message)
            codes[name] = json.loads(await connection.recv())["data"].get("code", "none")
        await play(connection, row)
        codes["step after the end"] = (await ask(connection, "step", {"text": "?"}))["data"].get("code", "none")
        await ask(connection, "reset", {"split": "test", "index": 0})
        codes["10 MB"] = (await ask(connection, "step", {"text": "x" * BIG}))["data"].get("code", "none")
        codes["after all that"] = "alive" if await play(connection, row) else "lost"
    vanishing = [await connect(url, max_size=None) for _ in range(sessions)]
    for connection in vanishing:
        await ask(connection, "reset", {"split": "test", "index": 1})
        connection.transport.abort()
    good, _ = await play_all(url, sessions, sessions)
    codes["clients that vanish"] = "alive" if good == sessions else f"{good} of {sessions} sessions left"
    return codes


def resident_megabytes(process: int) -> float:
    """Sum the resident memory of the process and of its children."""
    total, parents = 0.0, {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(name)] = int(Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family = {process}
    while new := {child for child, parent in parents.items() if parent in family} - family:
        family |= new
    for member in family:
        try:
            total += (
                int(Path("/proc", str(member), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            )
        except OSError:
            continue
    return total


def main() -> None:
    """Start the server, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=1000)
    told = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "colbench_env.adapters.openenv.server:app", f"--port={port}"]
    server = subprocess.Popen(
        [*command, "--log-level=critical"], env=os.environ | {"COLBENCH_SESSIONS": str(told.sessions)}
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        url = f"ws://127.0.0.1:{port}/ws"
        asyncio.run(play_all(url, told.sessions, told.sessions))  # all that is made once is there
        before, started = resident_megabytes(server.pid), time.monotonic()
        good, bad = asyncio.run(play_all(url, told.sessions, told.episodes))
        seconds, after = time.monotonic() - started, resident_megabytes(server.pid)
        codes = asyncio.run(mistreat(url, told.sessions))
    finally:
        server.terminate()
        server.wait()
    found = {"sessions": told.sessions, "episodes": good + bad, "as_recorded": good, "others": bad}
    found |= {"seconds": round(seconds, 1), "megabytes_before": round(before), "megabytes_after": round(after)}
    print(json.dumps(found | {"bad_input": codes}))


if __name__ == "__main__":
    main()
