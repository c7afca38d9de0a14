"""Small tools for asyncio: background tasks that never die unheard, and a bell that wakes whoever waits."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

RECANCEL_SECONDS = 1.0


class Bell:
    """Wakes all who wait. Take `next` first, look at the state after, and wait last: so no ring in between is missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody who waits now."""
        rung, self._event = self._event, asyncio.Event()
        rung.set()

    @property
    def next(self) -> asyncio.Event:
        """Set by the next ring."""
        return self._event


async def within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for `event`, at most so long. Whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0.0)):
            return await event.wait()
    return False


class TaskGroup:
    """A set of background tasks. A task that raises reports to `on_error`; `close` cancels and awaits all of them.

    Tasks start in an empty context: the deadline and the trace of the call that happened to start one are not its own.
    """

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` in the background."""
        task = asyncio.create_task(work, name=name, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def close(self) -> None:
        """Cancel what still runs and wait for it.

        A task that goes on is cancelled again: on Python 3.11 `asyncio.wait_for`, which libraries use, may lose a cancellation.
        """
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=RECANCEL_SECONDS)

    def __len__(self) -> int:
        return len(self._tasks)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)
