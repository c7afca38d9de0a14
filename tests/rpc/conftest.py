"""Real servers on loopback for the transport's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest_asyncio

from teleworld._proto.planner.v1 import planner_pb2_grpc
from teleworld.rpc.server import Server, ServerConfig
from teleworld.rpc.workers import PLANNER, PlannerClient

Start = Callable[..., Awaitable[tuple[Server, PlannerClient]]]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a server for a PlannerService servicer and gives it with a client of it; everything is closed at the end."""
    open_ones: list[Server | PlannerClient] = []

    async def begin(
        servicer: planner_pb2_grpc.PlannerServiceServicer, **config: object
    ) -> tuple[Server, PlannerClient]:
        server = Server("planner", ServerConfig(**{"drain_seconds": 0.2} | config))
        server.add(planner_pb2_grpc.add_PlannerServiceServicer_to_server, servicer, PLANNER)
        client = PlannerClient(await server.start())
        server.ready()
        open_ones.extend((server, client))
        return server, client

    yield begin
    for one in reversed(open_ones):
        await (one.drain() if isinstance(one, Server) else one.close())
