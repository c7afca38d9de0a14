"""What other gateways do to a world, heard over Redis: one subscription a gateway, fanned out by world.

Messages are hints, never state: some are lost while the connection is down, so every listener is told `lost` when it comes
back, and looks at the store again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import redis.asyncio as aioredis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.gateway.scripts import PREFIX
from services.gateway.store import Store

_RECONNECT_SECONDS = 0.2
_POLL_SECONDS = 5.0
_log = logging.getLogger(__name__)

Listener = Callable[[str, bytes], None]
"""Gets the kind of an event (`head`, `epoch`, `deleted`, `control` or `lost`) and its value."""


class EventHub:
    """Fans out the events of worlds. `run` it as a background task."""

    def __init__(self, url: str) -> None:
        # A connection that mends itself silently would hide that messages were lost.
        self._redis = aioredis.Redis.from_url(
            url, socket_timeout=None, retry=Retry(NoBackoff(), 0), health_check_interval=_POLL_SECONDS
        )
        self._pubsub: PubSub | None = None
        self._speaking = asyncio.Lock()
        self._listeners: dict[str, list[Listener]] = defaultdict(list)

    async def run(self) -> None:
        """Listen for ever."""
        try:
            while True:
                await self._listen()
                await asyncio.sleep(_RECONNECT_SECONDS)
        finally:
            await self._redis.aclose()

    @asynccontextmanager
    async def listening(self, world: str, listener: Listener, *, heads: bool = False) -> AsyncIterator[None]:
        """Inside, `listener` hears of `world`; of each new chunk (`head`) only if it asks for `heads`."""
        channels = (Store.channel(world), Store.heads(world)) if heads else (Store.channel(world),)
        for channel in channels:
            self._listeners[channel].append(listener)
        try:
            async with self._speaking:
                if self._pubsub is not None:
                    with suppress(RedisError, OSError):  # `run` notices too, and subscribes anew
                        await self._pubsub.subscribe(*channels)
            yield
        finally:
            for channel in channels:
                self._listeners[channel].remove(listener)
            if forgotten := [channel for channel in channels if not self._listeners[channel]]:
                for channel in forgotten:
                    del self._listeners[channel]
                async with self._speaking:
                    if self._pubsub is not None:
                        with suppress(RedisError, OSError):
                            await self._pubsub.unsubscribe(*forgotten)

    async def _listen(self) -> None:
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
        try:
            await pubsub.subscribe(f"{PREFIX}:events")  # connects, which may take long: nobody waits for that
            async with self._speaking:  # who begins to listen meanwhile subscribes afterwards
                if self._listeners:
                    await pubsub.subscribe(*self._listeners)
                self._pubsub = pubsub
            self._tell_lost()
            while True:
                message = await pubsub.get_message(timeout=_POLL_SECONDS)
                if message is not None:
                    self._deliver(message["channel"].decode(), message["data"])
        except (RedisError, OSError) as error:
            _log.warning("the subscription to the store is broken", extra={"error": str(error)})
        finally:
            self._pubsub = None
            # A command that finds its connection closed opens it again, and nobody would close that one.
            async with self._speaking:
                with suppress(RedisError, OSError):
                    await pubsub.aclose()

    def _deliver(self, channel: str, data: bytes) -> None:
        kind, _, value = data.partition(b":")
        for listener in tuple(self._listeners.get(channel, ())):
            listener(kind.decode(), value)

    def _tell_lost(self) -> None:
        for listeners in tuple(self._listeners.values()):
            for listener in tuple(listeners):
                listener("lost", b"")
