"""teleworld.gateway.v1.WorldService: checks, converts, delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from services.gateway import forks, metrics
from services.gateway.messages import write_received, write_world
from services.gateway.states import Birth
from services.gateway.stream import WorldStream, read_attach
from services.gateway.watch import Spectator
from services.gateway.worlds import Worlds
from teleworld._proto.gateway.v1 import world_service_pb2 as pb
from teleworld._proto.gateway.v1 import world_service_pb2_grpc
from teleworld.rpc.convert.common import read_chain
from teleworld.rpc.convert.gateway import read_control
from teleworld.rpc.server import Server
from teleworld.world.errors import InvalidInput
from teleworld.world.identifiers import parse_world_name, world_name

WORLD_SERVICE = "teleworld.gateway.v1.WorldService"
DEFAULT_PAGE, MAX_PAGE = 50, 100


class WorldServicer(world_service_pb2_grpc.WorldServiceServicer):
    """Passes each call to the worlds of this gateway."""

    def __init__(self, worlds: Worlds) -> None:
        self._worlds = worlds

    async def CreateWorld(
        self, request: pb.CreateWorldRequest, context: grpc.aio.ServicerContext
    ) -> pb.CreateWorldResponse:
        birth = Birth(
            image=request.image,
            prompt=request.prompt,
            seed=request.seed if request.HasField("seed") else None,
            model=request.model,
            chain=read_chain(request.chain_mode, "chain_mode") if request.chain_mode else None,
            request_id=request.request_id,
        )
        return pb.CreateWorldResponse(world=write_world(await self._worlds.create(birth)))

    async def GetWorld(self, request: pb.GetWorldRequest, context: grpc.aio.ServicerContext) -> pb.GetWorldResponse:
        return pb.GetWorldResponse(world=write_world(await self._worlds.view(parse_world_name(request.name))))

    async def ListWorlds(
        self, request: pb.ListWorldsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListWorldsResponse:
        if request.page_size > MAX_PAGE:
            raise InvalidInput("page_size", f"at most {MAX_PAGE}, got {request.page_size}")
        after = parse_world_name(request.page_token, "page_token") if request.page_token else ""
        views, last = await self._worlds.page(after, request.page_size or DEFAULT_PAGE)
        token = world_name(last) if last else ""
        return pb.ListWorldsResponse(worlds=[write_world(view) for view in views], next_page_token=token)

    async def DeleteWorld(
        self, request: pb.DeleteWorldRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteWorldResponse:
        await self._worlds.delete(parse_world_name(request.name))
        return pb.DeleteWorldResponse()

    async def ForkWorld(self, request: pb.ForkWorldRequest, context: grpc.aio.ServicerContext) -> pb.ForkWorldResponse:
        source = parse_world_name(request.name)
        view = await forks.fork(self._worlds, source, request.chunk, request.request_id)
        return pb.ForkWorldResponse(world=write_world(view))

    async def ExportMemory(
        self, request: pb.ExportMemoryRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ExportMemoryResponse]:
        at = request.dynamic_at_chunk if request.HasField("dynamic_at_chunk") else None
        async with aclosing(forks.export(self._worlds, parse_world_name(request.name), at)) as pieces:
            async for piece in pieces:
                yield pb.ExportMemoryResponse(ply=piece)

    async def WatchWorld(
        self, request: pb.WatchWorldRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchWorldResponse]:
        after = request.resume_after_chunk if request.HasField("resume_after_chunk") else None
        spectator = Spectator(self._worlds, parse_world_name(request.name), after)
        with self._worlds.watching(spectator):
            async with aclosing(spectator.messages()) as messages:
                async for message in messages:
                    yield message

    async def StreamWorld(
        self, requests: AsyncIterator[pb.StreamWorldRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.StreamWorldResponse]:
        first = await anext(aiter(requests), None)
        if first is None:
            raise InvalidInput("attach", "must be the first message of a stream")
        attach = read_attach(first)
        async with self._worlds.driving(attach.world) as drive:
            stream = WorldStream(self._worlds, drive, attach, self._worlds.settings)
            async with aclosing(stream.messages(requests)) as messages:
                async for message in messages:
                    yield message
            if drive.ending is not None:
                metrics.ends.add(1, {"reason": drive.ending.reason.value})

    async def SendControls(
        self, request: pb.SendControlsRequest, context: grpc.aio.ServicerContext
    ) -> pb.SendControlsResponse:
        world = parse_world_name(request.name)
        controls = [read_control(message, f"controls[{number}]") for number, message in enumerate(request.controls)]
        await self._worlds.control(world, controls)
        return pb.SendControlsResponse(receipts=[write_received(control.sequence) for control in controls])


def register(server: Server, worlds: Worlds) -> None:
    """Serve the worlds on `server`."""
    server.add(world_service_pb2_grpc.add_WorldServiceServicer_to_server, WorldServicer(worlds), WORLD_SERVICE)
