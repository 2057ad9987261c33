"""What all commands share: flags from a dataclass, one sentence for bad input, exit status 0, 1 or 2."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the grader forks
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class Stopped(Exception):
    """The run cannot go on, and not for bad input: one sentence for the user, exit status 1."""


def run(command: Callable[[], None]) -> NoReturn:
    """Runs the command as this process, and ends it with `exit_status`."""
    status = exit_status(command)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or 1
    sys.stderr.flush()
    if status:
        # At once: TensorBoard's and orbax's threads would go on to tell of a full disk, each with a traceback. Nothing
        # is lost, as every file is written so that a process may be killed at any moment.
        os._exit(status)
    sys.exit(status)


def exit_status(command: Callable[[], None]) -> int:
    """Runs the command: 0 when done, 2 for bad input (one sentence on standard error), 1 for anything else."""
    _hush_late_writes()
    try:
        command()
    except (Exception, KeyboardInterrupt) as error:
        status, sentence = verdict(error)
        if sentence:
            print(sentence if isinstance(error, KeyboardInterrupt) else f"error: {sentence}", file=sys.stderr)
        else:
            traceback.print_exception(error)
        return status
    return 0


def verdict(error: BaseException) -> tuple[int, str]:
    """The exit status for an error and its sentence, which is empty where only a traceback will do."""
    from colbench_env.terminal_text import printable
    from colbench_env.types import BadInput
    from models.config import ModelError

    told = printable(str(error))
    match error:
        case BadInput() | ModelError():
            return 2, told
        case BrokenPipeError():
            return 1, "standard output was closed before everything was printed"
        case OSError() if error.filename is not None:
            return 2, printable(f"{error.filename}: {error.strerror}")
        case ConnectionError() if error.errno is None:  # of ours, a sentence
            return 1, told
        case Stopped():
            return 1, told
        case KeyboardInterrupt():
            return 1, "stopped; run the same command again to continue"
    return 1, ""


def _hush_late_writes() -> None:
    """Keeps one sentence one sentence: of a checkpoint that a full disk refuses, the first failed write is the error.

    tensorstore's other writes fail after it and report, each with a traceback, to an event loop that is closed by then.
    """
    before = sys.unraisablehook

    def hook(event: sys.UnraisableHookArgs) -> None:
        if not (isinstance(event.exc_value, RuntimeError) and str(event.exc_value) == "Event loop is closed"):
            before(event)

    sys.unraisablehook = hook


def flag_value(argv: Sequence[str], name: str, default: str) -> str:
    """The last value of --NAME in the arguments, for what has to be known before the other flags get their defaults."""
    found = default
    for index, argument in enumerate(argv):
        if argument == f"--{name}" and index + 1 < len(argv):
            found = argv[index + 1]
        if argument.startswith(f"--{name}="):
            found = argument.removeprefix(f"--{name}=")
    return found


def parse(kind: type[Any], argv: Sequence[str], presets: dict[str, Callable[[], Any]], default_preset: str) -> Any:
    """The configuration that the arguments describe; `--help` and mistakes end the process with status 0 and 2."""
    import tyro

    from colbench_env.types import BadInput

    name = flag_value(argv, "preset", default_preset)
    if name not in presets:
        raise BadInput(f"--preset={name}: there is no such preset, expected one of {', '.join(presets)}")
    return tyro.cli(kind, args=list(argv), default=presets[name](), description=kind.__doc__)


def parse_plain(kind: type[Any], argv: Sequence[str], prog: str | None = None) -> Any:
    """As `parse`, for a command without presets. prog: its name in `--help`, where it is one of several in a file."""
    import tyro

    return tyro.cli(kind, prog=prog, args=list(argv), description=kind.__doc__)


def bad_input(sentence: str) -> Exception:
    """The error of bad input, for code that runs before the packages are imported."""
    from colbench_env.types import BadInput

    return BadInput(sentence)
