"""Why a drive, or a stream over it, ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from teleworld.world.endings import EndReason as Reason
from teleworld.world.errors import TeleWorldError


@dataclass(frozen=True)
class Ending:
    """Why, and what may be told. error: what the stream is answered with in the place of an `End`, since it may pass."""

    reason: Reason
    message: str = ""
    error: TeleWorldError | None = None


class Guest(Protocol):
    """Somebody who watches."""

    def end(self, reason: Reason) -> None: ...
