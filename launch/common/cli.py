"""What all commands share: flags from a dataclass, one sentence for bad input, exit status 0, 1, 2 or 143 (SIGTERM)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from launch.common import stopping
from launch.common.flags import check_values, settings, spread, with_prefix
from launch.common.help import help_text, is_asked
from launch.common.old_names import current_flags
from launch.common.without_torch import hide_torch

if TYPE_CHECKING:
    from launch.common.config_file import Entry

CHOOSE = ("algorithm", "benchmark", "human")  # what defaults depend on, beside the preset
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the grader forks
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that torch was not found


class Stopped(Exception):
    """The run cannot go on, and not for bad input: one sentence for the user, exit status 1."""


def run(command: Callable[[], None]) -> NoReturn:
    """Run the command as this process, and end it with `exit_status`."""
    stopping.watch_for_sigterm()
    hide_torch()
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
    """Run the command and return its exit status.

    0 when done, 2 for bad input (one sentence on standard error), 143 where SIGTERM has ended it, 1 for anything else.
    """
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
    """Return the exit status for an error and its sentence, which is empty where only a traceback will do."""
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
    """Keep one sentence one sentence: of a checkpoint that a full disk refuses, the first failed write is the error.

    tensorstore's other writes fail after it and report, each with a traceback, to an event loop that is closed by then.
    """
    before = sys.unraisablehook

    def hook(event: sys.UnraisableHookArgs) -> None:
        if not (isinstance(event.exc_value, RuntimeError) and str(event.exc_value) == "Event loop is closed"):
            before(event)

    sys.unraisablehook = hook


def flag_value(argv: Sequence[str], name: str, default: str) -> str:
    """Return the last value of --NAME in the arguments, for what decides about the defaults of other flags."""
    found = default
    for index, argument in enumerate(argv):
        if argument == f"--{name}" and index + 1 < len(argv):
            found = argv[index + 1]
        if argument.startswith(f"--{name}="):
            found = argument.removeprefix(f"--{name}=")
    return found


def parse(kind: type[Any], argv: Sequence[str], presets: Mapping[str, Callable[..., Any]], default_preset: str) -> Any:
    """Parse as `parse_plain` does, for launch.train: what arguments and config file leave open is as in the preset.

    presets: name -> a function that gets what was said of CHOOSE by name and returns the defaults.
    """

    def preset(said: Callable[[str], str]) -> Any:
        name = said("preset") or default_preset
        if name not in presets:
            raise bad_input(f"--preset={name}: there is no such preset, expected one of {', '.join(presets)}")
        return presets[name](**{choice: said(choice) for choice in CHOOSE if said(choice)})

    return _parsed(kind, argv, "launch.train", preset)


def parse_plain(kind: type[Any], argv: Sequence[str], command: str) -> Any:
    """Return the configuration that the arguments of `python -m COMMAND` and their config file describe.

    BadInput for values that make no sense; `--help` and mistakes in the flags themselves end the process with status 0
    and 2.
    """
    from launch.common.config_file import defaults

    return _parsed(kind, argv, command, lambda said: defaults(kind))


def _parsed(kind: type[Any], argv: Sequence[str], command: str, base: Callable[[Callable[[str], str]], Any]) -> Any:
    from colbench_env.types import BadInput
    from launch.common.config_file import read_config

    argv = current_flags(argv)
    path, argv = _without_config(argv)
    entries = read_config(path, kind, command) if path else []
    try:
        return _made(kind, argv, command, base, entries)
    except BadInput as error:
        for entry in entries:  # the first of those that the sentence names without which it would not be said
            if not entry.is_named_in(str(error)):
                continue
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    _made(kind, argv, command, base, [other for other in entries if other is not entry])
            except BadInput as other:
                if str(other) == str(error):
                    continue
            except SystemExit:  # it was needed
                pass
            raise BadInput(f"{path}:{entry.line}: {error}") from None
        raise


def _made(
    kind: type[Any],
    argv: Sequence[str],
    command: str,
    base: Callable[[Callable[[str], str]], Any],
    entries: Sequence[Entry],
) -> Any:
    from colbench_env.types import BadInput
    from launch.common.config_file import checked, with_entries

    def said(name: str) -> str:
        return flag_value(argv, name, next((str(entry.value) for entry in entries if entry.setting.name == name), ""))

    default = with_entries(base(said), entries)
    if is_asked(argv):
        chosen = {setting.name: said(setting.name) or setting.value(default) for setting in settings(kind)}
        print(help_text(default, command, chosen, everything="--help-all" in argv))
        raise SystemExit(0)

    import tyro

    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            config = tyro.cli(kind, prog=f"python -m {command}", args=spread(kind, argv), default=default)
    except SystemExit as end:
        refused = _refused(end, kind)
        if end.code and not (refused and (argv or entries)):
            print(usage(command), file=sys.stderr)
        if refused:
            raise BadInput(refused) from None
        print(told.getvalue(), end="", file=sys.stderr)
        raise
    check_values(config, argv)
    return checked(config) if entries else config


def _without_config(argv: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the file that the last `--config` names, and the other arguments."""
    path, rest, words = None, [], iter(argv)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag != "--config":
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value:
            raise bad_input("--config is empty, expected a path")
        path = Path(value)
    return path, rest


def _refused(end: SystemExit, kind: type[Any]) -> str:
    """Return the sentence of a configuration that would not be made, out of tyro's box; empty for other ends."""
    from colbench_env.types import BadInput

    error: BaseException | None = end
    part = ""
    while error is not None and not isinstance(error, BadInput):
        part = str(getattr(error, "arg", part))  # of tyro's error: the dataclass within the configuration
        error = error.__context__
    if error is None:
        return ""
    return with_prefix(kind, part, str(error))


def usage(command: str, arguments: str = "[FLAGS]") -> str:
    """Return the line that begins what is said of flags that cannot be read."""
    return f"usage: python -m {command} {arguments}; --help explains them"


def bad_input(sentence: str) -> Exception:
    """Return the error of bad input, for code that runs before the packages are imported."""
    from colbench_env.types import BadInput

    return BadInput(sentence)
