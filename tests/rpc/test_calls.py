"""Calls over a real connection: errors, deadlines, cancellation, limits and lost peers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from teleworld._proto.planner.v1 import planner_pb2 as pb
from teleworld._proto.planner.v1 import planner_pb2_grpc
from teleworld.rpc import calls, channels, deadline
from teleworld.rpc.convert import planner
from teleworld.rpc.workers import PLANNER, PlannerClient
from teleworld.world import errors
from tests.rpc import samples
from tests.rpc.conftest import Start

pytestmark = pytest.mark.asyncio


class Servicer(planner_pb2_grpc.PlannerServiceServicer):
    """Answers Embed with whatever `behave` does, and notes how the handler ended."""

    def __init__(self, behave: Callable[[], Any]) -> None:
        self._behave = behave
        self.began, self.cancelled = asyncio.Event(), asyncio.Event()

    async def Embed(self, request: pb.EmbedRequest, context: grpc.aio.ServicerContext) -> pb.EmbedResponse:
        self.began.set()
        try:
            result = self._behave()
            return await result if asyncio.iscoroutine(result) else result
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def raising(error: Exception) -> Servicer:
    def behave() -> None:
        raise error

    return Servicer(behave)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidInput("text", "is empty"),
        errors.NotFound("worlds/x"),
        errors.StaleEpoch("x", 1, 2),
        errors.StateLost("gone"),
        errors.Overloaded("full", 2.5),
        errors.Unavailable("draining"),
    ],
    ids=lambda error: error.reason,
)
async def test_the_client_gets_the_exception_that_the_server_raised(start: Start, error: errors.TeleWorldError) -> None:
    _, client = await start(raising(error))
    with pytest.raises(type(error)) as caught:
        await client.embed(samples.EMBED, timeout=5)
    assert type(caught.value) is type(error)
    assert vars(caught.value) == vars(error)


async def test_a_defect_is_internal_and_tells_nothing(start: Start) -> None:
    _, client = await start(raising(KeyError("password=hunter2")))
    with pytest.raises(errors.Internal) as caught:
        await client.embed(samples.EMBED, timeout=5)
    assert "hunter2" not in str(caught.value)


async def test_a_call_without_a_deadline_is_refused(start: Start) -> None:
    _, client = await start(Servicer(pb.EmbedResponse))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await planner_pb2_grpc.PlannerServiceStub(client.channel).Embed(pb.EmbedRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "deadline" in caught.value.details()


async def test_a_server_of_the_public_api_may_allow_calls_without_a_deadline(start: Start) -> None:
    _, client = await start(Servicer(pb.EmbedResponse), require_deadline=False)
    assert await planner_pb2_grpc.PlannerServiceStub(client.channel).Embed(pb.EmbedRequest()) == pb.EmbedResponse()


async def test_a_deadline_ends_the_call_on_both_sides(start: Start) -> None:
    servicer = Servicer(asyncio.Event().wait)
    _, client = await start(servicer)
    with pytest.raises(errors.DeadlineExceeded):
        await client.embed(samples.EMBED, timeout=0.2)
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_cancelling_the_caller_cancels_the_handler(start: Start) -> None:
    servicer = Servicer(asyncio.Event().wait)
    _, client = await start(servicer)
    call = asyncio.create_task(client.embed(samples.EMBED, timeout=60))
    await servicer.began.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_the_handler_knows_how_much_time_is_left(start: Start) -> None:
    seen: list[float | None] = []

    def behave() -> pb.EmbedResponse:
        seen.append(deadline.remaining())
        return planner.write_embed_response(samples.PROMPT)

    _, client = await start(Servicer(behave))
    await client.embed(samples.EMBED, timeout=5)
    assert seen[0] is not None
    assert 3 < seen[0] < 5.5, "gRPC rounds deadlines up a little"


async def test_a_call_on_behalf_of_another_never_outlives_it(start: Start) -> None:
    servicer = Servicer(asyncio.Event().wait)
    _, client = await start(servicer)
    with deadline.bound(0.2), pytest.raises(errors.DeadlineExceeded):
        await client.embed(samples.EMBED, timeout=60)
    with deadline.bound(0), pytest.raises(errors.DeadlineExceeded):
        await client.embed(samples.EMBED, timeout=60)


async def test_a_bad_answer_is_the_peers_defect(start: Start) -> None:
    _, client = await start(Servicer(pb.EmbedResponse))
    with pytest.raises(errors.Internal, match="PlannerService/Embed gave a bad answer"):
        await client.embed(samples.EMBED, timeout=5)


async def test_an_oversized_tensor_is_refused_by_name_before_it_is_sent(start: Start) -> None:
    _, client = await start(Servicer(pb.EmbedResponse))
    picture = np.broadcast_to(np.uint8(0), (8192, 4096, 3))
    with pytest.raises(errors.InvalidInput) as caught:
        await client.encode(samples.EncodeRequest(samples.context(), picture), timeout=5)
    assert caught.value.field == "picture"


async def test_an_oversized_message_is_refused_by_its_limit(start: Start) -> None:
    _, client = await start(Servicer(pb.EmbedResponse))
    message = pb.EmbedRequest(text="x" * (channels.MAX_MESSAGE_BYTES + 1))
    careless = channels.open_channel(client.address, [("grpc.max_send_message_length", -1)])
    stub = planner_pb2_grpc.PlannerServiceStub(careless)
    with pytest.raises(errors.InvalidInput, match=str(channels.MAX_MESSAGE_BYTES)) as caught:
        await calls.unary(stub.Embed, f"{PLANNER}/Embed", message, 5, lambda answer: answer)
    assert caught.value.field == "message"
    await careless.close()


async def test_a_peer_that_is_away_is_unavailable(start: Start) -> None:
    server, client = await start(Servicer(pb.EmbedResponse))
    await server.drain()
    with pytest.raises(errors.Unavailable):
        await client.embed(samples.EMBED, timeout=5)


async def test_calls_under_way_end_as_unavailable_when_the_server_gives_up_on_them(start: Start) -> None:
    servicer = Servicer(asyncio.Event().wait)
    server, client = await start(servicer, drain_seconds=0.1)
    call = asyncio.create_task(client.embed(samples.EMBED, timeout=60))
    await servicer.began.wait()
    await server.drain()
    with pytest.raises(errors.Unavailable):
        await call


async def test_closing_the_channel_under_a_call_is_no_cancellation(start: Start) -> None:
    servicer = Servicer(asyncio.Event().wait)
    _, client = await start(servicer)
    call = asyncio.create_task(client.embed(samples.EMBED, timeout=60))
    await servicer.began.wait()
    await client.close()
    with pytest.raises(errors.Unavailable):
        await call
    with pytest.raises(errors.Unavailable):
        await client.embed(samples.EMBED, timeout=5)


async def test_nothing_is_retried_behind_the_callers_back(start: Start) -> None:
    tries: list[int] = []

    def behave() -> None:
        tries.append(1)
        raise errors.Unavailable("away")

    _, client = await start(Servicer(behave))
    with pytest.raises(errors.Unavailable):
        await client.embed(samples.EMBED, timeout=5)
    assert len(tries) == 1


async def test_the_client_is_a_context_manager() -> None:
    async with PlannerClient("127.0.0.1:1") as client:
        with pytest.raises(errors.Unavailable):
            await client.describe(timeout=5)


async def test_a_handler_that_aborts_by_itself_keeps_its_status(start: Start) -> None:
    class Aborting(planner_pb2_grpc.PlannerServiceServicer):
        async def DescribeModel(self, request: object, context: grpc.aio.ServicerContext) -> None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "worlds/x")

    _, client = await start(Aborting())
    with pytest.raises(errors.NotFound, match="worlds/x"):
        await client.describe(timeout=5)
