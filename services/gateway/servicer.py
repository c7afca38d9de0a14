"""teleworld.gateway.v1.WorldService: asks who calls, checks, converts, delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc

from services.gateway import forks, metrics
from services.gateway.access.callers import Caller, Permission
from services.gateway.access.door import Door
from services.gateway.access.quotas import room_of
from services.gateway.access.tokens import MAX_WORLD_TOKEN_SECONDS
from services.gateway.endings import Reason
from services.gateway.messages import write_received, write_world
from services.gateway.states import Birth, Room
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
DEFAULT_TOKEN_SECONDS = 900
_PERMISSIONS = {
    pb.PERMISSION_READ: Permission.READ,
    pb.PERMISSION_CONTROL: Permission.CONTROL,
    pb.PERMISSION_DELETE: Permission.DELETE,
}


class WorldServicer(world_service_pb2_grpc.WorldServiceServicer):
    """Passes each call to the worlds of this gateway, once the door has let its caller in."""

    def __init__(self, worlds: Worlds, door: Door) -> None:
        self._worlds = worlds
        self._door = door

    async def CreateWorld(
        self, request: pb.CreateWorldRequest, context: grpc.aio.ServicerContext
    ) -> pb.CreateWorldResponse:
        caller = await self._door.enter(context, Permission.CREATE)
        birth = Birth(
            tenant=caller.tenant,
            image=request.image,
            prompt=request.prompt,
            seed=request.seed if request.HasField("seed") else None,
            model=request.model,
            chain=read_chain(request.chain_mode, "chain_mode") if request.chain_mode else None,
            request_id=request.request_id,
            reanchor=request.reanchor if request.HasField("reanchor") else True,
        )
        return pb.CreateWorldResponse(world=write_world(await self._worlds.create(birth, self._room(caller))))

    async def GetWorld(self, request: pb.GetWorldRequest, context: grpc.aio.ServicerContext) -> pb.GetWorldResponse:
        world = await self._enter(context, Permission.READ, request.name)
        return pb.GetWorldResponse(world=write_world(await self._worlds.view(world)))

    async def ListWorlds(
        self, request: pb.ListWorldsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListWorldsResponse:
        caller = await self._door.enter(context, Permission.READ)
        if request.page_size > MAX_PAGE:
            raise InvalidInput("page_size", f"at most {MAX_PAGE}, got {request.page_size}")
        after = parse_world_name(request.page_token, "page_token") if request.page_token else ""
        views, last = await self._worlds.page(caller.tenant, after, request.page_size or DEFAULT_PAGE)
        token = world_name(last) if last else ""
        return pb.ListWorldsResponse(worlds=[write_world(view) for view in views], next_page_token=token)

    async def DeleteWorld(
        self, request: pb.DeleteWorldRequest, context: grpc.aio.ServicerContext
    ) -> pb.DeleteWorldResponse:
        await self._worlds.delete(await self._enter(context, Permission.DELETE, request.name))
        return pb.DeleteWorldResponse()

    async def ForkWorld(self, request: pb.ForkWorldRequest, context: grpc.aio.ServicerContext) -> pb.ForkWorldResponse:
        source = parse_world_name(request.name)
        await self._door.enter(context, Permission.READ, source)
        caller = await self._door.enter(context, Permission.CREATE)
        view = await forks.fork(self._worlds, source, request.chunk, request.request_id, self._room(caller))
        return pb.ForkWorldResponse(world=write_world(view))

    async def ExportMemory(
        self, request: pb.ExportMemoryRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ExportMemoryResponse]:
        at = request.dynamic_at_chunk if request.HasField("dynamic_at_chunk") else None
        world = await self._enter(context, Permission.READ, request.name)
        async with aclosing(forks.export(self._worlds, world, at)) as pieces:
            async for piece in pieces:
                yield pb.ExportMemoryResponse(ply=piece)

    async def WatchWorld(
        self, request: pb.WatchWorldRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchWorldResponse]:
        after = request.resume_after_chunk if request.HasField("resume_after_chunk") else None
        spectator = Spectator(self._worlds, await self._enter(context, Permission.READ, request.name), after)
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
        caller = await self._door.enter(context, Permission.CONTROL, attach.world)
        async with (
            self._door.driving(caller, attach.world, await self._fps(caller, attach.world), self._lease),
            self._worlds.driving(attach.world) as drive,
        ):
            stream = WorldStream(self._worlds, drive, attach, self._worlds.settings)
            try:
                async with aclosing(stream.messages(requests)) as messages:
                    async for message in messages:
                        yield message
            finally:  # most clients go as soon as they have read the end
                reason = Reason.CLIENT_CLOSED if drive.ending is None else drive.ending.reason
                metrics.ends.add(1, {"reason": reason.value})

    async def SendControls(
        self, request: pb.SendControlsRequest, context: grpc.aio.ServicerContext
    ) -> pb.SendControlsResponse:
        world = parse_world_name(request.name)
        caller = await self._door.enter(context, Permission.CONTROL, world)
        await self._door.touch(caller, world, await self._fps(caller, world), self._worlds.settings.solo_idle_seconds)
        controls = [read_control(message, f"controls[{number}]") for number, message in enumerate(request.controls)]
        await self._worlds.control(world, controls)
        return pb.SendControlsResponse(receipts=[write_received(control.sequence) for control in controls])

    async def CreateWorldToken(
        self, request: pb.CreateWorldTokenRequest, context: grpc.aio.ServicerContext
    ) -> pb.CreateWorldTokenResponse:
        world = parse_world_name(request.name)
        caller = await self._door.enter(context, Permission.TOKEN, world)
        if request.ttl_seconds > MAX_WORLD_TOKEN_SECONDS:
            raise InvalidInput("ttl_seconds", f"at most {MAX_WORLD_TOKEN_SECONDS}, got {request.ttl_seconds}")
        unknown = [number for number in request.permissions if number not in _PERMISSIONS]
        if unknown:
            raise InvalidInput("permissions", f"unknown permission {unknown[0]}")
        await self._worlds.store.record(world)
        wanted = frozenset(_PERMISSIONS[number] for number in request.permissions or (pb.PERMISSION_READ,))
        token, expires = await self._door.tokens.issue(
            caller, world, wanted, request.ttl_seconds or DEFAULT_TOKEN_SECONDS
        )
        return pb.CreateWorldTokenResponse(token=token, expire_time=expires)

    async def _enter(self, context: grpc.aio.ServicerContext, permission: Permission, name: str) -> str:
        """The id of the world that `name` names, once its caller may do this."""
        world = parse_world_name(name)
        await self._door.enter(context, permission, world)
        return world

    def _room(self, caller: Caller) -> Room:
        """What the caller's tenant has room for."""
        return room_of(caller.quota, self._worlds.settings.world_bytes)

    async def _fps(self, caller: Caller, world: str) -> float:
        """The frame rate that a driven world counts with; not looked up where nothing is counted."""
        if caller.quota.streams is None and caller.quota.fps is None:
            return 0.0
        return (await self._worlds.store.record(world)).spec.fps

    @property
    def _lease(self) -> float:
        return self._worlds.settings.lease_seconds


def register(server: Server, worlds: Worlds, door: Door) -> None:
    """Serve the worlds on `server`."""
    servicer = WorldServicer(worlds, door)
    server.add(world_service_pb2_grpc.add_WorldServiceServicer_to_server, servicer, WORLD_SERVICE)
