"""Where `--terminal` and `--tokens` print."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from colbench_env.terminal_text import printable

WIDTH = 100  # columns where there is no terminal


def open_console(soft_wrap: bool = False) -> Console:
    """Open a console on standard output. Its `is_terminal` says whether it has colours.

    Without a terminal, without colours in it, or with NO_COLOR it writes plain text without any control sequence.
    """
    found = Console(highlight=False, soft_wrap=soft_wrap)
    if found.is_terminal and not found.no_color and found.color_system is not None:
        return found
    width = found.width if found.is_terminal else WIDTH
    return Console(highlight=False, soft_wrap=soft_wrap, force_terminal=False, color_system=None, width=width)


def untrusted_text(text: str, style: str = "") -> Text:
    """Make text of a file printable: control characters are shown, not obeyed."""
    return Text(printable(text), style)
