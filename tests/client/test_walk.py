"""A walk over a real stream: events, acknowledgements, and gateways that go away in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from teleworld._proto.gateway.v1 import stream_pb2
from teleworld.client import Attached, Chunk, EndReason, Keys, Pace, Receipt, ReceiptState, Rewound, Walk, WorldClient
from teleworld.world.errors import (
    Conflict,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    TeleWorldError,
    Unavailable,
)
from tests.client.gateway import Answer, Gateway, Stream, attached, chunk, end, receipt

NAME = "worlds/0"


def sends(*answers: Answer | TeleWorldError):
    """A stream that sends this, and then waits for the client to close, or fails."""

    async def script(stream: Stream) -> AsyncIterator[Answer]:
        for answer in answers:
            if isinstance(answer, TeleWorldError):
                raise answer
            yield answer
        if not answers or answers[-1].WhichOneof("message") != "end":
            await stream.wait_closed()
            yield end(stream_pb2.END_REASON_CLIENT_CLOSED)

    return script


def to_the_end(first: int, last: int):
    """A stream that sends these chunks, and that this was all."""
    return sends(attached(first), *map(chunk, range(first, last + 1)), end(stream_pb2.END_REASON_REACHED_END))


async def indices(walk: Walk) -> list[int]:
    return [event.index async for event in walk if isinstance(event, Chunk)]


async def test_a_walk_attaches_as_asked_and_gives_typed_events(gateway: Gateway, client: WorldClient):
    gateway.scripts = [to_the_end(5, 7)]
    async with client.walk(NAME, pace=Pace.MAX, resume_after=4, until=7, credit=3) as walk:
        events = [event async for event in walk]
    attach = gateway.streams[0].attach
    assert (attach.name, attach.resume_after_chunk, attach.until_chunk, attach.credit) == (NAME, 4, 7, 3)
    assert attach.pace == stream_pb2.PACE_MAX
    assert isinstance(events[0], Attached)
    assert [event.index for event in events[1:] if isinstance(event, Chunk)] == [5, 6, 7]
    first = events[1]
    assert isinstance(first, Chunk)
    assert len(first.path) == first.frames == 4
    assert first.stage_ms == {"decode": 15.0}
    assert first.key_to_frame_ms is None
    assert walk.end is not None
    assert walk.end.reason is EndReason.REACHED_END


async def test_a_chunk_is_acknowledged_when_the_consumer_comes_back_for_more(gateway: Gateway, client: WorldClient):
    async def script(stream: Stream) -> AsyncIterator[Answer]:
        yield attached(0)
        for index in range(3):
            yield chunk(index)
            await stream.acked(index)
        yield end(stream_pb2.END_REASON_REACHED_END)

    gateway.scripts = [script]
    async with client.walk(NAME) as walk:
        assert await indices(walk) == [0, 1, 2]


async def test_without_automatic_acknowledgement_the_player_decides(gateway: Gateway, client: WorldClient):
    async def script(stream: Stream) -> AsyncIterator[Answer]:
        yield attached(0)
        for index in range(3):
            yield chunk(index)
        await stream.acked(2)
        yield end(stream_pb2.END_REASON_REACHED_END)

    gateway.scripts = [script]
    async with client.walk(NAME, acknowledge=False) as walk:
        seen = []
        async for event in walk:
            if isinstance(event, Chunk):
                seen.append(event.index)
                if event.index == 2:
                    assert gateway.streams[0].kinds() == ["attach"]
                    walk.ack(2)
    assert seen == [0, 1, 2]


async def test_controls_and_prompts_share_one_series_of_numbers(gateway: Gateway, client: WorldClient):
    async def script(stream: Stream) -> AsyncIterator[Answer]:
        yield attached(0)
        await stream.heard(lambda message: message.prompt.sequence == 3)
        yield receipt(1)
        yield receipt(1, 4)
        yield end(stream_pb2.END_REASON_REACHED_END)

    gateway.scripts = [script]
    async with client.walk(NAME) as walk:
        assert walk.hold(Keys.W | Keys.RIGHT) == 1
        assert walk.hold(Keys.NONE, chunk=9) == 2
        assert walk.prompt("a hall") == 3
        receipts = [event async for event in walk if isinstance(event, Receipt)]
    _, live, scheduled, prompt = gateway.streams[0].messages
    assert list(live.control.keys) == [stream_pb2.KEY_W, stream_pb2.KEY_RIGHT]
    assert not live.control.HasField("chunk")
    assert (scheduled.control.chunk, list(scheduled.control.keys)) == (9, [])
    assert prompt.prompt.text == "a hall"
    assert receipts == [Receipt(1, ReceiptState.RECEIVED, None), Receipt(1, ReceiptState.APPLIED, 4)]


async def test_a_later_walk_goes_on_with_the_numbers(gateway: Gateway, client: WorldClient):
    gateway.scripts = [sends(attached(0))]
    async with client.walk(NAME, sequence=11) as walk:
        assert walk.hold(Keys.W) == 12


@pytest.mark.parametrize(
    "loss", [Unavailable("killed"), end(stream_pb2.END_REASON_DRAINING)], ids=["killed", "draining"]
)
async def test_no_chunk_is_lost_or_repeated_when_the_gateway_is_replaced(
    gateway: Gateway, client: WorldClient, loss: Answer | TeleWorldError
):
    gateway.scripts = [sends(attached(0), chunk(0), chunk(1), loss), to_the_end(2, 4)]
    async with client.walk(NAME, until=4) as walk:
        assert await indices(walk) == [0, 1, 2, 3, 4]
    first, second = gateway.streams
    assert not first.attach.HasField("resume_after_chunk")
    assert second.attach.resume_after_chunk == 1
    assert second.attach.until_chunk == 4


async def test_a_gateway_that_sends_a_chunk_again_is_not_believed(gateway: Gateway, client: WorldClient):
    gateway.scripts = [sends(attached(0), chunk(0), chunk(1), Unavailable("killed")), to_the_end(1, 3)]
    async with client.walk(NAME) as walk:
        assert await indices(walk) == [0, 1, 2, 3]


async def test_a_missing_chunk_is_told(gateway: Gateway, client: WorldClient):
    gateway.scripts = [to_the_end(0, 1), sends(attached(0), chunk(0), chunk(2))]
    async with client.walk(NAME) as walk:
        assert await indices(walk) == [0, 1]
    with pytest.raises(Internal, match="chunk 2 after 0"):
        async with client.walk(NAME) as walk:
            await indices(walk)


async def test_what_was_not_confirmed_is_said_again_to_the_next_gateway(gateway: Gateway, client: WorldClient):
    async def first(stream: Stream) -> AsyncIterator[Answer]:
        yield attached(0)
        yield chunk(0)
        await stream.heard(lambda message: message.control.sequence == 4)
        yield receipt(1)
        yield chunk(1, control_sequence=1)
        raise Unavailable("killed")

    async def second(stream: Stream) -> AsyncIterator[Answer]:
        yield attached(2)
        await stream.heard(lambda message: message.WhichOneof("message") == "pause")
        yield end(stream_pb2.END_REASON_REACHED_END)

    gateway.scripts = [first, second]
    async with client.walk(NAME) as walk:
        walk.hold(Keys.W)
        walk.hold(Keys.S, chunk=1)
        walk.hold(Keys.A, chunk=8)
        walk.hold(Keys.D)
        walk.pause()
        assert await indices(walk) == [0, 1]
    again = [message.control.sequence for message in gateway.streams[1].messages if message.HasField("control")]
    assert again == [3, 4], "1 was confirmed, and 2 was for a chunk that is here"


async def test_after_a_rewind_the_numbers_go_on_from_there(gateway: Gateway, client: WorldClient):
    rewound = Answer(rewound=stream_pb2.Rewound(to_chunk=0))
    closing = end(stream_pb2.END_REASON_REACHED_END)
    gateway.scripts = [sends(attached(0), *map(chunk, range(3)), rewound, chunk(1), closing)]
    async with client.walk(NAME) as walk:
        events = [event async for event in walk]
    assert [event.index for event in events if isinstance(event, Chunk)] == [0, 1, 2, 1]
    assert Rewound(0) in events


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (stream_pb2.END_REASON_SUPERSEDED, Conflict),
        (stream_pb2.END_REASON_DELETED, NotFound),
        (stream_pb2.END_REASON_IDLE, DeadlineExceeded),
        (stream_pb2.END_REASON_ACK_TIMEOUT, DeadlineExceeded),
        (stream_pb2.END_REASON_ERROR, Internal),
    ],
)
async def test_an_end_that_nobody_asked_for_is_an_error(
    gateway: Gateway, client: WorldClient, reason: stream_pb2.EndReason.ValueType, error: type[TeleWorldError]
):
    gateway.scripts = [sends(attached(0), chunk(0), end(reason))]
    async with client.walk(NAME) as walk:
        seen = []
        with pytest.raises(error):
            async for event in walk:
                seen.append(event)
        with pytest.raises(error):
            await anext(walk)
    assert isinstance(seen[-1], Chunk), "what came before the end is not lost"
    assert len(gateway.streams) == 1


async def test_a_refused_attachment_is_the_gateways_error(gateway: Gateway, client: WorldClient):
    gateway.scripts = [sends(InvalidInput("name", "expected worlds/{id}"))]
    async with client.walk("nonsense") as walk:
        with pytest.raises(InvalidInput) as caught:
            await anext(walk)
    assert caught.value.field == "name"


async def test_leaving_a_walk_closes_it_and_the_gateway_hears_of_it(gateway: Gateway, client: WorldClient):
    gateway.scripts = [sends(attached(0), chunk(0), chunk(1))]
    async with client.walk(NAME) as walk:
        assert isinstance(await anext(walk), Attached)
        walk.hold(Keys.W)
    assert gateway.streams[0].closed
    assert gateway.streams[0].kinds() == ["attach", "control"]
    assert walk.end is not None
    assert walk.end.reason is EndReason.CLIENT_CLOSED
    with pytest.raises(PreconditionFailed):
        walk.hold(Keys.NONE)


async def test_a_cancelled_wait_loses_no_event(gateway: Gateway, client: WorldClient):
    go = asyncio.Event()

    async def script(stream: Stream) -> AsyncIterator[Answer]:
        yield attached(0)
        await go.wait()
        yield chunk(0)
        yield end(stream_pb2.END_REASON_REACHED_END)

    gateway.scripts = [script]
    async with client.walk(NAME) as walk:
        await anext(walk)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(walk), 0.01)
        go.set()
        assert await indices(walk) == [0]
