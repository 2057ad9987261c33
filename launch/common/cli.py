"""What all commands share: flags from a dataclass, one sentence for bad input, exit status 0, 1, 2 or 143 (SIGTERM)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from launch.common import stopping
from launch.common.flags import check_values, prefix_of
from launch.common.old_names import current_flags

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the grader forks
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


class Stopped(Exception):
    """The run cannot go on, and not for bad input: one sentence for the user, exit status 1."""


def run(command: Callable[[], None]) -> NoReturn:
    """Runs the command as this process, and ends it with `exit_status`."""
    stopping.watch_for_sigterm()
    # None where the shell has closed it. Escapes stand for what an encoding lacks.
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    status = exit_status(command)
    try:
        sys.stdout.flush()
    except OSError as error:
        status = status or _tell(error)
    if status:
        # At once: TensorBoard's and orbax's threads would go on to tell of a full disk, each with a traceback. Nothing
        # is lost, as every file is written so that a process may be killed at any moment.
        os._exit(status)
    sys.exit(status)


def exit_status(command: Callable[[], None]) -> int:
    """Runs the command: 0 when done, 2 for bad input (one sentence on standard error), 143 where SIGTERM has ended it,
    1 for anything else."""
    _hush_late_writes()
    try:
        command()
    except (Exception, KeyboardInterrupt) as error:
        return _tell(error)
    return 0


def _tell(error: BaseException) -> int:
    """Says on standard error what has ended the command; its exit status."""
    status, sentence = verdict(error)
    with contextlib.suppress(OSError):  # standard error may be closed as well
        if sentence:
            print(sentence if isinstance(error, KeyboardInterrupt) else f"error: {sentence}", file=sys.stderr)
        else:
            traceback.print_exception(error)
        sys.stderr.flush()
    return status


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
        case OSError() if error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
        ):  # of our files, errors tell the name
            return 1, f"standard output cannot be written: {error.strerror}"
        case ConnectionError() if error.errno is None:  # of ours, a sentence
            return 1, told
        case Stopped():
            return 1, told
        case stopping.Terminated():
            return stopping.STATUS, str(error)
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
    """As `parse_plain`, for launch.train: what the arguments leave open has the value of the preset."""
    name = flag_value(argv, "preset", default_preset)
    if name not in presets:
        raise bad_input(f"--preset={name}: there is no such preset, expected one of {', '.join(presets)}")
    return _parsed(kind, argv, "launch.train", default=presets[name]())


def parse_plain(kind: type[Any], argv: Sequence[str], command: str) -> Any:
    """The configuration that the arguments of `python -m COMMAND` describe.

    BadInput for values that make no sense; `--help` and mistakes in the flags themselves end the process with status 0
    and 2.
    """
    return _parsed(kind, argv, command)


def _parsed(kind: type[Any], argv: Sequence[str], command: str, **default: Any) -> Any:
    import tyro

    from colbench_env.types import BadInput

    prog, said = f"python -m {command}", io.StringIO()
    argv = current_flags(argv)
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(kind, prog=prog, args=list(argv), description=kind.__doc__, **default)
    except SystemExit as end:
        refused = _refused(end, kind)
        if end.code and not (argv and refused):
            print(usage(command), file=sys.stderr)
        if refused:
            raise BadInput(refused) from None
        print(said.getvalue(), end="", file=sys.stderr)
        raise
    check_values(config, argv)
    return config


def _refused(end: SystemExit, kind: type[Any]) -> str:
    """The sentence of a configuration that would not be made, which tyro has put into a box; empty for other ends."""
    from colbench_env.types import BadInput

    error: BaseException | None = end
    part = ""
    while error is not None and not isinstance(error, BadInput):
        part = str(getattr(error, "arg", part))  # of tyro's error: the dataclass within the configuration
        error = error.__context__
    if error is None:
        return ""
    prefix, sentence = prefix_of(kind, part), str(error)
    return sentence if prefix in sentence or sentence.startswith("--") else f"{prefix}{sentence}"


def usage(command: str, arguments: str = "[FLAGS]") -> str:
    """The line that begins what is said of flags that cannot be read."""
    return f"usage: python -m {command} {arguments}; --help explains them"


def bad_input(sentence: str) -> Exception:
    """The error of bad input, for code that runs before the packages are imported."""
    from colbench_env.types import BadInput

    return BadInput(sentence)
