"""Small tools for asyncio: background tasks that never die unheard, and a bell that wakes whoever waits."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

RECANCEL_SECONDS = 1.0


class Ring:
    """One ring of a bell, which comes or has come.

    Streams wait for one several times a second each, mostly in vain; here a time that runs out is an answer like any other.
    With `asyncio.Event` and `asyncio.timeout` it is a cancellation and two exceptions.
    """

    def __init__(self) -> None:
        self._rung = False
        self._waiting: set[asyncio.Future[bool]] = set()

    def set(self) -> None:
        """It rings."""
        self._rung = True
        for waiter in self._waiting:
            _answer(waiter, True)

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until it rings, at most so long. Whether it did."""
        if self._rung:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.add(waiter)
        timer = None if seconds is None else loop.call_later(max(seconds, 0.0), _answer, waiter, False)
        try:
            return await waiter
        finally:
            self._waiting.discard(waiter)
            if timer is not None:
                timer.cancel()


class Bell:
    """Wakes all who wait. Take `next` first, look at the state after, and wait last: so no ring in between is missed."""

    def __init__(self) -> None:
        self._next = Ring()

    def ring(self) -> None:
        """Wake everybody who waits now."""
        rung, self._next = self._next, Ring()
        rung.set()

    @property
    def next(self) -> Ring:
        """Set by the next ring."""
        return self._next


async def within(seconds: float, event: asyncio.Event) -> bool:
    """Wait for `event`, at most so long. Whether it came."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0.0)):
            return await event.wait()
    return False


def _answer(waiter: asyncio.Future[bool], rung: bool) -> None:
    if not waiter.done():
        waiter.set_result(rung)


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
