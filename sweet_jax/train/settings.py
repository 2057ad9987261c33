"""Settings of a training loop and its optimiser. Imports no jax, so that `--help` and bad flags need none of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from colbench_env.types import BadInput

Truncation = Literal["raise", "drop-pair", "left"]
ADVANCED = "advanced"
"""Marks a setting that `--help` leaves to `--help-all`: Annotated[int, ADVANCED]."""


@dataclass(frozen=True)
class Training:
    """Batches, length and optimiser (AdamW) of one training stage; the optimiser's defaults are the paper's.

    Raises BadInput for a value that makes no sense.
    """

    learning_rate: float = 2e-7
    """Peak of the learning rate."""
    batch_size: int = 8
    """Rows or pairs in an update."""
    micro_batches: int = 1
    """Parts that a batch is computed in, one after the other; the update is the same, the memory less."""
    epochs: int = 1
    """Times that each row is seen."""
    max_steps: int = 0
    """Limit on the updates; 0: none."""
    max_length: int = 16384
    """Tokens of a row at most."""
    truncation: Annotated[Truncation, ADVANCED] = "raise"
    """Longer rows: "raise" refuses them, "drop-pair" leaves the pair out, "left" keeps the newest tokens."""
    warmup_ratio: Annotated[float, ADVANCED] = 0.03
    """Fraction of the updates in which the learning rate rises."""
    min_lr_ratio: Annotated[float, ADVANCED] = 0.1
    """Learning rate of the last update, as a fraction of the peak."""
    adam_beta1: Annotated[float, ADVANCED] = 0.9
    """Decay of Adam's first moment."""
    adam_beta2: Annotated[float, ADVANCED] = 0.95
    """Decay of Adam's second moment."""
    weight_decay: Annotated[float, ADVANCED] = 0.0
    """AdamW's weight decay; 0: none."""
    max_grad_norm: Annotated[float, ADVANCED] = 1.0
    """Largest global norm of the gradient; longer gradients are scaled down to it."""
    moment_dtype: Annotated[Literal["float32", "bfloat16"], ADVANCED] = "float32"
    """Type that Adam's moments are stored in; parameters are float32."""
    log_every: Annotated[int, ADVANCED] = 1
    """Updates between two lines of metrics."""
    save_every: Annotated[int, ADVANCED] = 100
    """Updates between two checkpoints; what is saved is logged, too."""
    length_window: Annotated[int, ADVANCED] = 1
    """Batches among which rows are sorted by length: less padding, but rows of a batch are alike; 1: not at all."""
    group_by_prompt: Annotated[bool, ADVANCED] = False
    """Preference pairs after the same prompt come in the same update, where the prompt is computed once."""
    held_out_fraction: Annotated[float, ADVANCED] = 0.0
    """Fraction of the rows, the first ones, that is not trained on (the released trainer: 0.03)."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < 1:
            raise BadInput(f"learning_rate is {self.learning_rate}, it must be above 0 and below 1")
        for name in ("batch_size", "micro_batches", "epochs", "max_length", "log_every", "save_every", "length_window"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least 1")
        if self.max_steps < 0:
            raise BadInput(f"max_steps is {self.max_steps}, it must not be negative")
        if self.truncation not in ("raise", "drop-pair", "left"):
            raise BadInput(f"truncation is {self.truncation!r}, expected 'raise', 'drop-pair' or 'left'")
        for name in ("warmup_ratio", "min_lr_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be between 0 and 1")
        for name in ("adam_beta1", "adam_beta2", "held_out_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}, it must be at least 0 and below 1")
        if not self.weight_decay >= 0:
            raise BadInput(f"weight_decay is {self.weight_decay}, it must be at least 0")
        if not self.max_grad_norm > 0:
            raise BadInput(f"max_grad_norm is {self.max_grad_norm}, it must be above 0")

    def steps(self, num_rows: int) -> int:
        """Return the number of updates for that many rows."""
        steps = self.epochs * -(-num_rows // self.batch_size)  # `data.length_batches` are cut once
        return min(steps, self.max_steps) if self.max_steps else steps
