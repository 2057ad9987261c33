"""One episode in the terminal, with what the page shows of it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from colbench_env.types import BadInput
from launch.viewer.episodes import DIALOGUE, INFRASTRUCTURE, Episode, Reply
from launch.viewer.highlight import Piece, coloured
from launch.viewer.inputs import Group
from launch.viewer.terminal_console import open_console, untrusted_text
from launch.viewer.token_rows import Pieces, counts
from launch.viewer.training_rows import painted
from launch.viewer.turns import Turn
from sweet_jax.data.chat import Chat

CODE_STYLES = {"k": "magenta", "s": "green", "n": "blue", "c": "dim", "f": "yellow", "b": "yellow", "o": "", "": ""}
STATUS_STYLES = {"solved": "green", "partly": "yellow", "not graded": "dim"}


def print_episode(episodes: Sequence[Episode], group: Group, line: int, chat: Chat | None) -> None:
    """Print the episode of that line; without a terminal there are no colours. Raises BadInput where there is none."""
    one = next((one for one in episodes if (one.group, one.line) == (group.name, line)), None)
    if one is None:
        raise BadInput(f"{group.path}:{line}: there is no episode on that line, --row=N counts lines from 1")
    console = open_console()
    _head(console, one, group)
    _say(console, "human", one.problem, "cyan")
    for number, turn in enumerate(one.turns, start=1):
        _turn(console, number, turn)
        if number <= len(one.replies):
            _reply(console, one.replies[number - 1])
    _title(console, "Answer")
    console.print(_code(coloured(one.answer)))
    _tests(console, one)
    _title(console, "Training-time information: the policy never sees this")
    console.print(untrusted_text(one.hidden or "no hidden information recorded"), style="yellow")
    console.print(_code(coloured(one.reference)) if one.reference else "no reference recorded")
    _title(console, "Tokens")
    played = [together.rows[0].row for together in one.rows if together.title == DIALOGUE]
    if not played:
        console.print("no token ids in this row; --tokens FILE makes them with a tokenizer")
    for row in played:
        console.print(untrusted_text(counts(row, chat).text))
        console.print(painted(row, Pieces(chat), console.is_terminal))


def _head(console: Console, one: Episode, group: Group) -> None:
    style = STATUS_STYLES.get(one.status, "red")
    title = untrusted_text(f"{group.path}:{one.line}  ").append(f"{one.status}: {one.outcome}", f"bold {style}")
    console.print(title, soft_wrap=True)
    facts = [("task", one.task_id), *one.facts]
    if one.baseline:
        facts.append(("baseline", f"{one.baseline[0]}, line {one.baseline[1]}"))
    console.print(untrusted_text(", ".join(f"{name} {value}" for name, value in facts)), style="dim")
    if one.error:
        console.print(untrusted_text(f"Infrastructure error. {one.error}"), style="bold red")


def _title(console: Console, text: str) -> None:
    console.print(untrusted_text(f"\n{text}"), style="bold")


def _say(console: Console, who: str, text: str, style: str) -> None:
    console.print(untrusted_text(f"\n{who}"), style=f"bold {style}")
    console.print(Padding(untrusted_text(text), (0, 0, 0, 2)))


def _reply(console: Console, reply: Reply) -> None:
    marks = [f"leaks: {', '.join(reply.leaks)}"] * bool(reply.leaks)
    marks += [f"asked again {reply.reasked} x"] * bool(reply.reasked)
    _say(console, " · ".join(["human", *marks]), reply.text, "yellow" if marks else "cyan")


def _turn(console: Console, number: int, turn: Turn) -> None:
    ranked = bool(turn.candidates)
    score = f", advantage {turn.advantage:+.3f}" if turn.advantage is not None else ", advantage not recorded" * ranked
    if turn.thought:
        _say(console, f"agent, turn {number}: thought, not shown to the human", turn.thought, "dim")
    _say(console, f"agent, turn {number}{score}", turn.said, "green")
    if not ranked:
        return
    known = turn.candidates[0].chosen is not None
    picks = "" if known else "; picks not recorded"
    table = Table(title=f"{len(turn.candidates)} candidates, best first{picks}", title_justify="left", box=None)
    table.add_column("advantage", justify="right")
    table.add_column("picked")
    table.add_column("turn")
    about = any(one.about for one in turn.candidates)
    if about:
        table.add_column("about")
    for one in turn.candidates:
        picked = [f"{word} x{count}" for word, count in (("chosen", one.chosen), ("rejected", one.rejected)) if count]
        style = "green" if one.chosen else "red" if one.rejected else ""
        more = [one.about] if about else []
        table.add_row(f"{one.advantage:+.3f}", ", ".join(picked), untrusted_text(one.text), *more, style=style)
    console.print(Padding(table, (0, 0, 0, 2)))


def _tests(console: Console, one: Episode) -> None:
    _title(console, "Tests")
    if not one.tests:
        console.print("none known")
        return
    table = Table(box=None)
    for name in ("test", "call", "verdict", "expected", "got"):
        table.add_column(name, overflow="fold")
    for test in one.tests:
        recorded = (test.expected, test.got, test.detail) != (None, None, None)
        missing = "no value" if recorded else "not recorded"
        style = "green" if test.verdict == "pass" else "bold red" if test.verdict == INFRASTRUCTURE else "red"
        got = test.got if test.got is not None else test.detail
        cells = (test.name, test.call, test.verdict or "not graded", test.expected, got)
        styles = ("", "", style, "", "")
        table.add_row(
            *(untrusted_text(missing if cell is None else cell, how) for cell, how in zip(cells, styles, strict=True))
        )
    console.print(table)


def _code(pieces: Sequence[Piece]) -> Text:
    return Text.assemble(*(untrusted_text(text, CODE_STYLES[kind]) for kind, text in pieces))
