"""A small gateway on a real gRPC server that does to a client what a real one does only on a bad day.

It generates nothing: a chunk is its number. What it was sent is kept, stream by stream, in `streams`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import numpy as np

from teleworld._proto.gateway.v1 import stream_pb2, world_pb2, world_service_pb2_grpc
from teleworld._proto.gateway.v1 import world_service_pb2 as pb
from teleworld._proto.types.v1 import task_pb2
from teleworld.rpc.convert.common import write_path
from teleworld.world.camera import CameraPath
from teleworld.world.errors import InvalidInput, NotFound, TeleWorldError

Answer = pb.StreamWorldResponse


def attached(next_chunk: int) -> Answer:
    codec = stream_pb2.VIDEO_CODEC_H264_ANNEX_B
    message = stream_pb2.Attached(epoch=1, fps_target=17.5, next_chunk=next_chunk, width=320, height=192, codec=codec)
    return Answer(attached=message)


def chunk(index: int, control_sequence: int = 0) -> Answer:
    frames = 1 if index == 0 else 4
    path = CameraPath(np.tile(np.eye(4), (frames, 1, 1)), np.tile([66.7, 80.0, 80.0, 48.0], (frames, 1)))
    message = stream_pb2.Chunk(
        index=index,
        segment=index // 3,
        latent=1 + index % 3,
        first_frame=0 if index == 0 else 4 * index - 3,
        frames=frames,
        video=bytes([index % 256]) * 8,
        path=write_path(path),
        control_sequence=control_sequence,
        latent_sha256=f"{index:064x}",
        stage_ms={"decode": 10.0 + index},
    )
    return Answer(chunk=message)


def receipt(sequence: int, chunk_index: int | None = None) -> Answer:
    state = stream_pb2.Receipt.STATE_RECEIVED if chunk_index is None else stream_pb2.Receipt.STATE_APPLIED
    return Answer(receipt=stream_pb2.Receipt(sequence=sequence, state=state, chunk=chunk_index))


def end(reason: stream_pb2.EndReason.ValueType, message: str = "") -> Answer:
    return Answer(end=stream_pb2.End(reason=reason, message=message))


@dataclass
class Stream:
    """One StreamWorld call: what came up so far. `heard` waits for a message that fulfils a condition."""

    messages: list[pb.StreamWorldRequest] = field(default_factory=list)
    closed: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def attach(self) -> stream_pb2.Attach:
        return self.messages[0].attach

    def kinds(self) -> list[str | None]:
        return [message.WhichOneof("message") for message in self.messages]

    async def heard(self, condition: Callable[[pb.StreamWorldRequest], bool]) -> pb.StreamWorldRequest:
        async with asyncio.timeout(10):
            while True:
                for message in self.messages:
                    if condition(message):
                        return message
                self._news.clear()
                await self._news.wait()

    async def acked(self, index: int) -> None:
        await self.heard(lambda message: message.WhichOneof("message") == "ack" and message.ack.chunk >= index)

    async def wait_closed(self) -> None:
        async with asyncio.timeout(10):
            while not self.closed:
                self._news.clear()
                await self._news.wait()

    async def listen(self, requests: AsyncIterator[pb.StreamWorldRequest]) -> None:
        async for message in requests:
            self.messages.append(message)
            self._news.set()
        self.closed = True
        self._news.set()


Script = Callable[[Stream], AsyncIterator[Answer]]


class Gateway(world_service_pb2_grpc.WorldServiceServicer):
    """Answers the n-th StreamWorld call by the n-th of `scripts`. `fail` holds errors for the next unary calls."""

    def __init__(self) -> None:
        self.worlds: dict[str, world_pb2.World] = {}
        self.requests: list[object] = []
        self.fail: list[TeleWorldError] = []
        self.scripts: list[Script] = []
        self.streams: list[Stream] = []

    def _note(self, request: object) -> None:
        self.requests.append(request)
        if self.fail:
            raise self.fail.pop(0)

    def _find(self, name: str) -> world_pb2.World:
        if name not in self.worlds:
            raise NotFound(name)
        return self.worlds[name]

    def _add(self, **fields: object) -> world_pb2.World:
        name = f"worlds/{len(self.worlds)}"
        world = world_pb2.World(
            name=name, state=world_pb2.WORLD_STATE_READY, fps=17.5, width=320, height=192, model="nano", **fields
        )
        self.worlds[name] = world
        return world

    async def CreateWorld(
        self, request: pb.CreateWorldRequest, context: grpc.aio.ServicerContext
    ) -> pb.CreateWorldResponse:
        self._note(request)
        if not request.image:
            raise InvalidInput("image", "must be a PNG or JPEG picture")
        chain = request.chain_mode or task_pb2.CHAIN_MODE_T_B
        return pb.CreateWorldResponse(world=self._add(seed=request.seed, prompt=request.prompt, chain_mode=chain))

    async def GetWorld(self, request: pb.GetWorldRequest, context: grpc.aio.ServicerContext) -> pb.GetWorldResponse:
        self._note(request)
        return pb.GetWorldResponse(world=self._find(request.name))

    async def ListWorlds(
        self, request: pb.ListWorldsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListWorldsResponse:
        self._note(request)
        worlds, start = list(self.worlds.values()), int(request.page_token or 0)
        stop = start + request.page_size
        return pb.ListWorldsResponse(worlds=worlds[start:stop], next_page_token=str(stop) if stop < len(worlds) else "")

    async def DeleteWorld(
        self, request: pb.DeleteWorldRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteWorldResponse:
        self._find(request.name)
        del self.worlds[request.name]
        self._note(request)
        return pb.DeleteWorldResponse()

    async def ForkWorld(self, request: pb.ForkWorldRequest, context: grpc.aio.ServicerContext) -> pb.ForkWorldResponse:
        self._note(request)
        source = self._find(request.name)
        fork = self._add(chain_mode=source.chain_mode, forked_from=source.name, forked_at_chunk=request.chunk)
        return pb.ForkWorldResponse(world=fork)

    async def ExportMemory(
        self, request: pb.ExportMemoryRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ExportMemoryResponse]:
        self._note(request)
        self._find(request.name)
        for piece in (b"ply\n", b"points"):
            yield pb.ExportMemoryResponse(ply=piece)

    async def StreamWorld(
        self, requests: AsyncIterator[pb.StreamWorldRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Answer]:
        stream = Stream()
        self.streams.append(stream)
        script = self.scripts[len(self.streams) - 1]
        listening = asyncio.create_task(stream.listen(requests))
        try:
            await stream.heard(lambda message: message.WhichOneof("message") == "attach")
            async for answer in script(stream):
                yield answer
        finally:
            listening.cancel()
