"""Checkpoints of a training stage: state, data iterator and notes, whole or not there at all.

Saving is synchronous. orbax writes into a temporary folder and renames it when everything is on disk, so a process
killed at any moment leaves the last whole checkpoint; only then are older ones deleted. Several processes save and
restore together, each its own shards.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import absl.logging
import orbax.checkpoint as ocp

from colbench_env.types import BadInput
from sweet_jax import hosts

log = logging.getLogger(__name__)
absl.logging.set_verbosity(absl.logging.ERROR)  # orbax tells a dozen lines about every save

DAMAGED_SECONDS = 20.0  # in which all processes find a damaged checkpoint, if it is damaged for all of them

Notes = dict[str, Any]


@dataclass(frozen=True)
class Restored:
    """step: updates made; state: on the shardings asked for; iterator: the data's; extra: the caller's own."""

    step: int
    state: Any
    iterator: Notes
    extra: Notes


class Checkpoints:
    """The newest `keep` checkpoints of one stage in one directory. Use as a context manager, or call `close`."""

    def __init__(self, directory: Path, keep: int = 2):
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise BadInput(f"{self.directory}: checkpoints cannot be kept here: {error}") from error

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, iterator: Notes, extra: Notes | None = None) -> None:
        """Writes a checkpoint and returns when it is on disk; nothing to do if that step is there already.

        iterator, extra: what json can hold. BadInput if the disk is full or read-only; the older checkpoints stay.
        """
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave({"iterator": iterator, "extra": extra or {}})
        )
        try:
            self._manager.save(step, args=items)
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as ValueError
            reason = _first_line(error)
            raise BadInput(f"{self.directory}: the checkpoint of step {step} cannot be written: {reason}") from error

    def restore(self, abstract_state: Any) -> Restored | None:
        """The newest checkpoint that can be read, None in an empty directory.

        abstract_state: a tree of ShapeDtypeStruct with shardings (`step.abstract_state`), of any mesh. A damaged
        checkpoint is reported, deleted and passed over for the one before it. BadInput if there are some and none can
        be read, or if they are of other shapes: starting anew is for the user to decide.
        """
        failures: dict[int, Exception] = {}
        for step in self._steps():
            try:
                restored = self._read(step, abstract_state)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._check_damaged_for_all(step, error)
                failures[step] = error
                continue
            for damaged, error in failures.items():
                reason = _first_line(error)
                log.warning("%s: step %d cannot be read and is deleted: %s", self.directory, damaged, reason)
                self._manager.delete(damaged)
            return restored
        if failures:
            newest = failures[max(failures)]
            raise BadInput(
                f"{self.directory}: no checkpoint can be read (steps {sorted(failures)}): {_first_line(newest)}"
            ) from newest
        return None

    def _steps(self) -> list[int]:
        """The steps that the first process sees, the newest first; this one sees them, too, when it returns."""
        steps = hosts.from_first(lambda: sorted(self._manager.all_steps(), reverse=True))
        if set(steps) != set(self._manager.all_steps()):
            for step in steps:
                hosts.wait_for(self.directory / str(step))
            self._manager.reload()
        return steps

    def _check_damaged_for_all(self, step: int, error: Exception) -> None:
        """Raises BadInput unless every process finds the checkpoint damaged: those that do not wait for this one."""
        if not hosts.all_say(f"{self.directory} {step} is damaged", DAMAGED_SECONDS):
            raise BadInput(
                f"{self.directory / str(step)} cannot be read by {hosts.name()}: {_first_line(error)}. Delete that "
                "directory to go on from the checkpoint before it"
            ) from error

    def _read(self, step: int, abstract_state: Any) -> Restored:
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), notes=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=items)
        return Restored(step, found.state, found.notes["iterator"], found.notes["extra"])

    def close(self) -> None:
        """Ends the manager's threads."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SavedParams:
    """The parameters of the newest checkpoint in a directory, read one after another, without the optimiser's moments.

    step: updates made. shapes: a nested dict of shapes and dtypes. Nothing in the directory is changed, so another
    process may be training there. BadInput if there is no checkpoint or it cannot be read.
    """

    def __init__(self, directory: Path):
        self.directory = Path(directory).absolute()
        steps = ocp.utils.checkpoint_steps(self.directory) if self.directory.is_dir() else []
        if not steps:
            raise BadInput(f"{self.directory}: there is no checkpoint")
        self.step: int = max(steps)
        self._state = self.directory / str(self.step) / "state"
        self._reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        self.shapes: Notes = self._try(lambda: self._reader.metadata(self._state).item_metadata.tree["params"])

    def read(self, abstract: Notes) -> Notes:
        """The part of the parameters that `abstract` names: a nested dict of ShapeDtypeStruct with shardings."""
        item = {"params": abstract}
        args = ocp.checkpoint_utils.construct_restore_args(item)
        wanted = ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True)
        return self._try(lambda: self._reader.restore(self._state, args=wanted)["params"])

    def _try(self, read: Callable[[], Notes]) -> Notes:
        try:
            return read()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = _first_line(error)
            raise BadInput(f"{self.directory}: the checkpoint of step {self.step} cannot be read: {reason}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
