"""Worker services on loopback, with small real cores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio

from services.common.desk import Desk
from teleworld.rpc.server import Server, ServerConfig
from teleworld.rpc.workers import WorkerClient
from tests.services.cores import MODEL

Serve = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serves a core with a service's `register` and gives a client of the service; all is closed at the end."""
    servers: list[Server] = []
    clients: list[WorkerClient] = []

    async def begin(
        register: Callable[[Server, Desk[Any]], None],
        core: object,
        client: type[WorkerClient],
        queue: int = 8,
        desk: Desk[Any] | None = None,
    ) -> WorkerClient:
        server, desk = Server("test", ServerConfig(drain_seconds=5)), desk or Desk[Any]("test", queue)
        register(server, desk)
        server.on_drain(desk.close)
        clients.append(client(await server.start()))
        await desk.open(lambda: (MODEL, core))
        server.ready()
        servers.append(server)
        return clients[-1]

    yield begin
    for open_client in clients:
        await open_client.close()
    for server in servers:
        await server.drain()
