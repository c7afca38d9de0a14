"""Health: Check and a Watch that really streams, and ends when the server drains."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from teleworld._proto.planner.v1 import planner_pb2_grpc
from teleworld.rpc import channels, health
from teleworld.rpc.server import Server, ServerConfig
from teleworld.rpc.workers import PLANNER
from teleworld.world import errors
from tests.rpc.conftest import Start

pytestmark = pytest.mark.asyncio
Servicer = planner_pb2_grpc.PlannerServiceServicer


@pytest.mark.parametrize("service", ["", PLANNER])
async def test_a_server_serves_once_it_is_ready(service: str) -> None:
    server = Server("planner", ServerConfig(drain_seconds=0.1))
    server.add(planner_pb2_grpc.add_PlannerServiceServicer_to_server, Servicer(), PLANNER)
    channel = channels.open_channel(await server.start())
    assert not await health.check(channel, service, 5)
    server.ready()
    assert await health.check(channel, service, 5)
    await channel.close()
    await server.drain()


async def test_watch_tells_each_change_and_ends_on_drain(start: Start) -> None:
    server, client = await start(Servicer(), drain_seconds=30)
    watch = health.watch(client.channel, PLANNER)
    assert await anext(watch) is True
    server.health.set_serving(False)
    assert await anext(watch) is False
    server.health.set_serving(True)
    assert await anext(watch) is True
    async with asyncio.timeout(5):
        await server.drain()
        assert await anext(watch) is False
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_a_watcher_that_leaves_is_forgotten(start: Start) -> None:
    _, client = await start(Servicer())
    watch = health.watch(client.channel, PLANNER)
    assert await anext(watch) is True
    await watch.aclose()
    assert await health.check(client.channel, PLANNER, 5)


async def test_an_unknown_service_is_not_found_by_check_and_unknown_to_watch(start: Start) -> None:
    _, client = await start(Servicer())
    with pytest.raises(errors.NotFound):
        await health.check(client.channel, "nobody", 5)
    call = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest(service="nobody"))
    assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    call.cancel()


async def test_a_peer_that_is_away_ends_the_watch_as_unavailable() -> None:
    channel = channels.open_channel("127.0.0.1:1")
    with pytest.raises(errors.Unavailable):
        await anext(health.watch(channel, ""))
    with pytest.raises(errors.Unavailable):
        await health.check(channel, "", 5)
    await channel.close()


async def services_by_reflection(channel: grpc.aio.Channel) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    answer = await call.read()
    call.cancel()
    return {service.name for service in answer.list_services_response.service}


async def test_reflection_lists_what_is_served(start: Start) -> None:
    _, client = await start(Servicer())
    assert {PLANNER, health.SERVICE} <= await services_by_reflection(client.channel)


async def test_the_admin_port_serves_health_and_not_the_api(start: Start) -> None:
    server, _ = await start(Servicer(), admin_port=0)
    admin = channels.open_channel(server.admin_address)
    assert await health.check(admin, PLANNER, 5)
    assert PLANNER not in await services_by_reflection(admin)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await planner_pb2_grpc.PlannerServiceStub(admin).DescribeModel(health_pb2.HealthCheckRequest(), timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await admin.close()


async def test_a_port_in_use_is_refused_by_name(start: Start) -> None:
    server, _ = await start(Servicer())
    taken = int(server.address.rpartition(":")[2])
    with pytest.raises(errors.InvalidInput, match="port: cannot listen"):
        await Server("planner", ServerConfig(port=taken)).start()
