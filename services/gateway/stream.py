"""One StreamWorld call: what the client says goes to the drive, what the drive makes goes to the client, within its credit.

Two tasks: `_listen` takes the client's messages in, `messages` writes. They meet in this object's fields and its bell.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from services.gateway import metrics
from services.gateway.clock import now
from services.gateway.drive import Drive, limits_of
from services.gateway.endings import Ending, Reason
from services.gateway.messages import (
    write_applied,
    write_attached,
    write_chunk,
    write_end,
    write_heartbeat,
    write_received,
)
from services.gateway.playback import Playback
from services.gateway.settings import GatewaySettings
from services.gateway.worlds import MAX_PROMPT, Worlds
from teleworld._proto.gateway.v1 import stream_pb2, world_service_pb2
from teleworld.rpc.convert.gateway import read_control
from teleworld.world.errors import InvalidInput, NotFound, PreconditionFailed, StaleEpoch
from teleworld.world.identifiers import parse_world_name

Up = world_service_pb2.StreamWorldRequest
Down = world_service_pb2.StreamWorldResponse
DEFAULT_CREDIT, MAX_CREDIT = 8, 64
SETTLE_SECONDS, MAX_SETTLE_SECONDS = 0.03, 0.5
LINGER_SECONDS = 1.0
"""How long a call stays open after its `End` for the client to close its side: what a client writes to a call that is over
makes gRPC drop what it has not read yet, the `End` included.
"""


@dataclass(frozen=True)
class Attach:
    """What the client asks for, checked. resume_after, until: chunk numbers. realtime: paced like a player."""

    world: str
    resume_after: int | None
    until: int | None
    realtime: bool
    credit: int


def read_attach(message: Up) -> Attach:
    """Raises InvalidInput for anything but a proper attach message."""
    if message.WhichOneof("message") != "attach":
        raise InvalidInput("attach", "must be the first message of a stream")
    attach = message.attach
    if attach.pace not in stream_pb2.Pace.values():
        raise InvalidInput("attach.pace", f"unknown pace {attach.pace}")
    if attach.credit > MAX_CREDIT:
        raise InvalidInput("attach.credit", f"at most {MAX_CREDIT}, got {attach.credit}")
    return Attach(
        world=parse_world_name(attach.name, "attach.name"),
        resume_after=attach.resume_after_chunk if attach.HasField("resume_after_chunk") else None,
        until=attach.until_chunk if attach.HasField("until_chunk") else None,
        realtime=attach.pace != stream_pb2.PACE_MAX,
        credit=attach.credit or DEFAULT_CREDIT,
    )


class WorldStream:
    """The state of one call. `messages` is its answer; it ends after an `End`, or raises what the client did wrong."""

    def __init__(self, worlds: Worlds, drive: Drive, attach: Attach, settings: GatewaySettings) -> None:
        self._worlds = worlds
        self._drive = drive
        self._attach = attach
        self._settings = settings
        # Chunk 0 hangs on nothing but the record, so a client that has it may keep it.
        self._stands = max(drive.head, 1)
        self._rewound = attach.resume_after is not None and attach.resume_after >= self._stands
        self._next = self._first_chunk()
        if attach.until is not None and attach.until < self._next - 1:
            raise InvalidInput("attach.until_chunk", f"chunk {attach.until} is before chunk {self._next}, the next one")
        self._acked = self._next
        self._playback = Playback(self._next, drive.record.spec.fps if attach.realtime else None)
        self._receipts: deque[stream_pb2.Receipt] = deque()
        self._sequence = 0
        self._paused = False
        self._heard = self._credited = now()
        self._failure: Exception | None = None
        self._closed = False

    def _first_chunk(self) -> int:
        drive, after = self._drive, self._attach.resume_after
        first = drive.acked if after is None else min(after + 1, self._stands)
        if first < drive.oldest:
            raise PreconditionFailed(
                f"chunk {first} is beyond the retention horizon; the oldest one kept is {drive.oldest}"
            )
        return first

    # -- down ---------------------------------------------------------------------------------------------------------

    async def messages(self, requests: AsyncIterator[Up]) -> AsyncGenerator[Down, None]:
        """Everything that is sent to the client."""
        drive, attach = self._drive, self._attach
        drive.on_applied = self._applied
        limits = limits_of(drive.record, realtime=attach.realtime)
        drive.ack(self._next)
        listening = asyncio.create_task(self._listen(requests))
        try:
            yield Down(attached=write_attached(drive.record, drive.epoch, self._next))
            if self._rewound:
                yield Down(rewound=stream_pb2.Rewound(to_chunk=self._stands - 1))
            await self._settle()
            drive.start(limits, None if attach.until is None else attach.until + 1)
            drive.pause(self._paused)
            async for message in self._feed():
                yield message
            await asyncio.wait((listening,), timeout=LINGER_SECONDS)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def _settle(self) -> None:
        """Wait for a short silence: what the client sent along with its attach counts before the first keys are bound.

        So does what it says again because it was rewound, for which it is given a little time.
        """
        began = now()
        latest = began + MAX_SETTLE_SECONDS
        while True:
            unheard = self._rewound and self._heard < began
            if (rest := (latest if unheard else min(self._heard + SETTLE_SECONDS, latest)) - now()) <= 0:
                return
            await self._drive.changed.next.wait(rest)

    async def _feed(self) -> AsyncGenerator[Down, None]:
        drive, sent = self._drive, now()
        while True:
            ring = drive.changed.next
            while self._receipts:
                yield Down(receipt=self._receipts.popleft())
                sent = now()
            if self._failure is not None and drive.ending is None:
                raise self._failure
            if self._may_send():
                yield Down(chunk=await self._chunk())
                sent = now()
                continue
            if (ending := self._ending(now())) is not None:
                drive.end(ending.reason)
                if ending.error is not None:
                    raise ending.error
                yield Down(end=write_end(ending, self._next - 1 if self._next else None))
                return
            if now() - sent >= self._settings.heartbeat_seconds:
                yield Down(heartbeat=write_heartbeat())
                sent = now()
            drive.played(self._playback.played(now()))
            await ring.wait(self._wake(sent) - now())

    def _may_send(self) -> bool:
        attach, drive = self._attach, self._drive
        wanted = attach.until is None or self._next <= attach.until
        ready = self._next < drive.head and drive.ending is None and not self._closed
        return ready and wanted and not self._paused and self._next - self._acked < attach.credit

    async def _chunk(self) -> stream_pb2.Chunk:
        chunk = await self._drive.chunk(self._next)
        received, moment = self._drive.reflected(chunk.index), now()
        latency = None if received is None else (moment - received) * 1e3
        if latency is not None:
            metrics.key_to_frame_seconds.record(latency / 1e3, context=self._drive.trace_of(chunk.index))
        on_time = not self._playback.dry(moment) if self._attach.realtime and not self._paused else None
        self._worlds.usage.sent(self._drive.record.world, chunk.frames, on_time)
        self._playback.sent(chunk.index, chunk.frames)
        self._next += 1
        if self._next - self._acked >= self._attach.credit:
            self._credited = moment
        return write_chunk(chunk, latency)

    def _ending(self, moment: float) -> Ending | None:
        attach, settings = self._attach, self._settings
        if self._drive.ending is not None:
            return self._drive.ending
        if self._closed:
            return Ending(Reason.CLIENT_CLOSED)
        if attach.until is not None and self._next > attach.until:
            return Ending(Reason.REACHED_END)
        if self._starved() and moment - self._credited >= settings.ack_timeout_seconds:
            return Ending(Reason.ACK_TIMEOUT, f"no ack in {settings.ack_timeout_seconds:g} s")
        if moment - self._heard >= settings.idle_timeout_seconds:
            return Ending(Reason.IDLE, f"nothing was heard in {settings.idle_timeout_seconds:g} s")
        return None

    def _starved(self) -> bool:
        return not self._paused and self._next - self._acked >= self._attach.credit

    def _wake(self, sent: float) -> float:
        """When something is to be done though nothing rings."""
        settings = self._settings
        times = [sent + settings.heartbeat_seconds, self._heard + settings.idle_timeout_seconds]
        if self._starved():
            times.append(self._credited + settings.ack_timeout_seconds)
        if (due := self._playback.due(now())) is not None:
            times.append(due)
        return min(times)

    def _applied(self, sequence: int, chunk: int) -> None:
        self._receipts.append(write_applied(sequence, chunk))
        self._drive.changed.ring()

    # -- up -----------------------------------------------------------------------------------------------------------

    async def _listen(self, requests: AsyncIterator[Up]) -> None:
        try:
            async for message in requests:
                self._heard = now()
                await self._take(message)
                self._drive.changed.ring()
        except (StaleEpoch, NotFound) as error:
            self._drive.fail(error)
        except Exception as error:  # noqa: BLE001 - `_feed` raises it, in the call's own task
            self._failure = error
        self._closed = True
        self._drive.changed.ring()

    async def _take(self, message: Up) -> None:
        match message.WhichOneof("message"):
            case "control":
                received, control = now(), read_control(message.control)
                self._in_order(control.sequence, "control.sequence")
                await self._drive.control(control, received)
                self._receipts.append(write_received(control.sequence))
            case "prompt":
                await self._take_prompt(message.prompt)
            case "ack":
                self._take_ack(message.ack.chunk)
            case "pause":
                self._pause(True)
            case "resume":
                self._pause(False)
            case "attach":
                raise InvalidInput("attach", "the stream is attached already")
            case None:
                raise InvalidInput("message", "is empty")

    async def _take_prompt(self, change: stream_pb2.PromptChange) -> None:
        if len(change.text) > MAX_PROMPT:
            raise InvalidInput("prompt.text", f"at most {MAX_PROMPT} characters, got {len(change.text)}")
        self._in_order(change.sequence, "prompt.sequence")
        prompt = await self._worlds.embed(change.text, self._drive.record.weights)
        await self._drive.prompt(prompt, change.sequence)
        self._receipts.append(write_received(change.sequence))

    def _take_ack(self, chunk: int) -> None:
        if chunk >= self._next:
            raise InvalidInput("ack.chunk", f"chunk {chunk} was not sent; the next one is {self._next}")
        if chunk >= self._acked:
            self._acked, self._credited = chunk + 1, now()
            self._playback.acked(self._acked, now())
            self._drive.ack(self._acked)

    def _pause(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            (self._playback.pause if paused else self._playback.resume)(now())
            self._credited = now()
            self._drive.pause(paused)

    def _in_order(self, sequence: int, field: str) -> None:
        if sequence <= self._sequence and not self._rewound:  # then what was said before is said again
            raise InvalidInput(field, f"must grow: {sequence} comes after {self._sequence}")
        self._sequence = sequence
