"""The command `colbench`, also `python -m colbench_env`: plays dialogues, grades answers, says what they are worth.

    colbench play --agent=my_agent.py:agent --output=rows.jsonl       # 20 tasks of toy ColBench
    colbench grade rows.jsonl --output=graded.jsonl
    colbench report graded.jsonl

It needs the standard library alone; `launch.evaluate` of the whole project says more (intervals, baselines, pages).
"""

import argparse
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from colbench_env import mini
from colbench_env.dialogue import MAX_TURNS
from colbench_env.episodes import EpisodeFailed, Settings, play_many
from colbench_env.grade_file import alone_on, grade_rows, why_ungraded
from colbench_env.grading import Grader
from colbench_env.grading.verdicts import MODES
from colbench_env.humans import UserSimulator
from colbench_env.humans.chat import ChatSimulator
from colbench_env.humans.rules import RulesSimulator
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.import_function import import_function
from colbench_env.rewards import check_rewards
from colbench_env.tasks import read_located_rows, read_rows
from colbench_env.terminal_text import printable_line
from colbench_env.types import NO_ANSWER, BadInput, Task, Trajectory

REGRADE = "colbench grade FILE --output=GRADED gives new ones to rows without 'reward'"


class Stopped(Exception):
    """The command did what it could and did not get everything done: why, in one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 2 for bad input, 1 where something is left to do or cannot be
    written, 130 for Ctrl-C. One sentence says why."""
    _prepare_streams()
    try:
        parsed = _parser().parse_args(arguments)
    except SystemExit as end:  # of argparse: --help, or flags that are wrong
        status = int(end.code or 0)
    else:
        status = _status(lambda: parsed.run(parsed))
    unwritten = _status(sys.stdout.flush)
    return status or unwritten


def _prepare_streams() -> None:
    """Escapes stand for what the encoding of a terminal lacks; a stream that is closed swallows what it is given."""
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _status(command: Callable[[], None]) -> int:
    """Run the command or a part of it and return its exit status, of which one sentence on standard error says why."""
    try:
        command()
        return 0
    except KeyboardInterrupt:
        status, sentence = 130, "stopped; run the same command again to continue"
    except (BadInput, Stopped) as problem:
        status, sentence = (2 if isinstance(problem, BadInput) else 1), f"error: {problem}"
    except OSError as problem:
        status, sentence = 1, f"error: {_explain_error(problem)}"
        _discard(sys.stdout)
    with contextlib.suppress(OSError):
        print(printable_line(sentence), file=sys.stderr, flush=True)
    _discard(sys.stderr)
    return status


def _explain_error(problem: OSError) -> str:
    """Explain an error of the system in a sentence."""
    if isinstance(problem, BrokenPipeError):
        return "the output was closed before everything was printed"
    if problem.filename is not None:
        return f"{problem.filename}: {problem.strerror}"
    if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return f"the output cannot be written: {problem.strerror}"
    return str(problem)


def _discard(stream: TextIO) -> None:
    """Discard what cannot be printed, on which the interpreter would fail once more as it ends."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("colbench", description="Tasks, user simulators and a sandboxed grader.")
    commands = parser.add_subparsers(required=True, metavar="play|grade|report")
    play = commands.add_parser("play", help="play dialogues of an agent with a user simulator")
    play.set_defaults(run=_play)
    play.add_argument("--agent", required=True, metavar="FILE.py:NAME", help="function from chat messages to text")
    play.add_argument("--output", required=True, type=Path, help="rows go here; the same command again goes on")
    play.add_argument("--tasks", type=Path, help="a tasks file; without it tasks of toy ColBench")
    play.add_argument(
        "--human",
        metavar="scripted|rules|FILE.py:NAME",
        help="scripted knows the hidden facts of toy ColBench, rules answers from a task's reference (left out, "
        "scripted without --tasks and rules with it); or a function (messages, seed) -> text",
    )
    play.add_argument("--count", type=int, default=20, help="tasks of toy ColBench (20)")
    play.add_argument("--samples", type=int, default=1, help="dialogues about each task (1)")
    turns = f"turns of the agent at most ({mini.MINI_TURNS} without --tasks, {MAX_TURNS} with it)"
    play.add_argument("--max-turns", type=int, help=turns)
    play.add_argument("--seed", type=int, default=0)
    play.add_argument("--threads", type=int, default=8)
    grade = commands.add_parser("grade", help="grade the answers of a file in a sandbox")
    grade.set_defaults(run=_grade)
    grade.add_argument("rows", type=Path)
    grade.add_argument("--output", required=True, type=Path, help="graded rows; the same command again goes on")
    grade.add_argument("--grader", choices=MODES, default="strict")
    grade.add_argument("--workers", type=int, default=2)
    report = commands.add_parser("report", help="what graded dialogues are worth")
    report.set_defaults(run=_report)
    report.add_argument("rows", type=Path)
    return parser


def _play(flags: argparse.Namespace) -> None:
    if flags.count < 1:
        raise BadInput(f"--count={flags.count}: expected at least 1 task")
    agent, human = import_function(flags.agent), _make_simulator(flags)
    tasks = mini.make_tasks("test", flags.count, flags.seed) if flags.tasks is None else read_rows(flags.tasks, Task)
    usual_turns = mini.MINI_TURNS if flags.tasks is None else MAX_TURNS
    max_turns = usual_turns if flags.max_turns is None else flags.max_turns
    settings = Settings(max_turns=max_turns, seed=flags.seed, agent_name=flags.agent)
    failed: list[EpisodeFailed] = []
    done = total = 0

    def on_begin(kept: int, wanted: int) -> None:
        nonlocal done, total
        done, total = kept, wanted

    def on_done(result: Trajectory | EpisodeFailed) -> None:
        nonlocal done
        done += 1
        if isinstance(result, EpisodeFailed):
            failed.append(result)
            print(f"warning: {printable_line(str(result))}", file=sys.stderr)
        _print_progress("dialogues", done, total)

    played = play_many(
        tasks,
        agent,
        human,
        settings,
        samples=flags.samples,
        threads=flags.threads,
        output=flags.output,
        on_done=on_done,
        on_begin=on_begin,
    )
    print(f"{len(played) - len(failed)} dialogues in {flags.output}")
    if failed:
        raise Stopped(f"{len(failed)} dialogues failed, the last one: {failed[-1]}; the same command plays them again")


def _make_simulator(flags: argparse.Namespace) -> UserSimulator:
    """Make the user simulator of `--human`. Raises BadInput."""
    name = flags.human or ("scripted" if flags.tasks is None else "rules")
    if name == "scripted":
        return ScriptedSimulator(mini.keywords(), mini.UNKNOWN_REPLIES)
    if name == "rules":
        return RulesSimulator()
    if ":" not in name:
        raise BadInput(f"--human={name}: there is no such human, expected scripted, rules or FILE.py:NAME")
    return ChatSimulator(import_function(name), model={"name": name})


def _grade(flags: argparse.Namespace) -> None:
    given = read_located_rows(flags.rows, Trajectory)
    for found in given:
        if not (found.row.task.ground_truth and found.row.task.test_cases):
            raise BadInput(f"{found.location}: the answer cannot be graded: the task has no reference or no tests")
    rows = [found.row for found in given]
    wanted = [row.reward is None for row in rows]
    if not all(wanted):
        check_rewards(given, "backend", REGRADE)
    with alone_on(flags.output), Grader(flags.grader, flags.workers) as grader:
        print(grader.layers_text())
        graded = grade_rows(
            rows, wanted, grader, flags.output, lambda done, total: _print_progress("answers", done, total)
        )
    print(f"{len(graded)} graded dialogues in {flags.output}")
    if left := [row for row in graded if row.reward is None]:
        raise Stopped(f"{len(left)} answers could not be graded, {why_ungraded(left)}")


def _report(flags: argparse.Namespace) -> None:
    given = read_located_rows(flags.rows, Trajectory)
    check_rewards(given, "backend", REGRADE)
    rows = [found.row for found in given]
    by_task: dict[str, list[float]] = {}
    for row in rows:
        if row.reward is not None:
            by_task.setdefault(row.task.task_id, []).append(row.reward)
    if not by_task:
        raise BadInput(f"{flags.rows}: no dialogue has a reward: colbench grade FILE --output=GRADED gives them")
    passed = _mean([_mean(rewards) for rewards in by_task.values()])
    solved = _mean([_mean([reward == 1.0 for reward in rewards]) for rewards in by_task.values()])
    print(f"success       {100 * solved:.1f} %")
    print(f"tests passed  {100 * passed:.1f} %")
    print(f"tasks         {len(by_task)}")
    print(f"dialogues     {len(rows)}, {sum(row.reward is None for row in rows)} of them without a reward")
    print(f"agent turns   {_mean([len(row.agent_turns) for row in rows]):.2f}")
    print(f"no answer     {sum(row.answer == NO_ANSWER for row in rows)}")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _print_progress(what: str, done: int, total: int) -> None:
    """Print progress: a line that is written over on a terminal, elsewhere a line at every tenth part."""
    if sys.stderr.isatty():
        print(f"\r{what} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done == total or done * 10 // total > (done - 1) * 10 // total:
        print(f"{what} {done}/{total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
