"""A scripted gateway on loopback, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from teleworld._proto.gateway.v1 import world_service_pb2_grpc
from teleworld.client import Patience, WorldClient
from teleworld.client.client import SERVICE
from teleworld.rpc.server import Server, ServerConfig
from tests.client.gateway import Gateway


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway and its address."""
    gateway, server = Gateway(), Server("gateway", ServerConfig(drain_seconds=0.1, require_deadline=False))
    server.add(world_service_pb2_grpc.add_WorldServiceServicer_to_server, gateway, SERVICE)
    address = await server.start()
    server.ready()
    yield gateway, address
    await server.drain()


@pytest_asyncio.fixture
async def gateway(served: tuple[Gateway, str]) -> Gateway:
    """The gateway alone."""
    return served[0]


@pytest_asyncio.fixture
async def client(served: tuple[Gateway, str]) -> AsyncIterator[WorldClient]:
    """A client that tries again at once."""
    async with WorldClient(served[1], timeout_s=5, patience=Patience(total_s=5, first_s=0.001, longest_s=0.01)) as one:
        yield one
