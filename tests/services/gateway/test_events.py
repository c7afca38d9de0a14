"""The hub of events beside a store that answers late: nobody waits for it, and nobody is missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
import redis.asyncio as aioredis

from services.gateway.events import EventHub
from services.gateway.store import Store


class SlowStore:
    """A way to the store whose answers wait until `answers` is set. asked: whether anything came through it."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self.answers = asyncio.Event()
        self.asked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        far_reader, far_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        ways = [
            asyncio.create_task(self._ask(reader, far_writer)),
            asyncio.create_task(self._answer(far_reader, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        writer.close()
        far_writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
            self.asked.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            await self.answers.wait()
            writer.write(data)


@pytest.fixture
async def store(redis_url: str) -> SlowStore:
    return SlowStore(redis_url)


@asynccontextmanager
async def running_hub(store: SlowStore) -> AsyncIterator[EventHub]:
    async with await asyncio.start_server(store.serve, "127.0.0.1", 0) as server:
        hub = EventHub(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        task = asyncio.create_task(hub.run())
        try:
            yield hub
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_who_begins_to_listen_while_the_hub_connects_waits_for_nothing_and_hears_all(
    store: SlowStore, redis_url: str
) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with running_hub(store) as hub, asyncio.timeout(10), aioredis.Redis.from_url(redis_url) as publisher:
        await store.asked.wait()
        async with hub.listening("early", lambda kind, value: heard.put_nowait((kind, value))):
            assert not store.answers.is_set()
            store.answers.set()
            assert await heard.get() == ("lost", b"")
            await publisher.publish(Store.channel("early"), b"epoch:7")
            assert await heard.get() == ("epoch", b"7")
