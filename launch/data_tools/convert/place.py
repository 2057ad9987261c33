"""Where a record stands, and what it is read with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sweet_jax.data.chat import Chat


@dataclass(frozen=True)
class Place:
    """location: FILE:LINE, as errors name it. chat: splits the texts of pairs; None where no pair is converted."""

    location: str
    chat: Chat | None = None
