"""Spectators, controls from elsewhere, and the memory as a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from teleworld._proto.gateway.v1 import stream_pb2, world_service_pb2
from teleworld.rpc.convert.gateway import write_keys
from teleworld.rpc.status import from_rpc_error
from teleworld.world.controls import Keys
from teleworld.world.errors import InvalidInput, Overloaded, PreconditionFailed
from tests.services.gateway.mesh import Client, Gateway, Mesh, attached, essence

UNKNOWN_KEYS: list[Any] = [77]


async def watch(gateway: Client, name: str, after: int | None = None) -> AsyncGenerator[Any, None]:
    """What a spectator gets."""
    request = world_service_pb2.WatchWorldRequest(name=name, resume_after_chunk=after)
    async for response in gateway.stub.WatchWorld(request, timeout=30):
        yield getattr(response, response.WhichOneof("message") or "")


async def send(gateway: Client, name: str, *controls: stream_pb2.Control) -> Any:
    request = world_service_pb2.SendControlsRequest(name=name, controls=controls)
    return await gateway.stub.SendControls(request, timeout=20)


async def test_spectators_at_any_gateway_see_the_same_walk(mesh: Mesh) -> None:
    one, two = await mesh.gateway(), await mesh.gateway()
    world = await one.create()
    async with attached(one, world.name, until_chunk=12) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 4)
        seen = []
        for gateway in (one, two):
            spectator = watch(gateway, world.name, 0)
            assert isinstance(await anext(spectator), stream_pb2.Attached)
            seen.append((spectator, [await anext(spectator) for _ in range(3)]))
        walked = await stream.finish()
    for spectator, chunks in seen:
        while chunks[-1].index < 12:
            chunks.append(await anext(spectator))
        await spectator.aclose()
        assert essence(chunks) == essence(walked[1:])


async def test_a_spectator_starts_with_the_newest_chunk_and_hears_of_the_end(mesh: Mesh) -> None:
    gateway = await mesh.gateway(heartbeat_seconds=0.1)
    world = await gateway.create()
    async with attached(gateway, world.name, until_chunk=6) as stream:
        await stream.finish()
    spectator = watch(gateway, world.name)
    kinds = [type(await anext(spectator)).__name__ for _ in range(4)]
    assert kinds == ["Attached", "Chunk", "Heartbeat", "Heartbeat"]
    await gateway.stub.DeleteWorld(world_service_pb2.DeleteWorldRequest(name=world.name), timeout=20)
    last = [message async for message in spectator][-1]
    assert (last.reason, last.last_chunk) == (stream_pb2.END_REASON_DELETED, 6)


async def test_spectators_are_sent_away_by_a_drain_and_limited(mesh: Mesh) -> None:
    gateway = await mesh.gateway(max_spectators=1)
    world = await gateway.create()
    spectator = watch(gateway, world.name)
    await anext(spectator)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(watch(gateway, world.name))
    assert isinstance(from_rpc_error(caught.value), Overloaded)
    await gateway.worlds.drain()
    last = [message async for message in spectator][-1]
    assert last.reason == stream_pb2.END_REASON_DRAINING


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_controls_reach_a_world_that_is_streamed_here_or_elsewhere(mesh: Mesh, elsewhere: bool) -> None:
    one, two = await mesh.gateway(), await mesh.gateway()
    world = await one.create()
    async with attached(one, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 3)
        control = stream_pb2.Control(keys=write_keys(Keys.W), sequence=40)
        answer = await send(two if elsewhere else one, world.name, control)
        assert [(r.sequence, r.state) for r in answer.receipts] == [(40, stream_pb2.Receipt.STATE_RECEIVED)]
        await stream.read_until(lambda s: s.chunks[-1].control_sequence == 40)
        assert stream.receipts == []


async def test_a_browser_walks_by_sending_controls_and_watching(mesh: Mesh) -> None:
    gateway = await mesh.gateway(solo_idle_seconds=1.0)
    world = await gateway.create()
    spectator = watch(gateway, world.name)
    await anext(spectator)
    await send(gateway, world.name, stream_pb2.Control(keys=write_keys(Keys.LEFT), sequence=1))
    await send(gateway, world.name, stream_pb2.Control(keys=write_keys(Keys.W), sequence=2))
    chunks = [await anext(spectator)]
    while chunks[-1].control_sequence != 2:
        chunks.append(await anext(spectator))
    await spectator.aclose()
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    await mesh.all_let_go()
    async with attached(gateway, world.name) as stream:
        assert (await stream.read()).next_chunk >= len(chunks)


async def test_controls_are_refused_by_name(gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 6)
        for control, field in (
            (stream_pb2.Control(sequence=0), "controls[0].sequence"),
            (stream_pb2.Control(sequence=1, keys=UNKNOWN_KEYS), "controls[0].keys[0]"),
            (stream_pb2.Control(sequence=1, chunk=2), "controls[0].chunk"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await send(gateway, world.name, control)
            error = from_rpc_error(caught.value)
            assert isinstance(error, InvalidInput)
            assert error.field == field


async def test_the_memory_is_exported(gateway: Gateway) -> None:
    world = await gateway.create()

    async def export(at: int | None = None) -> bytes:
        request = world_service_pb2.ExportMemoryRequest(name=world.name, dynamic_at_chunk=at)
        return b"".join([piece.ply async for piece in gateway.stub.ExportMemory(request, timeout=20)])

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await export()
    assert isinstance(from_rpc_error(caught.value), PreconditionFailed)
    async with attached(gateway, world.name, until_chunk=8) as stream:
        await stream.finish()
    found = await gateway.get(world.name)
    assert found.memory_revision >= 2
    assert found.static_points == 100 * (found.memory_revision + 1)
    assert f"revision {found.memory_revision}, dynamic None" in (await export()).decode(errors="replace")
    assert "dynamic 8" in (await export(2)).decode(errors="replace")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await export(99)
    assert isinstance(from_rpc_error(caught.value), InvalidInput)
