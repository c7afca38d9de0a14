"""Streaming a world: order, credit, receipts, pauses, reproducibility, and what a client does wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from teleworld._proto.gateway.v1 import stream_pb2, world_pb2, world_service_pb2
from teleworld._proto.types.v1 import task_pb2
from teleworld.rpc.status import from_rpc_error
from teleworld.video.h264 import decode_chunk
from teleworld.world.controls import Keys
from teleworld.world.errors import InvalidInput, Overloaded
from tests.services.gateway.mesh import Gateway, Mesh, attached, essence

UNKNOWN: Any = 99
RECEIVED, APPLIED = stream_pb2.Receipt.STATE_RECEIVED, stream_pb2.Receipt.STATE_APPLIED


async def test_chunks_arrive_in_order_until_the_wanted_one(gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name, until_chunk=9) as stream:
        hello = await stream.read()
        chunks = await stream.finish()
    assert (hello.epoch, hello.next_chunk, hello.width, hello.height) == (1, 0, 320, 192)
    assert [chunk.index for chunk in chunks] == list(range(10))
    assert [chunk.first_frame for chunk in chunks] == [0, *range(1, 37, 4)]
    assert decode_chunk(chunks[0].video).shape == (1, 192, 320, 3)
    assert decode_chunk(chunks[9].video).shape == (4, 192, 320, 3)
    assert stream.end is not None
    assert (stream.end.reason, stream.end.last_chunk) == (stream_pb2.END_REASON_REACHED_END, 9)
    found = await gateway.get(world.name)
    assert (found.chunks, found.state) == (10, world_pb2.WORLD_STATE_READY)


@pytest.mark.parametrize("chain", [task_pb2.CHAIN_MODE_T_B, task_pb2.CHAIN_MODE_T_C])
async def test_equal_seeds_and_scheduled_keys_give_equal_walks(mesh: Mesh, chain: int) -> None:
    await mesh.start_workers(populator=3, decoder=2)
    gateway = await mesh.gateway()
    walks = []
    for _ in range(2):
        world = await gateway.create(chain_mode=chain)
        async with attached(gateway, world.name, until_chunk=17) as stream:
            await stream.control(Keys.W | Keys.RIGHT, chunk=8)
            await stream.control(Keys.S, chunk=11)
            walks.append(essence(await stream.finish()))
    assert walks[0] == walks[1]
    assert [sequence for *_, sequence in walks[0]] == [0] * 8 + [1] * 3 + [2] * 7


async def test_a_live_control_is_received_then_applied_and_its_latency_told_once(gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 4)
        sequence = await stream.control(Keys.W)
        await stream.read_until(lambda s: bool(s.chunks) and s.chunks[-1].control_sequence == sequence)
        first = stream.chunks[-1]
        await stream.read_until(lambda s: len(s.chunks) > first.index + 3)
    assert [(r.sequence, r.state) for r in stream.receipts] == [(sequence, RECEIVED), (sequence, APPLIED)]
    assert stream.receipts[1].chunk == first.index
    assert first.key_to_frame_ms > 0
    assert [c.index for c in stream.chunks if c.HasField("key_to_frame_ms")] == [first.index]


async def test_scheduled_controls_and_prompts_get_receipts_and_no_latency(gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name, until_chunk=20) as stream:
        turn = await stream.control(Keys.LEFT, chunk=9)
        words = await stream.prompt("a cave with blue light")
        await stream.finish()
    applied = {r.sequence: r.chunk for r in stream.receipts if r.state == APPLIED}
    assert applied[turn] == 9
    assert applied[words] in (1, 4, 7, 10, 13)
    assert not any(chunk.HasField("key_to_frame_ms") for chunk in stream.chunks)
    assert (await gateway.get(world.name)).prompt == "a cave with blue light"


async def test_a_prompt_changes_what_is_generated(gateway: Gateway) -> None:
    walks = []
    for text in ("a cave", "a garden"):
        world = await gateway.create()
        async with attached(gateway, world.name, until_chunk=20, credit=1) as stream:
            await stream.prompt(text)
            walks.append(await stream.finish())
    assert walks[0][0].latent_sha256 == walks[1][0].latent_sha256
    assert walks[0][20].latent_sha256 != walks[1][20].latent_sha256


async def test_no_more_than_the_credit_is_unacknowledged(gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name, acks=False, credit=3) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await stream.read()
        assert len(stream.chunks) == 3


async def test_a_client_that_never_acknowledges_is_sent_away(mesh: Mesh) -> None:
    gateway = await mesh.gateway(ack_timeout_seconds=0.3)
    world = await gateway.create()
    async with attached(gateway, world.name, acks=False, credit=2) as stream:
        await stream.finish()
    assert stream.end is not None
    assert (stream.end.reason, stream.end.last_chunk) == (stream_pb2.END_REASON_ACK_TIMEOUT, 1)
    await mesh.all_let_go()


async def test_a_silent_client_is_sent_away_after_heartbeats(mesh: Mesh) -> None:
    gateway = await mesh.gateway(idle_timeout_seconds=2.0, heartbeat_seconds=0.2)
    world = await gateway.create()
    async with attached(gateway, world.name, acks=False, credit=64) as stream:
        await stream.finish()
    assert stream.end is not None
    assert stream.end.reason == stream_pb2.END_REASON_IDLE
    assert stream.heartbeats >= 2


async def test_a_paused_world_sends_nothing_until_it_is_resumed(mesh: Mesh) -> None:
    gateway = await mesh.gateway(heartbeat_seconds=0.1)
    world = await gateway.create()
    async with attached(gateway, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 5)
        await stream.send(pause=stream_pb2.Pause())
        await stream.read_until(lambda s: s.heartbeats == 3)
        sent = len(stream.chunks)
        await stream.read_until(lambda s: s.heartbeats == 6)
        assert len(stream.chunks) == sent
        await stream.send(resume=stream_pb2.Resume())
        await stream.read_until(lambda s: len(s.chunks) == sent + 6)
    assert [chunk.index for chunk in stream.chunks] == list(range(sent + 6))


async def test_real_time_is_kept_though_the_client_acknowledges_at_once(gateway: Gateway) -> None:
    world = await gateway.create()
    clock = asyncio.get_running_loop().time
    async with attached(gateway, world.name, until_chunk=12, pace=stream_pb2.PACE_REALTIME) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 1)
        began = clock()
        await stream.finish()
        took = clock() - began
    # The last segment opens when four chunks before it are unplayed: 5 of the 12 chunks of 4/17.5 s have been played by then.
    assert took > 5 * 4 / 17.5 * 0.9


async def test_a_client_that_closes_its_side_is_told_so(mesh: Mesh, gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 2)
        await stream.call.done_writing()
        stream.acks = False
        await stream.finish()
    assert stream.end is not None
    assert stream.end.reason == stream_pb2.END_REASON_CLIENT_CLOSED
    await mesh.all_let_go()


async def test_a_client_that_vanishes_leaves_nothing_behind(mesh: Mesh, gateway: Gateway) -> None:
    world = await gateway.create()
    before = {task.get_name() for task in asyncio.all_tasks()}
    for chunks in (0, 1, 7):
        async with attached(gateway, world.name) as stream:
            await stream.read_until(lambda s, chunks=chunks: len(s.chunks) == chunks)  # type: ignore[misc]
        await mesh.all_let_go()
        assert not (await gateway.worlds.store.state(world.name.removeprefix("worlds/"))).leased
    left = {task.get_name() for task in asyncio.all_tasks()} - before
    assert not [name for name in left if world.name.removeprefix("worlds/") in name]


@pytest.mark.parametrize(
    "messages, field",
    [
        ([{"ack": stream_pb2.Ack(chunk=0)}], "attach"),
        ([{"attach": stream_pb2.Attach(credit=65)}], "attach.credit"),
        ([{"attach": stream_pb2.Attach(pace=UNKNOWN)}], "attach.pace"),
        ([{"attach": stream_pb2.Attach(name="nothing")}], "attach.name"),
        ([{"attach": stream_pb2.Attach()}, {"attach": stream_pb2.Attach()}], "attach"),
        ([{"attach": stream_pb2.Attach()}, {"ack": stream_pb2.Ack(chunk=1000)}], "ack.chunk"),
        (
            [{"attach": stream_pb2.Attach()}, {"control": stream_pb2.Control(keys=[UNKNOWN], sequence=1)}],
            "control.keys[0]",
        ),
        ([{"attach": stream_pb2.Attach()}, {"control": stream_pb2.Control()}], "control.sequence"),
        ([{"attach": stream_pb2.Attach()}, {"prompt": stream_pb2.PromptChange(text="x" * 5000)}], "prompt.text"),
        ([{"attach": stream_pb2.Attach()}, {}], "message"),
    ],
)
async def test_what_a_client_does_wrong_is_named(
    mesh: Mesh, gateway: Gateway, messages: list[dict[str, Any]], field: str
) -> None:
    world = await gateway.create()
    call = gateway.stub.StreamWorld()
    for message in messages:
        if "attach" in message and not message["attach"].name:
            message["attach"].name = world.name
        await call.write(world_service_pb2.StreamWorldRequest(**message))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await call.read() is not grpc.aio.EOF:
            pass
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidInput)
    assert error.field == field
    await mesh.all_let_go()


async def test_a_late_scheduled_control_and_a_falling_sequence_are_refused(gateway: Gateway) -> None:
    world = await gateway.create()
    for late in (True, False):
        async with attached(gateway, world.name) as stream:
            await stream.read_until(lambda s: len(s.chunks) == 5)
            if late:
                await stream.control(Keys.W, chunk=2)
            else:
                for sequence in (5, 5):
                    await stream.send(control=stream_pb2.Control(sequence=sequence))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.finish()
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidInput)
        assert error.field == ("control.chunk" if late else "control.sequence")


async def test_a_full_gateway_refuses_another_stream(mesh: Mesh) -> None:
    gateway = await mesh.gateway(max_streams=1)
    one, two = await gateway.create(), await gateway.create()
    async with attached(gateway, one.name) as first:
        await first.read()
        async with attached(gateway, two.name) as second:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await second.finish()
        error = from_rpc_error(caught.value)
        assert isinstance(error, Overloaded)
        assert error.retry_after_s > 0
        await first.read_until(lambda s: len(s.chunks) == 8)
