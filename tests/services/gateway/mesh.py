"""A whole mesh on loopback: real servers of every service over tiny cores, one or more gateways on one store, and a client."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from PIL import Image

import services.decoder.servicer
import services.planner.servicer
import services.populator.servicer
import services.reconstructor.servicer
from services.common.desk import Desk
from services.gateway.assembly import assemble
from services.gateway.settings import GatewaySettings
from services.gateway.worlds import Worlds
from teleworld._proto.gateway.v1 import stream_pb2, world_pb2, world_service_pb2, world_service_pb2_grpc
from teleworld.rpc.channels import open_channel
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.convert.gateway import write_keys
from teleworld.rpc.server import Server, ServerConfig
from teleworld.scheduling.tasks import Pool
from teleworld.world.controls import Keys
from tests.services.gateway.cores import Field, TinyDecoder, TinyPlanner, TinyPopulator, TinyReconstructor

WEIGHTS = ModelDescription("nano", "digest-of-tiny-cores")
PICTURE = np.linspace(0, 255, 96 * 160 * 3).reshape(96, 160, 3).astype(np.uint8)
REGISTER: dict[Pool, Callable[[Server, Desk[Any]], None]] = {
    Pool.PLANNER: services.planner.servicer.register,
    Pool.POPULATOR: services.populator.servicer.register,
    Pool.RECONSTRUCTOR: services.reconstructor.servicer.register,
    Pool.DECODER: services.decoder.servicer.register,
}


def png(picture: np.ndarray = PICTURE) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "png")
    return buffer.getvalue()


async def start_worker(pool: Pool, core: Any, description: ModelDescription) -> Server:
    """A serving worker of a pool."""
    desk: Desk[Any] = Desk(pool.value, 8)
    server = Server(pool.value, ServerConfig(drain_seconds=1.0))
    REGISTER[pool](server, desk)
    server.on_drain(desk.close)
    await server.start()
    await desk.open(lambda: (description, core))
    server.ready()
    return server


class Client:
    """A client of one gateway."""

    def __init__(self, address: str) -> None:
        self.channel = open_channel(address)
        self.stub = world_service_pb2_grpc.WorldServiceStub(self.channel)

    async def create(self, **fields: Any) -> world_pb2.World:
        """A new world, of seed 7 unless said otherwise."""
        wanted: dict[str, Any] = {"image": png(), "prompt": "a hall", "seed": 7} | fields
        request = world_service_pb2.CreateWorldRequest(**wanted)
        return (await self.stub.CreateWorld(request, timeout=20)).world

    async def get(self, name: str) -> world_pb2.World:
        return (await self.stub.GetWorld(world_service_pb2.GetWorldRequest(name=name), timeout=20)).world

    async def close(self) -> None:
        await self.channel.close()


class Gateway(Client):
    """A serving gateway in this process."""

    def __init__(self, server: Server, worlds: Worlds) -> None:
        super().__init__(server.address)
        self.server = server
        self.worlds = worlds

    async def close(self) -> None:
        await self.channel.close()
        await self.server.drain()
        await self.worlds.close()


class GatewayProcess(Client):
    """A serving gateway in a process of its own."""

    def __init__(self, address: str, process: asyncio.subprocess.Process) -> None:
        super().__init__(address)
        self.process = process

    async def kill(self, number: int = signal.SIGKILL) -> int:
        """End the process with a signal; returns its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()

    async def close(self) -> None:
        await self.channel.close()
        await self.kill()


@dataclass
class Mesh:
    """Workers by pool, and the gateways that were started."""

    redis_url: str
    memory: Field = field(default_factory=Field)
    weights: ModelDescription = WEIGHTS
    workers: dict[Pool, list[Server]] = field(default_factory=dict)
    gateways: list[Gateway] = field(default_factory=list)
    processes: list[GatewayProcess] = field(default_factory=list)

    async def start_workers(self, **counts: int) -> None:
        """One worker of each pool, or as many as `counts` says."""
        for pool in Pool:
            self.workers[pool] = [await self.worker(pool) for _ in range(counts.get(pool.value, 1))]

    async def worker(self, pool: Pool) -> Server:
        cores: dict[Pool, Callable[[], Any]] = {
            Pool.PLANNER: TinyPlanner,
            Pool.POPULATOR: TinyPopulator,
            Pool.RECONSTRUCTOR: lambda: TinyReconstructor(self.memory),
            Pool.DECODER: TinyDecoder,
        }
        return await start_worker(pool, cores[pool](), self.weights)

    async def gateway(self, **settings: Any) -> Gateway:
        """One more gateway on the same store and workers."""
        server, worlds = assemble(GatewaySettings(**self._settings() | settings))
        await server.start()
        await worlds.start()
        server.ready()
        gateway = Gateway(server, worlds)
        self.gateways.append(gateway)
        return gateway

    async def process(self, **settings: Any) -> GatewayProcess:
        """One more gateway, as it is deployed."""
        given = {
            f"TELEWORLD_GATEWAY_{name.upper()}": str(value) for name, value in (self._settings() | settings).items()
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.gateway", env=os.environ | given, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            while (line := json.loads(await process.stdout.readline()))["event"] != "serving":
                pass
        gateway = GatewayProcess(line["address"], process)
        self.processes.append(gateway)
        return gateway

    def _settings(self) -> dict[str, Any]:
        addresses = {
            f"{pool.value}_addresses": ",".join(server.address for server in servers)
            for pool, servers in self.workers.items()
        }
        return {"redis_url": self.redis_url, "drain_seconds": 3.0, "lease_seconds": 2.0} | addresses

    async def all_let_go(self) -> None:
        """Wait until no gateway drives a world."""
        async with asyncio.timeout(5):
            for gateway in self.gateways:
                while gateway.worlds.drives:
                    await gateway.worlds.let_go.next.wait()

    async def close(self) -> None:
        for gateway in (*self.gateways, *self.processes):
            await gateway.close()
        for servers in self.workers.values():
            for server in servers:
                await server.drain()


class Stream:
    """A client's side of StreamWorld. Chunks are acknowledged as they are read, unless `acks` is False."""

    def __init__(self, call: Any, acks: bool = True) -> None:
        self.call = call
        self.acks = acks
        self.chunks: list[stream_pb2.Chunk] = []
        self.receipts: list[stream_pb2.Receipt] = []
        self.heartbeats = 0
        self.end: stream_pb2.End | None = None
        self._sequence = 0

    async def send(self, **message: Any) -> None:
        await self.call.write(world_service_pb2.StreamWorldRequest(**message))

    async def control(self, keys: Keys, chunk: int | None = None) -> int:
        """Send a control; returns its sequence number."""
        self._sequence += 1
        control = stream_pb2.Control(keys=write_keys(keys), sequence=self._sequence, chunk=chunk)
        await self.send(control=control)
        return self._sequence

    async def prompt(self, text: str) -> int:
        self._sequence += 1
        await self.send(prompt=stream_pb2.PromptChange(text=text, sequence=self._sequence))
        return self._sequence

    async def read(self) -> Any:
        """The next message, noted; None at the end of the call."""
        response = await asyncio.wait_for(self.call.read(), 20)
        if response is grpc.aio.EOF:
            return None
        kind = response.WhichOneof("message")
        message = getattr(response, kind)
        match kind:
            case "chunk":
                self.chunks.append(message)
                if self.acks:
                    await self.send(ack=stream_pb2.Ack(chunk=message.index))
            case "receipt":
                self.receipts.append(message)
            case "heartbeat":
                self.heartbeats += 1
            case "end":
                self.end = message
                await self.call.done_writing()
        return message

    async def read_until(self, done: Callable[[Stream], bool]) -> None:
        """Read until `done`, or the end."""
        while not done(self) and await self.read() is not None:
            pass

    async def finish(self) -> list[stream_pb2.Chunk]:
        """Read to the end; the chunks."""
        await self.read_until(lambda stream: False)
        return self.chunks


@asynccontextmanager
async def attached(
    gateway: Client, name: str, *, acks: bool = True, metadata: Any = None, **fields: Any
) -> AsyncIterator[Stream]:
    """A stream that has sent its attach; as fast as can be unless `pace` says otherwise. Cancelled at the end."""
    call = gateway.stub.StreamWorld(metadata=metadata)
    stream = Stream(call, acks)
    wanted: dict[str, Any] = {"name": name, "pace": stream_pb2.PACE_MAX} | fields
    await stream.send(attach=stream_pb2.Attach(**wanted))
    try:
        yield stream
    finally:
        call.cancel()


def essence(chunks: list[stream_pb2.Chunk]) -> list[tuple[int, str, bytes, tuple[float, ...], int]]:
    """What of chunks must be reproducible: everything but timings."""
    return [
        (c.index, c.latent_sha256, c.video, tuple(c.path.camera_to_world_opencv_metres), c.control_sequence)
        for c in chunks
    ]
