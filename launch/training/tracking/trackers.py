"""The trackers of a run, kept in step with its directory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict

from launch.common.console import Console
from launch.common.files import read_object
from launch.common.run_dir import RunDir
from launch.training.config import STAGES
from launch.training.curves import lines_after
from launch.training.tracking.stores import Store, read_known, write_known
from launch.training.tracking.tracker import TRAINED, Tracker, first_line, result_numbers


class Trackers:
    """The trackers of a run, all of which get the same; none in processes other than the first.

    The files of the run directory are the truth: a tracker is asked for the last step that it has, and gets the lines
    of metrics.jsonl after it. Updates that are made again after a kill have the same values and are not sent again.
    A tracker that fails is left alone until the stage ends; the run goes on.
    """

    def __init__(self, directory: RunDir, console: Console):
        self._directory, self._console = directory, console
        self._open: dict[str, Tracker] = {}
        self._behind: set[str] = set()  # these have to be asked what they have
        self._warned: set[str] = set()
        self._last: dict[tuple[str, str], int] = {}
        self._reported: dict[str, str] = {}

    def known_id(self, name: str, store: Store) -> str | None:
        """Return the id that the run has in a store of the tracker, None where it is new there. Raises BadInput."""
        known = self._known(name)
        return known.get("id") if known.items() >= asdict(store).items() else None

    def add(self, name: str, store: Store, tracker: Tracker) -> None:
        """Take an open tracker and send what it has not got."""
        self._open[name] = tracker
        if tracker.id != self.known_id(name, store):
            self._write(name, asdict(store) | {"id": tracker.id, "report": ""})
        self._console.say(f"tracker {name}: run {tracker.id}, {tracker.place}")
        self._attempt(name, self._catch_up)

    def send_metrics(self, stage: str) -> None:
        """Send the new lines of a stage's metrics.jsonl."""
        for name in self._open:
            if name not in self._behind:
                self._attempt(name, lambda name: self._send_lines(name, stage))

    def send_result(self, stage: str) -> None:
        """Send what a stage has ended with, and to trackers that have failed all that they have not got."""
        for name in self._open:
            behind = name in self._behind
            self._attempt(name, self._catch_up if behind else lambda name: self._send_note(name, stage))

    def send_report(self) -> None:
        """Send the report of a finished run to the trackers that have not got it. Raises BadInput."""
        path = self._directory.path / "report.json"
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if self._open else ""
        wanting = [name for name in self._open if self._known(name).get("report") != digest]
        if wanting:
            from launch.training.tracking.report import tracked_report  # draws with matplotlib

            report = tracked_report(self._directory)
            for name in wanting:
                if self._attempt(name, lambda name: self._open[name].log_report(report)):
                    self._reported[name] = digest

    def close(self, failed: bool) -> None:
        """Close the trackers; a report counts as sent only then."""
        for name in self._open:
            self._attempt(name, lambda name: self._close(name, failed))
        self._open = {}

    def _close(self, name: str, failed: bool) -> None:
        self._open[name].close(failed)
        if name in self._reported:
            self._write(name, self._known(name) | {"report": self._reported[name]})

    def _attempt(self, name: str, work: Callable[[str], None]) -> bool:
        try:
            work(name)
        except Exception as error:
            self._behind.add(name)
            if name not in self._warned:
                self._console.warn(
                    f"tracker {name}: {first_line(error)}; the run goes on, and what is missing there is sent when the "
                    "stage ends or when the command is given again"
                )
            self._warned.add(name)
            return False
        return True

    def _catch_up(self, name: str) -> None:
        for stage in TRAINED:
            self._last[name, stage] = max(self._open[name].last_step(stage), self._last.get((name, stage), 0))
            self._send_lines(name, stage)
        for stage in STAGES:
            self._send_note(name, stage)
        self._behind.discard(name)

    def _send_lines(self, name: str, stage: str) -> None:
        for step, values in lines_after(self._directory.metrics_file(stage), self._last.get((name, stage), 0)):
            self._open[name].log(stage, step, values)
            self._last[name, stage] = step

    def _send_note(self, name: str, stage: str) -> None:
        if numbers := result_numbers(read_object(self._directory.note_file(stage))):
            self._open[name].log_result(stage, numbers)

    def _known(self, name: str) -> dict[str, str]:
        return read_known(self._directory.path, name)

    def _write(self, name: str, known: dict[str, str]) -> None:
        write_known(self._directory.path, name, known)
