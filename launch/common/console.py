"""The console: a header, progress, one parsable line a step, warnings; kept in the run's `log.txt` as well."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from colbench_env.terminal_text import printable

LINE_SECONDS = 10.0  # without a terminal, a progress line this often at most


class _Nowhere(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


class Console:
    """Prints to the terminal and appends to a log file. On a terminal progress is a bar, elsewhere plain lines.

    audible: False on all but the first of several processes; nothing is printed or written then. takes_logs: whether
    the warnings of libraries are shown here; False where the process is somebody else's.
    """

    def __init__(self, stream: TextIO | None = None, audible: bool = True, takes_logs: bool = True):
        self._audible = audible
        self._stream = (stream or sys.stderr) if audible else _Nowhere()
        self._log: TextIO | None = None
        self._bar: tqdm | None = None
        self._last_line = 0.0
        self.warnings: list[str] = []
        if takes_logs:
            logging.captureWarnings(True)
            logging.basicConfig(format="%(message)s", level=logging.WARNING, handlers=[_Handler(self)], force=True)

    @contextlib.contextmanager
    def logged_to(self, path: Path) -> Iterator[None]:
        """Append everything to `path` as well, inside the block."""
        path = path if self._audible else Path(os.devnull)
        with path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1) as self._log:
            try:
                yield
            finally:
                self._log = None

    def say(self, text: str = "") -> None:
        """Print a line of text, with control characters made visible."""
        text = printable(text)
        self._show(text)
        self._record(text)

    def _show(self, text: str) -> None:
        if self._bar is not None:
            tqdm.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def _record(self, text: str) -> None:
        if self._log is not None:
            self._log.write(text + "\n")

    def warn(self, text: str) -> None:
        """Print a warning and keep it for the report."""
        self.warnings.append(text)
        self.say(f"warning: {text}")

    def table(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print aligned names and values."""
        rows = list(rows)
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            self.say(f"{name:<{width}}  {value}")

    def progress(self, stage: str, done: int, total: int, line: str = "", short: str = "") -> None:
        """Show how far a stage is.

        line: a parsable line, printed as it is; without one a plain line is printed now and then.
        short: what a terminal shows in its place.
        """
        if self._stream.isatty():
            if self._bar is None or self._bar.desc != stage:
                self.end_progress()
                self._bar = tqdm(
                    total=total, initial=done, desc=stage, file=self._stream, leave=False, dynamic_ncols=True
                )
            self._bar.total = total
            self._bar.update(done - self._bar.n)
            if line:
                self._show(short or line)
                self._record(line)
        elif line or done >= total or time.monotonic() - self._last_line > LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(line or f"stage={stage} done={done}/{total}")
        if done >= total:
            self.end_progress()

    def end_progress(self) -> None:
        """Remove the progress bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ShortLine:
    """The metrics of a training stage as a terminal shows them: below 80 columns, with the remaining time.

    In:  "critic", 120, 345, {"loss": 0.41234, "rewards/accuracies": 0.9375, "rewards/margins": 0.8251}
    Out: "critic 120/345  loss 0.412  accuracy 94%  margin 0.83  0.52 s/step  1:57 left"
    """

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic):
        self._stage, self._clock = stage, clock
        self._first: tuple[int, float] | None = None  # the first update shown, after the compilation

    def __call__(self, done: int, total: int, values: Mapping[str, float]) -> str:
        """Format the metrics of an update; return "" where there are none."""
        if not values:
            return ""
        parts = [f"{self._stage} {done}/{total}"]
        for name, label, form in _SHORT:
            if name in values:
                parts.append(f"{label} {values[name]:{form}}")
        first, now = self._first, self._clock()
        self._first = first or (done, now)
        if first is not None and done > first[0]:
            each = (now - first[1]) / (done - first[0])
            parts += [
                f"{each:.2g} s/step" if each < 100 else f"{each:.0f} s/step",
                f"{clock_text(each * (total - done))} left",
            ]
        return "  ".join(parts)[:79]


_SHORT = (("loss", "loss", ".3g"), ("rewards/accuracies", "accuracy", ".0%"), ("rewards/margins", "margin", ".2g"))


def clock_text(seconds: float) -> str:
    """Format seconds as minutes and seconds, from an hour on with hours.

    In: 117.2   Out: "1:57"
    In: 7500    Out: "2:05:00"
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class _Handler(logging.Handler):
    """Warnings of libraries, as the console's own."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.say(f"warning: {record.getMessage()}")


def peak_memory_gib() -> float:
    """Return the most memory that this process and its children have held, in GiB."""
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(peaks) / 2**20
