"""`Walk`: controls go up, video comes down, and a lost gateway is replaced without losing or repeating a frame.

A background task reads the stream into a queue; the server's credit bounds that queue. When the gateway goes away
(Unavailable) or drains, the walk attaches again after the last chunk that it received, says again what no gateway has
confirmed yet, and goes on; the consumer sees another `Attached` and nothing else. A chunk that comes twice is dropped; one
that is missing is an Internal error, because it can not be had any more. After a rewind the gateway may have lost what it
had confirmed, so the walk says that again: scheduled controls of the chunks that are void, the keys held now, the prompt.

Not to be trusted with: several event loops, or several consumers of one walk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace

import grpc

from teleworld._proto.gateway.v1 import stream_pb2
from teleworld._proto.gateway.v1.world_service_pb2 import StreamWorldRequest, StreamWorldResponse
from teleworld.client.again import Again
from teleworld.client.events import Attached, Chunk, End, EndReason, Event, Pace, Receipt, Rewound
from teleworld.client.messages import read_event, write_pace
from teleworld.client.retry import Patience, Retries
from teleworld.rpc import calls
from teleworld.rpc.convert.gateway import write_control
from teleworld.world.controls import Control, Keys
from teleworld.world.errors import (
    Conflict,
    DeadlineExceeded,
    Internal,
    NotFound,
    PreconditionFailed,
    TeleWorldError,
    Unavailable,
)

STREAM = "teleworld.gateway.v1.WorldService/StreamWorld"
CLOSE_S = 5.0


@dataclass(frozen=True)
class Attachment:
    """How a walk attaches; see `WorldClient.walk`."""

    name: str
    pace: Pace
    resume_after: int | None
    until: int | None
    credit: int

    def message(self) -> StreamWorldRequest:
        """The first message of a stream."""
        attach = stream_pb2.Attach(
            name=self.name,
            resume_after_chunk=self.resume_after,
            pace=write_pace(self.pace),
            until_chunk=self.until,
            credit=self.credit,
        )
        return StreamWorldRequest(attach=attach)


class Walk:
    """An open walk: an async context manager, and an async iterator over `Event`s.

    The iteration ends when the walk reached its end or was closed; `end` then tells which. It raises Conflict when another
    stream took the world over, NotFound when the world was deleted, DeadlineExceeded when the gateway gave up waiting for
    acknowledgements or controls, Internal for a failed world, and whatever the gateway refused. Sending never waits.
    """

    def __init__(
        self,
        method: grpc.aio.StreamStreamMultiCallable[StreamWorldRequest, StreamWorldResponse],
        attachment: Attachment,
        patience: Patience,
        *,
        acknowledge: bool,
        sequence: int,
    ) -> None:
        self.end: End | None = None
        self.attached: Attached | None = None
        self._method = method
        self._attachment = attachment
        self._patience = patience
        self._acknowledge = acknowledge
        self._sequence = sequence
        self._received = attachment.resume_after
        self._untold: int | None = None
        self._paused = False
        self._unconfirmed: dict[int, StreamWorldRequest] = {}
        self._again = Again()
        self._up: asyncio.Queue[StreamWorldRequest | None] | None = None
        self._down: asyncio.Queue[Event | End | TeleWorldError] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Walk:
        self._reader = asyncio.create_task(self._read(), name=f"walk {self._attachment.name}")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close our side and wait until the gateway has heard it; after `CLOSE_S` seconds the call is cut instead."""
        reader, self._reader = self._reader, None
        if reader is None:
            return
        if self._up is not None:
            self._up.put_nowait(None)
        elif not reader.done():
            reader.cancel()
        done, _ = await asyncio.wait((reader,), timeout=CLOSE_S)
        if not done:
            reader.cancel()
            await asyncio.wait((reader,))
        self.end = self.end or End(EndReason.CLIENT_CLOSED, "", self._received)

    # -- up -----------------------------------------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """The sequence number of the newest control or prompt."""
        return self._sequence

    def hold(self, keys: Keys, *, chunk: int | None = None) -> int:
        """These keys are held from now on, or from `chunk` on. Returns the control's sequence number."""
        self._sequence += 1
        control = Control(self._sequence, keys, chunk)
        return self._say(StreamWorldRequest(control=write_control(control)))

    def prompt(self, text: str) -> int:
        """A new prompt from the next planned segment on. Returns its sequence number, of the same series as controls."""
        self._sequence += 1
        return self._say(StreamWorldRequest(prompt=stream_pb2.PromptChange(text=text, sequence=self._sequence)))

    def pause(self) -> None:
        """Stop generation and playback until `resume`."""
        self._paused = True
        self._send(StreamWorldRequest(pause=stream_pb2.Pause()))

    def resume(self) -> None:
        """Go on after `pause`."""
        self._paused = False
        self._send(StreamWorldRequest(resume=stream_pb2.Resume()))

    def ack(self, chunk: int) -> None:
        """Everything up to and including `chunk` was consumed; lets the gateway send as many more.

        A chunk that a rewind made void needs none, and is passed over.
        """
        if self._received is not None and chunk <= self._received:
            self._send(StreamWorldRequest(ack=stream_pb2.Ack(chunk=chunk)))

    # -- down ---------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> Walk:
        return self

    async def __anext__(self) -> Event:
        if self._acknowledge and self._untold is not None:
            # The consumer came back for more, so it is done with the chunk before.
            self.ack(self._untold)
            self._untold = None
        if self.end is not None:
            raise StopAsyncIteration
        if self._reader is None:
            raise PreconditionFailed("the walk is not open")
        event = await self._down.get()
        match event:
            case End():
                self.end = event
                raise StopAsyncIteration
            case TeleWorldError():
                self._down.put_nowait(event)  # so that asking again tells the same
                raise event
            case Attached():
                self.attached = event
            case Chunk():
                self._untold = event.index
        return event

    # -- inside -------------------------------------------------------------------------------------------------------

    def _say(self, message: StreamWorldRequest) -> int:
        self._unconfirmed[self._sequence] = message
        self._again.said(message)
        self._send(message)
        return self._sequence

    def _send(self, message: StreamWorldRequest) -> None:
        if self._reader is None:
            raise PreconditionFailed("the walk is not open")
        if self._up is not None:
            self._up.put_nowait(message)

    async def _read(self) -> None:
        """Attach, and attach again, until the end; the last thing in the queue is an End or an error."""
        retries = Retries(self._patience)
        while True:
            try:
                self._down.put_nowait(await self._attach_once(retries))
                return
            except TeleWorldError as error:
                failure = error
            except Exception as error:
                self._down.put_nowait(Internal(f"the walk failed: {error!r}"))
                raise
            finally:
                if self._up is not None:
                    self._up.put_nowait(None)  # gRPC leaves its reader waiting when the call ended by itself
                self._up = None
            try:
                if self._reader is None:
                    raise failure
                await retries.pause(failure)
            except TeleWorldError as error:
                self._down.put_nowait(error)
                return

    async def _attach_once(self, retries: Retries) -> End:
        """One stream from its Attach to its End. Raises Unavailable for an end that attaching again mends."""
        self._up = self._opening()
        responses = calls.bidirectional_stream(self._method, STREAM, _drain(self._up))
        async with aclosing(responses):
            async for response in responses:
                event = read_event(response)
                match event:
                    case None:
                        continue
                    case End(reason=reason):
                        if reason is EndReason.DRAINING:
                            raise Unavailable("the gateway is shutting down")
                        self._raise_for(event)
                        return event
                    case Chunk():
                        if not self._is_next(event):
                            continue
                    case Rewound():
                        self._received = event.to_chunk
                        for message in self._again.after(event.to_chunk):
                            self._up.put_nowait(message)
                    case Receipt(sequence=sequence):
                        self._unconfirmed.pop(sequence, None)
                retries.succeeded()
                self._down.put_nowait(event)
        if self._reader is None:
            return End(EndReason.CLIENT_CLOSED, "", self._received)
        raise Unavailable("the stream ended without saying why")

    def _is_next(self, chunk: Chunk) -> bool:
        """Whether the chunk is news. Raises Internal if one before it never came."""
        if self._received is not None and chunk.index <= self._received:
            return False
        if self._received is not None and chunk.index != self._received + 1:
            raise Internal(f"the gateway sent chunk {chunk.index} after {self._received}")
        self._received = chunk.index
        self._again.shown(chunk.index)
        return True

    def _opening(self) -> asyncio.Queue[StreamWorldRequest | None]:
        """What a new stream begins with: the Attach, what is not confirmed, and whether the walk is paused."""
        up: asyncio.Queue[StreamWorldRequest | None] = asyncio.Queue()
        up.put_nowait(replace(self._attachment, resume_after=self._received).message())
        for message in self._unconfirmed.values():
            if not self._is_past(message):
                up.put_nowait(message)
        if self._paused:
            up.put_nowait(StreamWorldRequest(pause=stream_pb2.Pause()))
        return up

    def _is_past(self, message: StreamWorldRequest) -> bool:
        scheduled = message.WhichOneof("message") == "control" and message.control.HasField("chunk")
        return scheduled and self._received is not None and message.control.chunk <= self._received

    def _raise_for(self, end: End) -> None:
        match end.reason:
            case EndReason.SUPERSEDED:
                raise Conflict(end.message or "another stream took the world over")
            case EndReason.DELETED:
                raise NotFound(self._attachment.name)
            case EndReason.IDLE | EndReason.ACK_TIMEOUT:
                raise DeadlineExceeded(end.message or f"the gateway ended the stream: {end.reason.value}")
            case EndReason.ERROR:
                raise Internal(end.message or "the world failed")


async def _drain(queue: asyncio.Queue[StreamWorldRequest | None]) -> AsyncIterator[StreamWorldRequest]:
    while (message := await queue.get()) is not None:
        yield message
