"""Plays episodes between any agent and any user simulator, one or many side by side, and grades what came of them.

An agent is a function: chat messages in, the text of its turn out. An episode that the machine spoilt (the agent's
function raised, the user simulator could not reply) is an `EpisodeFailed`: it has no answer, so it is never graded.
"""

import asyncio
import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colbench_env import background
from colbench_env.design.grading import DesignGrade
from colbench_env.dialogue import MAX_TURNS, BackendRules, Episode, Rules, chat_messages
from colbench_env.grading import Grade, Grader
from colbench_env.humans import SimulatorRequest, UserSimulator
from colbench_env.prompts import load_prompt
from colbench_env.simulator_health import leaks, without_leaks
from colbench_env.tasks import SyncTimer, append_rows, read_complete, write_rows
from colbench_env.terminal_text import shorten
from colbench_env.thoughts import UnfinishedThought, without_thoughts
from colbench_env.types import BadInput, NoReply, Task, Trajectory, Verdict, replace_lone_surrogates

Agent = Callable[[list[dict[str, str]]], str]
Turn = Callable[[Episode], Awaitable[Episode]]

MAX_ERROR = 500  # characters of an error that are kept


def seed_of(*parts: object) -> int:
    """32 bits that depend on all parts and on nothing else."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


@dataclass(frozen=True)
class Settings:
    """How episodes are played; all of it is kept in the rows, but for the retries.

    `system` is the agent's system prompt: "" for none, None for the prompt of the rules. `agent_name` is for whoever
    reads a row. The user simulator is asked up to `attempts` times for a reply, with pauses of `retry_seconds`, twice
    that, ... A reply that gives the solution away (`simulator_health.leaks`) is marked; with `no_leaks` it is asked for
    again, up to `attempts` times, and then the user simulator has failed; with `leak_free` what leaks is taken out of
    it (`simulator_health.without_leaks`; the message's `leaks_removed` has the kinds). What a reasoning model thinks
    aloud is no part of its reply (`thoughts.without_thoughts`), and a reply that is all thought is asked for again;
    rows count both.
    """

    max_turns: int = MAX_TURNS
    rules: Rules = BackendRules()
    system: str | None = None
    seed: int = 0
    agent_name: str = "agent"
    attempts: int = 3
    retry_seconds: float = 1.0
    no_leaks: bool = False
    leak_free: bool = False

    def __post_init__(self) -> None:
        if self.max_turns < 1 or self.rules.human_limit < 1 or self.attempts < 1 or not self.retry_seconds >= 0:
            raise BadInput(
                f"max_turns={self.max_turns}, human_limit={self.rules.human_limit}, attempts={self.attempts} and "
                f"retry_seconds={self.retry_seconds}, expected at least 1, 1, 1 and 0"
            )
        if self.no_leaks and self.leak_free:
            raise BadInput("no_leaks and leak_free: a reply that leaks is asked for again or cleaned, not both")

    @property
    def system_prompt(self) -> str:
        """What the agent is told before the dialogue, "" for nothing."""
        return load_prompt(self.rules.agent_prompt, max_turns=self.max_turns) if self.system is None else self.system

    def begin(self, task: Task) -> Episode:
        """Return the episode about a task before the agent's first turn."""
        return Episode(task, self.max_turns, self.rules)

    def agent_messages(self, episode: Episode) -> list[dict[str, str]]:
        """Return the dialogue so far as chat messages for the agent, system prompt first."""
        return chat_messages(episode.messages, self.system_prompt)

    def run_metadata(self, human: UserSimulator) -> dict[str, Any]:
        """Return what a row says of how it was played, as it is read back from a file."""
        system_hash = hashlib.sha256(self.system_prompt.encode()).hexdigest()[:12]
        about = {
            "seed": self.seed,
            "agent": self.agent_name,
            "human": {"name": human.name, "settings": dict(human.settings)},
            "rules": {
                "max_turns": self.max_turns,
                "benchmark": self.rules.name,
                "human_limit": self.rules.human_limit,
                "system": system_hash,
                "no_leaks": self.no_leaks,
                **({"leak_free": True} if self.leak_free else {}),
            },
        }
        return json.loads(json.dumps(about))


class EpisodeFailed(Exception):
    """An episode that ended for reasons of the machine: `by` says whose, "agent", "human" or "grader".

    `episode` is its state before the failure; `reason` is cut to 500 characters.
    """

    def __init__(self, by: str, episode: Episode, sample: int, reason: str):
        super().__init__(by, episode, sample, reason)
        self.by = by
        self.episode = episode
        self.sample = sample
        self.reason = replace_lone_surrogates(shorten(reason, MAX_ERROR))

    def __str__(self) -> str:
        place = f"task {self.episode.task.task_id}, sample {self.sample}, after {self.episode.turns} turns"
        return f"{place}: the {self.by} failed: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Return the record of the failure, with the dialogue up to it. It is no trajectory and cannot be read as
        one."""
        return {
            "verdict": str(Verdict.INFRASTRUCTURE_ERROR),
            "by": self.by,
            "error": self.reason,
            "task_id": self.episode.task.task_id,
            "sample": self.sample,
            "turns": self.episode.turns,
            "messages": [message.to_json() for message in self.episode.history],
        }


def play(
    task: Task, agent: Agent, human: UserSimulator, settings: Settings = Settings(), sample: int = 0
) -> Trajectory:
    """Play one episode and return the ungraded trajectory. Raises EpisodeFailed, and BadInput where the simulator does.

    `sample` tells episodes about one task apart: the user simulator's seeds are made of the settings' seed, the task,
    the sample and the turn.

    Examples:
        >>> simulator = ScriptedSimulator({"rounding": ("round",)})
        >>> task = Task("Round a price.", "def f(x): return int(x)", {"test1": "f(1.5)"}, "rounding: Always down.")
        >>> def agent(messages: list[dict[str, str]]) -> str:
        ...     return "How do I round?" if len(messages) == 2 else "I WANT TO ANSWER: def f(x): return int(x)"
        >>> row = play(task, agent, simulator)
        >>> [message.content for message in row.dialogue_history[1:3]], row.answer, row.reward
        (['How do I round?', 'Always down.'], 'def f(x): return int(x)', None)
    """
    episode = settings.begin(task)
    while not episode.done:
        episode = _agent_turn(episode, agent, settings, sample)
        if not episode.done:
            episode = user_turn(episode, human, settings, sample)
    return make_trajectory(episode, human, settings, sample)


def _agent_turn(episode: Episode, agent: Agent, settings: Settings, sample: int) -> Episode:
    try:
        text = agent(settings.agent_messages(episode))
    except Exception as problem:
        raise EpisodeFailed("agent", episode, sample, _sentence(problem)) from problem
    if not isinstance(text, str):
        raise EpisodeFailed("agent", episode, sample, f"returned {type(text).__name__}, expected a string")
    return episode.step_agent(text)


async def play_async(episode: Episode, agent: Turn, human: UserSimulator, settings: Settings, sample: int) -> Episode:
    """Play the episode to its end; `agent` gives the state after each of its turns. Raises as `play`."""
    while not episode.done:
        episode = await agent(episode)
        if not episode.done:
            episode = await user_turn_async(episode, human, settings, sample)
    return episode


async def user_turn_async(episode: Episode, human: UserSimulator, settings: Settings, sample: int) -> Episode:
    """Return the episode after the simulator's reply. Raises EpisodeFailed when every try failed, BadInput at the
    first."""
    seed = seed_of(settings.seed, "human", episode.task.task_id, sample, episode.turns)
    problems: list[Exception] = []
    counts = {"reasked": 0, "unfinished_thoughts": 0}
    for attempt in range(settings.attempts):
        try:
            request = SimulatorRequest(episode.task, episode.shown_messages, (seed + attempt) % 2**32)
            reply = await human.reply(request)
            if not isinstance(reply, str):
                raise ValueError(f"the human's reply is {type(reply).__name__}, expected a string")
            spoken = without_thoughts(reply)
            found = leaks(episode.task, spoken.text[: episode.rules.human_limit])
            if not (found and settings.no_leaks):
                removed = found if settings.leak_free else []
                said = without_leaks(episode.task, spoken.text) if removed else spoken.text
                marks = {"leaks": [] if removed else found, "leaks_removed": removed, "thoughts": spoken.thoughts}
                kept = {name: value for name, value in (marks | counts).items() if value}
                return episode.step_user(said, kept | request.notes)
            counts["reasked"] += 1
            problems.append(ValueError(f"the reply gives the solution away ({', '.join(found)})"))
        except BadInput:
            raise
        except Exception as problem:
            problems.append(problem)
            counts["unfinished_thoughts"] += isinstance(problem, UnfinishedThought)
            if isinstance(problem, NoReply):
                break
            if attempt + 1 < settings.attempts:
                await asyncio.sleep(settings.retry_seconds * 2**attempt)
    last = _sentence(problems[-1])
    raise EpisodeFailed("human", episode, sample, f"{last} (attempts: {len(problems)})") from problems[-1]


def user_turn(episode: Episode, human: UserSimulator, settings: Settings, sample: int) -> Episode:
    """`user_turn_async` for those who are not asynchronous: the user simulator speaks on the background loop."""
    return background.run(user_turn_async(episode, human, settings, sample))


def make_trajectory(episode: Episode, human: UserSimulator, settings: Settings, sample: int) -> Trajectory:
    """Return the ungraded trajectory of an episode that is done, with what a row says of how it was played."""
    notes = [message.extra for message in episode.history if message.role == "user"]
    counts = {"leaks": sum("leaks" in marks for marks in notes), "reasked": sum(m.get("reasked", 0) for m in notes)}
    rare = {name: sum(m.get(name, 0) for m in notes) for name in ("thoughts", "unfinished_thoughts")}
    rare["leaks_removed"] = sum("leaks_removed" in marks for marks in notes)
    counts |= {name: count for name, count in rare.items() if count}
    return episode.to_trajectory({"sample": sample, **settings.run_metadata(human), **counts})


def play_many(
    tasks: Iterable[Task],
    agent: Agent,
    human: UserSimulator,
    settings: Settings = Settings(),
    *,
    samples: int = 1,
    threads: int = 8,
    output: str | Path | None = None,
    on_done: Callable[[Trajectory | EpisodeFailed], None] | None = None,
    on_begin: Callable[[int, int], None] | None = None,
) -> list[Trajectory | EpisodeFailed]:
    """Play sample 0 of every task, then sample 1, ..., each as `play`; an EpisodeFailed takes the place of a failed
    one.

    Raises BadInput where the user simulator does, or if the file has rows of another run: the run ends.

    agent, human: called from up to `threads` threads and never interrupted, so give your client a time-out.
    samples: episodes about each task.
    output: a file to which every episode is added as soon as it is over, and every failure to `failures_file(output)`;
    another run plays what is missing, failures included. At the end the file is put in order.
    on_done: called in this thread with each trajectory or failure.
    on_begin: called before the first episode with how many episodes `output` has already, and of how many.
    """
    if samples < 1 or threads < 1:
        raise BadInput(f"{samples} samples of each task in {threads} threads, expected at least 1 and 1")
    tasks = list(tasks)
    wanted = [(task, sample) for sample in range(samples) for task in tasks]
    results: list[Trajectory | EpisodeFailed | None] = [None] * len(wanted)
    if output:
        results = [*already_played(output, wanted, settings.run_metadata(human))]
    missing = [place for place, result in enumerate(results) if result is None]
    if on_begin is not None:
        on_begin(len(wanted) - len(missing), len(wanted))

    one_at_a_time, sync = threading.Lock(), SyncTimer()

    def attempt(place: int) -> Trajectory | EpisodeFailed:
        task, sample = wanted[place]
        try:
            result: Trajectory | EpisodeFailed = play(task, agent, human, settings, sample)
        except EpisodeFailed as failure:
            result = failure
        if output:
            with one_at_a_time:  # in this thread: what was under way when the run is stopped is kept, too
                failed = isinstance(result, EpisodeFailed)
                append_rows(failures_file(output) if failed else output, [result], sync=failed or sync.due())
        return result

    with ThreadPoolExecutor(threads) as pool:
        running = {pool.submit(attempt, place): place for place in missing}
        try:
            for future in as_completed(running):
                result = results[running[future]] = future.result()
                if on_done is not None:
                    on_done(result)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if output and missing:
        write_rows(output, [result for result in results if isinstance(result, Trajectory)])
    return [result for result in results if result is not None]


def failures_file(output: str | Path) -> Path:
    """Name the file of failures next to `output`: `rows.failures.jsonl` for `rows.jsonl`."""
    return Path(str(output).removesuffix(".jsonl") + ".failures.jsonl")


def already_played(
    output: str | Path, wanted: Sequence[tuple[Task, int]], about: dict[str, Any]
) -> list[Trajectory | None]:
    """For each wanted episode its trajectory in the file, or None. Raises BadInput for rows of another run."""
    places: dict[tuple[str, Any], list[int]] = defaultdict(list)
    for place, (task, sample) in enumerate(wanted):
        places[task.task_id, sample].append(place)
    results: list[Trajectory | None] = [None] * len(wanted)
    for number, row in enumerate(read_complete(output, Trajectory), start=1):
        played, other = row.extra.get("sample"), [key for key in about if row.extra.get(key) != about[key]]
        if other:
            was, now = ({key: place.get(key) for key in other} for place in (row.extra, about))
            raise BadInput(f"{output}: row {number} was played with {was}, this run has {now}: use another output file")
        free = places[row.task.task_id, played]
        if not free:
            what = f"sample {played} of task {row.task.task_id}"
            raise BadInput(f"{output}: row {number} is {what}, which this run does not play: use another output file")
        results[free.pop(0)] = row
    return results


def grade_trajectories(trajectories: Iterable[Trajectory], grader: Grader) -> list[Trajectory]:
    """Grade the trajectories, each as `with_grade`. Raises BadInput for a task without reference or tests."""
    trajectories = list(trajectories)
    grades = grader.grade_many((row.task, row.answer) for row in trajectories)
    return [with_grade(row, grade, grader.mode) for row, grade in zip(trajectories, grades, strict=True)]


def with_grade(trajectory: Trajectory, grade: Grade | DesignGrade, mode: str) -> Trajectory:
    """Return the trajectory with its reward, and in `extra` the grader's mode and what the grade leaves `in_row`.

    Where the answer could not be graded, for reasons of the machine, there is no reward (None).
    """
    extra = {**trajectory.extra, "grader": mode, **grade.in_row()}
    return replace(trajectory, reward=None if grade.excluded else grade.reward, extra=extra)


def _sentence(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}"
