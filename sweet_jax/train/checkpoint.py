"""Checkpoints of a training stage: state, data iterator and notes; complete ones only.

Saving is synchronous. orbax writes into a temporary folder, renames it when everything is on disk, and only then
deletes older checkpoints: a process killed at any moment leaves the last complete one. Several processes save and
restore together, each its own shards.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import absl.logging
import orbax.checkpoint as ocp

from colbench_env.types import BadInput
from sweet_jax import processes
from sweet_jax.train.checksums import find_damage, has_checksums, write_checksums

log = logging.getLogger(__name__)
absl.logging.set_verbosity(absl.logging.ERROR)  # orbax logs a dozen lines for every save

DAMAGED_SECONDS = 20.0  # within which all processes find the damage of a checkpoint that is damaged for all

Notes = dict[str, Any]


@dataclass(frozen=True)
class Restored:
    """What a checkpoint holds.

    step: updates made.
    state: with the requested shardings.
    iterator: the state of the data stream.
    extra: the caller's own notes.
    """

    step: int
    state: Any
    iterator: Notes
    extra: Notes


class _Damaged(Exception):
    """A checkpoint does not hold the bytes that were written; the message is the reason."""


class Checkpoints:
    """The newest `keep` checkpoints of one stage in one directory. Use it as a context manager, or call `close`."""

    def __init__(self, directory: Path, keep: int = 2):
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # reading the metadata of a damaged step would fail
        )
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except OSError as error:
            raise BadInput(f"{self.directory}: checkpoints cannot be kept here: {error}") from error

    def latest_step(self) -> int | None:
        """Return the step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """List the steps that process 0 sees, the oldest first."""
        return self._steps()[::-1]

    def save(self, step: int, state: Any, iterator: Notes, extra: Notes | None = None) -> None:
        """Write a checkpoint, on disk when this returns; do nothing if that step is saved already.

        iterator, extra: JSON objects. BadInput if the disk is full or read-only; the older checkpoints stay.
        """
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave({"iterator": iterator, "extra": extra or {}})
        )
        try:
            self._manager.save(step, args=items)
            write_checksums(self.directory / str(step))
        except (OSError, ValueError) as error:  # tensorstore reports a full disk as ValueError
            reason = _first_line(error)
            raise BadInput(f"{self.directory}: the checkpoint of step {step} cannot be written: {reason}") from error

    def restore(self, abstract_state: Any, only: int | None = None) -> Restored | None:
        """Read the newest undamaged checkpoint, or none but that of step `only`; None where there is none.

        abstract_state: a tree of ShapeDtypeStruct with shardings (`step.abstract_state`), of any mesh.
        A damaged checkpoint is skipped for the one before it, then reported and deleted once that one has been read.
        BadInput if there are checkpoints and all are damaged or of other shapes: the user decides whether to start
        again. A lack of memory is not damage: such an error is raised as it is.
        """
        damaged: dict[int, str] = {}
        for step in self._steps():
            if only not in (None, step):
                continue
            try:
                restored = self._restore_whole(step, abstract_state)
            except _Damaged as error:
                damaged[step] = str(error)
                continue
            for bad, reason in damaged.items():
                log.warning("%s: step %d cannot be read and is deleted: %s", self.directory, bad, reason)
                self._manager.delete(bad)
            return restored
        if damaged:
            steps, newest = sorted(damaged), damaged[max(damaged)]
            raise BadInput(
                f"{self.directory}: no checkpoint can be read (steps {steps}): {newest}. Delete that directory to "
                "begin this training anew"
            )
        return None

    def _restore_whole(self, step: int, abstract_state: Any) -> Restored:
        """Read a checkpoint; _Damaged where it is not what was written."""
        folder = self.directory / str(step)
        if reason := find_damage(folder):
            raise _Damaged(reason)
        known = has_checksums(folder)
        try:
            return self._read(step, abstract_state)
        except Exception as error:  # of many types, a bare Exception among them
            if _lacks_memory(error):
                raise
            if known:  # the bytes are those that were written: it is another state that is asked for
                steps, reason = sorted(self._manager.all_steps()), _first_line(error)
                raise BadInput(f"{self.directory}: no checkpoint can be read (steps {steps}): {reason}") from error
            self._check_damaged_for_all(step, error)
            raise _Damaged(_first_line(error)) from error

    def _steps(self) -> list[int]:
        """List the steps that process 0 sees, the newest first, and wait until this process sees them, too."""
        steps = processes.broadcast_from_process_0(lambda: sorted(self._manager.all_steps(), reverse=True))
        if set(steps) != set(self._manager.all_steps()):
            for step in steps:
                processes.wait_for(self.directory / str(step))
            self._manager.reload()
        return steps

    def _check_damaged_for_all(self, step: int, error: Exception) -> None:
        """Raise BadInput unless every process finds the checkpoint damaged: the others would wait for this one."""
        if not processes.all_agree(f"{self.directory} {step} is damaged", DAMAGED_SECONDS):
            raise BadInput(
                f"{self.directory / str(step)} cannot be read by {processes.name()}: {_first_line(error)}. Delete that "
                "directory to go on from the checkpoint before it"
            ) from error

    def _read(self, step: int, abstract_state: Any) -> Restored:
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), notes=ocp.args.JsonRestore())
        found = self._manager.restore(step, args=items)
        return Restored(step, found.state, found.notes["iterator"], found.notes["extra"])

    def close(self) -> None:
        """Stop the manager's threads."""
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SavedParams:
    """The parameters of the newest undamaged checkpoint of a directory, or of that of one step, without the moments.

    They are read one after another.
    step: updates made.
    shapes: a nested dict of shapes and dtypes.
    A damaged checkpoint is reported and skipped; nothing in the directory is changed. Another process may be training
    there and deleting old checkpoints: one that is gone is not damaged, and if all were gone or damaged, newer ones are
    looked for. BadInput if there is no checkpoint, or none can be read.
    """

    def __init__(self, directory: Path, step: int | None = None):
        self.directory, self._only = Path(directory).absolute(), step
        self._reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        self.step, self.shapes = self._newest_whole()
        self._state = self._state_of(self.step)

    def _newest_whole(self) -> tuple[int, Notes]:
        """Find the newest undamaged checkpoint: its step, and its shapes."""
        steps: list[int] = processes.broadcast_from_process_0(self._steps)
        before: list[int] | None = None
        damaged: dict[int, str] = {}
        while steps != before:
            damaged = {}
            for step in steps:
                try:
                    shapes = self._whole_shapes(step)
                except _Damaged as error:
                    if processes.broadcast_from_process_0(self._state_of(step).parent.exists):
                        damaged[step] = str(error)
                    continue
                for bad, reason in damaged.items():
                    log.warning("%s: step %d cannot be read and is passed over: %s", self.directory, bad, reason)
                return step, shapes
            before, steps = steps, processes.broadcast_from_process_0(self._steps)
        if not damaged:
            raise BadInput(f"{self.directory}: there is no checkpoint")
        newest, older = max(damaged), sorted(damaged.keys() - {max(damaged)})
        also = f", nor can steps {older}" if older else ""
        raise BadInput(
            f"{self.directory}: the checkpoint of step {newest} cannot be read{also}: {damaged[newest]}. Delete that "
            "directory and train again"
        )

    def read(self, abstract: Notes) -> Notes:
        """Read the parameters that `abstract` names: a nested dict of ShapeDtypeStruct with shardings.

        BadInput where the checkpoint was deleted meanwhile or cannot be read.
        """
        item = {"params": abstract}
        args = ocp.checkpoint_utils.construct_restore_args(item)
        wanted = ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True)
        try:
            return self._reader.restore(self._state, args=wanted)["params"]
        except Exception as error:
            if _lacks_memory(error):
                raise
            if not self._state.parent.exists():
                raise BadInput(
                    f"{self._state.parent} was deleted while it was read, as a training does with older checkpoints: "
                    "run this command again"
                ) from error
            raise BadInput(
                f"{self.directory}: the checkpoint of step {self.step} cannot be read: {_first_line(error)}. Delete "
                f"{self._state.parent} to take the one before it"
            ) from error

    def _steps(self) -> list[int]:
        """List the steps in the directory, the newest first."""
        steps = ocp.utils.checkpoint_steps(self.directory) if self.directory.is_dir() else []
        return sorted((step for step in steps if self._only in (None, step)), reverse=True)

    def _state_of(self, step: int) -> Path:
        return self.directory / str(step) / "state"

    def _whole_shapes(self, step: int) -> Notes:
        state = self._state_of(step)
        if reason := find_damage(state.parent):
            raise _Damaged(reason)
        try:
            return self._reader.metadata(state).item_metadata.tree["params"]
        except Exception as error:
            if _lacks_memory(error):
                raise
            raise _Damaged(_first_line(error)) from error


def _lacks_memory(error: BaseException | None) -> bool:
    """Say whether this error, or one that caused it, is a lack of memory."""
    while error is not None:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
