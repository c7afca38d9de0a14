"""`WorldClient`: the unary side of the gateway's API, and the way to a walk.

Every call is idempotent (creation and forks by a request id, drawn if none is given), so each is tried again while the
gateway is away, within `Patience`. One client holds one connection; it is used on the event loop that made it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from teleworld._proto.gateway.v1 import world_service_pb2 as pb
from teleworld._proto.gateway.v1 import world_service_pb2_grpc
from teleworld.client.events import Pace, World
from teleworld.client.messages import read_world
from teleworld.client.retry import Patience, persist
from teleworld.client.walk import Attachment, Walk
from teleworld.rpc import calls
from teleworld.rpc.channels import open_channel
from teleworld.rpc.convert.common import write_chain
from teleworld.world.errors import NotFound
from teleworld.world.timeline import ChainMode

SERVICE = "teleworld.gateway.v1.WorldService"
EXPORT_TIMEOUT_S = 300.0
# A gateway that stands still says nothing: people should not look at a frozen picture for as long as a service may wait.
_NOTICE_SILENCE = (
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
)
Result = TypeVar("Result")


class WorldClient:
    """A client of the gateway at `address`: `host:port`, or any gRPC target, such as `ipv4:host:port,host:port` for replicas.

    timeout_s: of each attempt of a call. token: an API key, a token of the identity provider, or one for a world. authority:
    PEM bytes of the authority that signed the gateway's certificate, or True for those that the system trusts; None speaks
    plaintext. Use as `async with WorldClient(...) as client`, or call `close`.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 30.0,
        patience: Patience | None = None,
        token: str = "",
        authority: bytes | bool | None = None,
    ) -> None:
        self.address = address
        self._timeout = timeout_s
        self._patience = patience or Patience()
        credentials = grpc.ssl_channel_credentials(authority if isinstance(authority, bytes) else None)
        self._channel = open_channel(
            address, _NOTICE_SILENCE, credentials=credentials if authority else None, token=token
        )
        self._stub = world_service_pb2_grpc.WorldServiceStub(self._channel)

    async def __aenter__(self) -> WorldClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; walks under way end with Unavailable."""
        await self._channel.close()

    async def create_world(
        self,
        image: bytes,
        *,
        prompt: str = "",
        seed: int | None = None,
        model: str = "",
        chain: ChainMode | None = None,
        request_id: str = "",
        reanchor: bool | None = None,
    ) -> World:
        """A world that starts from a PNG or JPEG picture.

        seed: drawn by the server if None. model: the server's own if empty. chain: the server's default, t_b, if None.
        reanchor: whether a live key may end a segment early to be seen sooner; the server's default, yes, if None.
        An equal `request_id` answers the world that was made before. Raises InvalidInput naming the field.
        """
        message = pb.CreateWorldRequest(
            image=image,
            prompt=prompt,
            seed=seed,
            model=model,
            request_id=request_id or token_hex(16),
            reanchor=reanchor,
        )
        if chain is not None:
            message.chain_mode = write_chain(chain)
        return await self._world("CreateWorld", message)

    async def get_world(self, name: str) -> World:
        """The world `worlds/{id}`. Raises NotFound."""
        return await self._world("GetWorld", pb.GetWorldRequest(name=name))

    async def list_worlds(self, page_size: int = 50) -> AsyncIterator[World]:
        """All worlds, oldest first, fetched page by page."""
        token = ""
        while True:
            message = pb.ListWorldsRequest(page_size=page_size, page_token=token)
            worlds, token = await self._call("ListWorlds", message, _read_page)
            for world in worlds:
                yield world
            if not token:
                return

    async def delete_world(self, name: str) -> None:
        """End the world's streams and drop all that is stored of it. Raises NotFound."""
        tried = False

        async def delete() -> None:
            nonlocal tried
            first, tried = not tried, True
            try:
                message = pb.DeleteWorldRequest(name=name)
                await calls.unary(self._stub.DeleteWorld, f"{SERVICE}/DeleteWorld", message, self._timeout, _nothing)
            except NotFound:
                if first:
                    raise  # else the attempt before did it, and its answer was lost

        await persist(delete, self._patience)

    async def fork_world(self, name: str, chunk: int, *, request_id: str = "") -> World:
        """A world that shares the past of `name` up to and including `chunk`.

        Raises NotFound, or PreconditionFailed when the chunk is beyond the retention horizon.
        """
        message = pb.ForkWorldRequest(name=name, chunk=chunk, request_id=request_id or token_hex(16))
        return await self._world("ForkWorld", message)

    async def export_memory(self, name: str, *, dynamic_at_chunk: int | None = None) -> AsyncIterator[bytes]:
        """The points of the 4D memory as the pieces of a PLY file, with the dynamic ones of a chunk on request."""
        message = pb.ExportMemoryRequest(name=name, dynamic_at_chunk=dynamic_at_chunk)
        method, span = self._stub.ExportMemory, f"{SERVICE}/ExportMemory"
        async for response in calls.server_stream(method, span, message, EXPORT_TIMEOUT_S):
            yield response.ply

    async def save_memory(self, name: str, path: str | os.PathLike[str], *, dynamic_at_chunk: int | None = None) -> int:
        """Write `export_memory` to a file, which appears when it is complete. Returns its size in bytes."""
        target, size = Path(path), 0
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        try:
            with await asyncio.to_thread(open, descriptor, "wb") as file:
                async for piece in self.export_memory(name, dynamic_at_chunk=dynamic_at_chunk):
                    size += await asyncio.to_thread(file.write, piece)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
        return size

    def walk(
        self,
        name: str,
        *,
        pace: Pace = Pace.REALTIME,
        resume_after: int | None = None,
        until: int | None = None,
        credit: int = 8,
        acknowledge: bool = True,
        sequence: int = 0,
    ) -> Walk:
        """Walk through the world `name`: `async with client.walk(name) as walk`.

        resume_after: the last chunk that is known already; None continues after the last acknowledged one.
        until: the last chunk that is wanted. credit: chunks that may be under way unacknowledged, 1 to 64.
        acknowledge: chunks are acknowledged as they are taken from the iterator; otherwise call `Walk.ack`, for example
        when a chunk was played. sequence: the newest control sequence number that earlier walks of this world used.
        """
        attachment = Attachment(name, pace, resume_after, until, credit)
        return Walk(self._stub.StreamWorld, attachment, self._patience, acknowledge=acknowledge, sequence=sequence)

    async def _world(self, method: str, message: Message) -> World:
        return await self._call(method, message, lambda response: read_world(response.world))

    async def _call(self, method: str, message: Message, read: Callable[[Any], Result]) -> Result:
        stub = getattr(self._stub, method)
        name = f"{SERVICE}/{method}"
        return await persist(lambda: calls.unary(stub, name, message, self._timeout, read), self._patience)


def _read_page(response: pb.ListWorldsResponse) -> tuple[list[World], str]:
    return [read_world(world) for world in response.worlds], response.next_page_token


def _nothing(response: object) -> None:
    """The answer has no content."""
