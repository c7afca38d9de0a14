"""How long the SDK tries again when the gateway is away or refuses for now."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from teleworld.world.errors import Overloaded, TeleWorldError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """Times in seconds. A failure that may pass is tried again until `total_s` have gone by without success.

    The pause doubles from `first_s` to at most `longest_s`, less up to half of it at random, so that many clients of one
    gateway do not come back at the same moment. A refusal that says when to come back is obeyed.
    """

    total_s: float = 30.0
    first_s: float = 0.1
    longest_s: float = 2.0


class Retries:
    """One series of attempts. `succeeded` starts it anew."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._since = 0.0

    def succeeded(self) -> None:
        """The last attempt worked."""
        self._failures = 0

    async def pause(self, error: TeleWorldError) -> None:
        """Wait before the next attempt. Raises `error` if it cannot pass by waiting, or patience is at its end."""
        if not error.retryable:
            raise error
        if not self._failures:
            self._since = time.monotonic()
        self._failures += 1
        longest = min(self._patience.first_s * 2 ** (self._failures - 1), self._patience.longest_s)
        seconds = longest * random.uniform(0.5, 1.0)
        if isinstance(error, Overloaded):
            seconds = max(seconds, error.retry_after_s)
        if time.monotonic() + seconds - self._since > self._patience.total_s:
            raise error
        await asyncio.sleep(seconds)


async def persist(call: Callable[[], Awaitable[Result]], patience: Patience) -> Result:
    """The result of an idempotent call, tried again while its failures may pass."""
    retries = Retries(patience)
    while True:
        try:
            return await call()
        except TeleWorldError as error:
            await retries.pause(error)
