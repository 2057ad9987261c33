"""What a training stage can be told. Nothing here imports jax, so that `--help` and bad flags need none of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from colbench_env.types import BadInput


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters of one stage; the defaults are the paper's.

    warmup_share: share of the steps with a rising rate; final_share: the last rate as a share of the peak;
    clip: largest global norm of the gradient. moment_dtype: what Adam's moments are stored in; parameters are float32.
    """

    learning_rate: float = 2e-7
    warmup_share: float = 0.03
    final_share: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.0
    clip: float = 1.0
    moment_dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1:
            raise BadInput(f"learning_rate is {self.learning_rate}, it must be above 0 and below 1")
        for name in ("warmup_share", "final_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be between 0 and 1")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least 0 and below 1")
        if self.weight_decay < 0 or self.clip <= 0:
            raise BadInput(f"weight_decay {self.weight_decay} must be at least 0 and clip {self.clip} above 0")


@dataclass(frozen=True)
class Training:
    """How long a stage trains, on what batches, and when it saves.

    batch_size: rows or pairs in an update. micro_batches: parts that a batch is computed in, one after the other.
    epochs: times each row is seen; max_steps: a limit on the updates, 0 for none.
    max_length: tokens of a row; truncation: what happens to longer ones. log_every, save_every: in updates; what is
    saved is logged, too.
    length_window: batches among which rows are sorted by length: less padding, but rows of a batch are alike; 1: not
    at all. held_out_share: of the rows, the first ones, that are not trained on (the released trainer: 0.03).
    """

    batch_size: int = 8
    micro_batches: int = 1
    epochs: int = 1
    max_steps: int = 0
    max_length: int = 16384
    truncation: str = "raise"
    log_every: int = 1
    save_every: int = 100
    length_window: int = 1
    held_out_share: float = 0.0
    hyper: Hyper = field(default_factory=Hyper)

    def __post_init__(self) -> None:
        for name in ("batch_size", "micro_batches", "epochs", "max_length", "log_every", "save_every", "length_window"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.max_steps < 0:
            raise BadInput(f"max_steps is {self.max_steps}, it must not be negative")
        if not 0 <= self.held_out_share < 1:
            raise BadInput(f"held_out_share is {self.held_out_share}, it must be at least 0 and below 1")
        if self.truncation not in ("raise", "drop-pair", "left"):
            raise BadInput(f"truncation is {self.truncation!r}, expected 'raise', 'drop-pair' or 'left'")

    def steps(self, num_rows: int) -> int:
        """Updates for that many rows."""
        steps = self.epochs * -(-num_rows // self.batch_size)  # `data.length_batches` are cut once
        return min(steps, self.max_steps) if self.max_steps else steps
