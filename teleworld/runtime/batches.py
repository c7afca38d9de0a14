"""One call to a worker for the tasks of several worlds: each task waits for its own answer, as if it had been asked alone."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry import trace

from teleworld.runtime.spans import call_for
from teleworld.world.errors import DeadlineExceeded, Internal, Overloaded, TeleWorldError, Unavailable

ELSEWHERE = (Unavailable, DeadlineExceeded, Overloaded)
"""Errors after which the same tasks may be tried again."""


class Batch:
    """A call of `method` of a port, by its form for many, with the requests of all who ask in the same turn of the event loop.

    An error that may be gone elsewhere or later is everybody's. Any other one is one world's fault (its epoch is stale, its
    input bad), so then each request is asked by itself, and the innocent get their answers. The call goes on until nobody
    waits for it any more.
    """

    def __init__(self, port: Any, method: str, timeout: float) -> None:
        self._port = port
        self._method = method
        self._timeout = timeout
        self._requests: list[Any] = []
        self._spans: list[trace.Span] = []
        self._call: asyncio.Task[list[Any] | TeleWorldError] | None = None
        self._waiting = 0

    async def answer(self, request: Any) -> Any:
        """The answer to one of the requests. Raises what the call raised."""
        place = len(self._requests)
        self._requests.append(request)
        self._spans.append(trace.get_current_span())
        if self._call is None:
            self._call = asyncio.create_task(self._ask())
        self._waiting += 1
        try:
            answers = await asyncio.shield(self._call)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._call.cancel()
        if not isinstance(answers, TeleWorldError):
            return answers[place]
        if isinstance(answers, ELSEWHERE) or self.size == 1:
            raise answers
        return await getattr(self._port, self._method)(request, self._timeout)

    @property
    def size(self) -> int:
        """How many requests it has."""
        return len(self._requests)

    async def _ask(self) -> list[Any] | TeleWorldError:
        await asyncio.sleep(0)  # until every task of the call has brought its request
        if self._port is None:
            return Unavailable("the worker has left")
        try:
            with call_for(self._spans):
                answers = list(await getattr(self._port, f"{self._method}_many")(tuple(self._requests), self._timeout))
        except TeleWorldError as error:
            return error
        if len(answers) != len(self._requests):
            return Internal(f"{len(self._requests)} tasks got {len(answers)} answers")
        return answers
