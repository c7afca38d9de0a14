"""Streams through the server boundary: both directions, early ends from either side, errors in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from teleworld._proto.gateway.v1 import stream_pb2, world_service_pb2, world_service_pb2_grpc
from teleworld.rpc import calls, channels, status
from teleworld.rpc.server import Server, ServerConfig
from teleworld.world import errors

SERVICE = "teleworld.gateway.v1.WorldService"
Up = world_service_pb2.StreamWorldRequest
Down = world_service_pb2.StreamWorldResponse
Watched = world_service_pb2.WatchWorldResponse


def chunk(index: int) -> stream_pb2.Chunk:
    return stream_pb2.Chunk(index=index, video=bytes(1000))


class Worlds(world_service_pb2_grpc.WorldServiceServicer):
    """Acks are answered with the next chunk; WatchWorld never ends by itself."""

    def __init__(self) -> None:
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def StreamWorld(
        self, request_iterator: AsyncIterator[Up], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Down]:
        task = asyncio.current_task()
        try:
            async for request in request_iterator:
                if request.HasField("pause"):
                    raise errors.Conflict("cannot pause")
                yield Down(chunk=chunk(request.ack.chunk + 1))
            yield Down(end=stream_pb2.End(reason=stream_pb2.END_REASON_CLIENT_CLOSED))
        finally:
            self.ended.put_nowait("same task" if asyncio.current_task() is task else "another task")

    async def WatchWorld(
        self, request: world_service_pb2.WatchWorldRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Watched]:
        task, index = asyncio.current_task(), 0
        try:
            while True:
                yield Watched(chunk=chunk(index))
                index += 1
        finally:
            self.ended.put_nowait("same task" if asyncio.current_task() is task else "another task")


@pytest.fixture
def worlds() -> Worlds:
    return Worlds()


@pytest_asyncio.fixture
async def channel(worlds: Worlds) -> AsyncIterator[grpc.aio.Channel]:
    server = Server("gateway", ServerConfig(require_deadline=False, drain_seconds=0.1))
    server.add(world_service_pb2_grpc.add_WorldServiceServicer_to_server, worlds, SERVICE)
    opened = channels.open_channel(await server.start())
    yield opened
    await opened.close()
    await server.drain()


async def ended(worlds: Worlds) -> str:
    return await asyncio.wait_for(worlds.ended.get(), 5)


async def test_both_directions_flow_and_the_client_ends_it(worlds: Worlds, channel: grpc.aio.Channel) -> None:
    call = world_service_pb2_grpc.WorldServiceStub(channel).StreamWorld()
    for index in range(3):
        await call.write(Up(ack=stream_pb2.Ack(chunk=index)))
        assert (await call.read()).chunk.index == index + 1
    await call.done_writing()
    assert (await call.read()).end.reason == stream_pb2.END_REASON_CLIENT_CLOSED
    assert await call.read() is grpc.aio.EOF
    assert await ended(worlds) == "same task"


async def test_an_error_in_the_middle_has_its_details(worlds: Worlds, channel: grpc.aio.Channel) -> None:
    call = world_service_pb2_grpc.WorldServiceStub(channel).StreamWorld()
    await call.write(Up(ack=stream_pb2.Ack(chunk=0)))
    await call.read()
    await call.write(Up(pause=stream_pb2.Pause()))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    back = status.from_rpc_error(caught.value)
    assert isinstance(back, errors.Conflict)
    assert back.message == "cannot pause"
    assert await ended(worlds) == "same task"


async def test_a_client_that_vanishes_ends_the_handler_in_its_own_task(
    worlds: Worlds, channel: grpc.aio.Channel
) -> None:
    call = world_service_pb2_grpc.WorldServiceStub(channel).StreamWorld()
    await call.write(Up(ack=stream_pb2.Ack(chunk=0)))
    await call.read()
    call.cancel()
    assert await ended(worlds) == "same task"


async def test_a_spectator_that_does_not_read_is_held_back_and_ends_cleanly(
    worlds: Worlds, channel: grpc.aio.Channel
) -> None:
    call = world_service_pb2_grpc.WorldServiceStub(channel).WatchWorld(world_service_pb2.WatchWorldRequest())
    assert (await call.read()).chunk.index == 0
    call.cancel()
    assert await ended(worlds) == "same task"


async def test_leaving_a_server_stream_early_ends_the_call(worlds: Worlds, channel: grpc.aio.Channel) -> None:
    stub = world_service_pb2_grpc.WorldServiceStub(channel)
    request = world_service_pb2.WatchWorldRequest()
    stream = calls.server_stream(stub.WatchWorld, f"{SERVICE}/WatchWorld", request, None)
    indices = [(await anext(stream)).chunk.index for _ in range(5)]
    assert indices == list(range(5))
    await stream.aclose()
    assert await ended(worlds) == "same task"
