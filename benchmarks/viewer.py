"""How fast a page of launch.show opens, and how large it is.

1,000 episodes of ten turns about tasks of the miniature, each with token ids; the turns of the first 100 were ranked,
16 candidates each with log-ratios of their tokens. Opened in headless Chromium from the disk, each time in a new
context: seconds until the list and the first episode are there. The peer is the same rows as one plain static page:
everything is an element from the start.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from colbench_env.dialogue import ANSWER_MARKER
from colbench_env.episodes import with_grade
from colbench_env.grading import Grade, TestVerdict
from colbench_env.mini import make_tasks
from colbench_env.tasks import write_rows
from colbench_env.types import Candidates, Message, Pair, Ranked, Task, Trajectory, Verdict
from launch.common.settings import EMBEDDED, start_model
from sweet_jax.data.chat import Chat
from sweet_jax.data.token_rows import TOKENS, row_to_json, trajectory_row, turn_output, turn_prompt

TURNS, CANDIDATES, SHARE, NUM_PAIRS = 10, 16, 0.1, 4
QUESTIONS = ("What about an empty list?", "Which border do you use?", "Should I add a fee?", "How long may it be?")


def episode(task: Task, chat: Chat, number: int) -> Trajectory:
    """A graded dialogue of TURNS turns."""
    rng, history = random.Random(number), [Message("user", task.problem_description)]
    for _ in range(TURNS - 1):
        asked = rng.choice(QUESTIONS)
        history += [Message("assistant", asked, "", asked), Message("user", f"I don't know, {rng.random()}.")]
    answer = f"{ANSWER_MARKER} {task.ground_truth}"
    history.append(Message("assistant", answer, "", answer))
    plain = Trajectory(task, tuple(history), task.ground_truth)
    row = trajectory_row(plain, chat, "", "")
    extra = {"sample": 0, "seed": 0, "human": {"name": "scripted"}, "turns_cut": 0, TOKENS: row_to_json(row)}
    tests = [
        TestVerdict(name, rng.choice([Verdict.PASS, Verdict.WRONG]), got=str(rng.random()), expected=str(rng.random()))
        for name in task.test_cases
    ]
    return with_grade(Trajectory(task, tuple(history), task.ground_truth, extra=extra), Grade(tuple(tests)), "strict")


def ranked(trajectory: Trajectory, chat: Chat, index: int, turn: int) -> Ranked:
    """CANDIDATES turns in one place of a dialogue, with made-up scores."""
    rng, row = random.Random(f"{index} {turn}"), trajectory_row(trajectory, chat, "", "")
    texts = [f"{rng.choice(QUESTIONS)} {rng.choice(QUESTIONS)}" for _ in range(CANDIDATES)]
    ids = [chat.tokenizer(text, add_special_tokens=False)["input_ids"] + [chat.turn_end_id] for text in texts]
    ratios = [[round(rng.gauss(0, 0.5), 4) for _ in one] for one in ids]
    played, numbers = turn_output(row, turn), tuple(float(-rng.random()) for _ in texts)
    extra = {
        "trajectory": index, "turn": turn, "prompt_ids": turn_prompt(row, turn), "output_ids": ids, "prefix_length": 1,
        "token_log_ratios": ratios,
        "older": {"judge_result": rng.gauss(0, 1), "output_ids": played, "token_log_ratios": [0.1] * len(played)},
    }  # fmt: skip
    messages = trajectory.dialogue_history[: 2 * turn - 1]
    return Ranked(
        Candidates("p", "p", "o", 1.0, "g", messages, tuple(texts), numbers, numbers, extra),
        tuple(statistics.fmean(one) for one in ratios),
    )


def write_run(folder: Path, count: int) -> list[Trajectory]:
    """The run directory's files that the page is made of; gives its trajectories."""
    chat, rng = Chat.load(start_model(EMBEDDED, folder)), random.Random(0)
    trajectories = [episode(task, chat, i) for i, task in enumerate(make_tasks("train", count, 0))]
    rows = [ranked(trajectories[i], chat, i, turn) for i in range(int(SHARE * count)) for turn in range(1, TURNS + 1)]
    picks = [(place, rng.sample(range(CANDIDATES), 2)) for place in range(len(rows)) for _ in range(NUM_PAIRS)]
    pairs = [Pair("a", "b", {"position": place, "picked": picked}) for place, picked in picks]
    for part in ("grading", "ranking", "turn-pairs"):
        (folder / part).mkdir()
    (folder / "config.json").write_text(json.dumps({"model": EMBEDDED}))
    write_rows(folder / "grading" / "trajectories.jsonl", trajectories)
    write_rows(folder / "ranking" / "ranked.jsonl", rows)
    write_rows(folder / "turn-pairs" / "pairs.jsonl", pairs)
    return trajectories


def plain_page(folder: Path, target: Path) -> None:
    """The same rows as static elements: a block of text and a span for each number, unfolded when clicked."""
    parts = ["<!doctype html><meta charset=utf-8><title>plain</title>"]
    for path in ("grading/trajectories.jsonl", "ranking/ranked.jsonl"):
        for line in (folder / path).read_text().splitlines():
            parts.append(f"<details><summary>{path}</summary>{elements(json.loads(line))}</details>")
    target.write_text("".join(parts) + "<p id=done>", encoding="utf-8")


def elements(value: Any) -> str:
    """A JSON value as nested elements."""
    if isinstance(value, dict):
        return "".join(f"<div><b>{html.escape(key)}</b> {elements(one)}</div>" for key, one in value.items())
    if isinstance(value, list):
        return "".join(f"<span>{elements(one)}</span> " for one in value)
    return html.escape(str(value))


def opening(browser: Any, path: Path, there: str, repeats: int) -> float:
    """Median seconds until the element is there."""
    seconds = []
    for _ in range(repeats):
        context = browser.new_context()
        page = context.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri(), wait_until="commit")
        page.wait_for_selector(there, state="attached", timeout=120_000)
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")  # painted
        seconds.append(time.perf_counter() - start)
        context.close()
    return statistics.median(seconds)


def stepping(browser: Any, path: Path, steps: int = 50) -> float:
    """Mean seconds from the key j until the next episode is there."""
    page = browser.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready='training/1']")
    start = time.perf_counter()
    for number in range(2, steps + 2):
        page.keyboard.press("j")
        page.wait_for_selector(f"body[data-ready='training/{number}']")
    return (time.perf_counter() - start) / steps


def main() -> None:
    """Makes the rows, the page and the peer, opens both, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium on the path")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder, target, peer = Path(name), Path(name) / "show.html", Path(name) / "plain.html"
        write_run(folder, options.episodes)
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "launch.show", f"--run-dir={folder}", f"--output={target}"], check=True)
        print(f"made in {time.perf_counter() - start:.1f} s")
        plain_page(folder, peer)
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        with playwright.chromium.launch(executable_path=chromium, args=arguments) as browser:
            ours = opening(browser, target, "body[data-ready='training/1'] #rows a", options.repeats)
            theirs = opening(browser, peer, "#done", max(options.repeats // 2, 1))
            step = stepping(browser, target)
        sizes = [path.stat().st_size / 2**20 for path in (target, peer)]
        print(f"{options.episodes} episodes open in {ours:.2f} s (goal < 2), j takes {1000 * step:.0f} ms")
        print(f"{sizes[0]:.1f} MiB on disk (goal < 60)")
        print(f"peer, a plain static page: {theirs:.2f} s, {sizes[1]:.1f} MiB")
        print(f"ratio to the peer: {ours / theirs:.2f} of the time, {sizes[0] / sizes[1]:.2f} of the size")


if __name__ == "__main__":
    main()
