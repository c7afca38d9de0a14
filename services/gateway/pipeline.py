"""Scripts on their way to Redis, together: whatever is asked while an answer is awaited goes out with the next question.

A gateway that drives a hundred worlds runs some hundred scripts a second. One by one, each would need a connection of its
own, a write, a wake-up and a timeout; together they share these. Large arguments go alone, so that nobody waits behind them, and in
slices, between which the event loop turns: the plan of a large model is 8 MB, and a picture may be due meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import redis.asyncio as aioredis
from redis.asyncio.connection import AbstractConnection
from redis.commands.core import AsyncScript
from redis.exceptions import DataError, NoScriptError, RedisError, ResponseError

LARGE_BYTES = 64 * 2**10
SLICE_BYTES = 256 * 2**10
TOGETHER = 64
ALONE = 16
"""Connections for what goes alone."""


class _Ask(NamedTuple):
    script: AsyncScript
    keys: Sequence[str]
    arguments: Sequence[Any]
    answer: asyncio.Future[Any]


class Pipeline:
    """Runs scripts on `redis`, each exactly as it would run alone; `seconds` bounds the wait for an answer.

    again: the errors for which the client tries a command again; what was answered with one of them is asked once more, alone.
    """

    def __init__(self, redis: aioredis.Redis, seconds: float, again: tuple[type[RedisError], ...]) -> None:
        self._redis = redis
        self._seconds = seconds
        self._away = again
        self._again: tuple[type[Exception], ...] = (DataError, *again)
        self._alone = asyncio.Semaphore(ALONE)
        self._waiting: list[_Ask] = []
        self._connection: AbstractConnection | None = None
        self._sender: asyncio.Task[None] | None = None

    async def run(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The answer of a script. Raises RedisError or TimeoutError."""
        large = any(isinstance(argument, bytes) and len(argument) > LARGE_BYTES for argument in arguments)
        outcome = await (self._run_large if large else self._run_together)(script, keys, arguments)
        if isinstance(outcome, self._again):
            return await self._run_alone(script, keys, arguments)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._sender is not None:
            await asyncio.wait((self._sender,), timeout=self._seconds)
        await self._drop()

    async def _run_alone(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        async with self._alone:
            return await script(keys=list(keys), args=list(arguments))

    async def _run_together(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Ask(script, keys, arguments, answer))
        if self._sender is None:
            # In a context of its own: it serves many calls, not the one that happened to start it.
            self._sender = asyncio.create_task(self._send(), name="store/pipeline", context=contextvars.Context())
        return await answer

    async def _run_large(self, script: AsyncScript, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        async with self._alone:
            wire = await self._redis.connection_pool.get_connection()
            try:
                (outcome,) = await self._evaluate(wire, [(script, keys, arguments)])
            except BaseException:
                await wire.disconnect(nowait=True)  # an answer may still be on its way
                raise
            finally:
                await self._redis.connection_pool.release(wire)
        return outcome

    async def _send(self) -> None:
        try:
            while self._waiting:
                # Whoever stopped waiting before the question was sent does not want it asked.
                asked = [ask for ask in self._waiting[:TOGETHER] if not ask.answer.done()]
                del self._waiting[:TOGETHER]
                await self._ask(asked)
        finally:
            self._sender = None

    async def _ask(self, asked: Sequence[_Ask]) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                if self._connection is None:
                    self._connection = await self._redis.connection_pool.get_connection()
                outcomes = await self._evaluate(self._connection, [ask[:3] for ask in asked])
        except DataError as error:  # of one of them: each finds out by itself
            outcomes = [error] * len(asked)
        except Exception as error:  # noqa: BLE001 - whoever asked hears of it
            await self._drop()
            for ask in asked:
                if not ask.answer.done():
                    ask.answer.set_exception(error)
            return
        if any(isinstance(outcome, self._away) for outcome in outcomes):
            await self._drop()  # the next one may lead to another server
        for ask, outcome in zip(asked, outcomes, strict=True):
            if not ask.answer.done():
                ask.answer.set_result(outcome)

    async def _evaluate(
        self, wire: AbstractConnection, asked: Sequence[tuple[AsyncScript, Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        """An answer or an error for each; scripts that the server does not know are loaded first."""
        commands = [("EVALSHA", script.sha, len(keys), *keys, *arguments) for script, keys, arguments in asked]
        outcomes = await self._exchange(wire, commands)
        unknown = [row for row, outcome in enumerate(outcomes) if isinstance(outcome, NoScriptError)]
        if unknown:
            loads = [("SCRIPT", "LOAD", script) for script in {asked[row][0].script for row in unknown}]
            answers = await self._exchange(wire, [*loads, *(commands[row] for row in unknown)])
            for row, answer in zip(unknown, answers[len(loads) :], strict=True):
                outcomes[row] = answer
        return outcomes

    @staticmethod
    async def _exchange(wire: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """An answer or an error for each. The client's own pipeline takes and gives back a connection for each exchange."""

        async def exchanged() -> list[Any]:
            for part in _slices(wire.pack_commands(commands)):
                await wire.send_packed_command(part)
            outcomes: list[Any] = []
            for _ in commands:
                try:
                    outcomes.append(await wire.read_response())
                except ResponseError as error:
                    outcomes.append(error)
            return outcomes

        return await wire.retry.call_with_retry(exchanged, lambda error: wire.disconnect(nowait=True))

    async def _drop(self) -> None:
        """Give the connection back, closed: an answer may still be on its way."""
        if (wire := self._connection) is not None:
            self._connection = None
            await wire.disconnect(nowait=True)
            await self._redis.connection_pool.release(wire)


def _slices(packed: Iterable[bytes]) -> Iterator[list[bytes]]:
    """What is to be sent, in parts of at most SLICE_BYTES and a little."""
    part, size = list[bytes](), 0
    for piece in packed:
        for at in range(0, len(piece), SLICE_BYTES):
            part.append(piece[at : at + SLICE_BYTES])
            size += len(part[-1])
            if size >= SLICE_BYTES:
                yield part
                part, size = [], 0
    if part:
        yield part
