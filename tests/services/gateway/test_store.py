"""The store by itself: what is written is read, whole or not at all, by the holder of the lease alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from services.gateway import codec
from services.gateway.scripts import PREFIX
from services.gateway.states import Retention, State
from services.gateway.store import Store
from teleworld.runtime.records import Binding, Chunk, Fork, Memory, Plan, WorldRecord
from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.controls import Control, Keys
from teleworld.world.errors import Internal, NotFound, StaleEpoch, Unavailable
from teleworld.world.identifiers import new_world_id
from teleworld.world.timeline import ChainMode
from teleworld.world.walker import Walker
from teleworld.world.work import Prompt

RANDOM = np.random.default_rng(1)
PROMPT = Prompt("a hall", RANDOM.standard_normal((4, 8), dtype=np.float32))


def floats(*shape: int) -> Any:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def record(**changes: Any) -> WorldRecord:
    born = WorldRecord(
        world=new_world_id(),
        model="nano",
        weights="digest",
        seed=2**64 - 1,
        chain=ChainMode.T_B,
        prompt=PROMPT,
        picture=RANDOM.integers(0, 255, (96, 160, 3), dtype=np.uint8),
        created=1.5,
        request_id="",
    )
    return replace(born, **changes)


def binding(segment: int, prompt: Prompt = PROMPT) -> Binding:
    walkers = tuple(Walker(x=0.1 * n, yaw=1 / 3) for n in range(21))
    return Binding(segment, (Keys.W, Keys.A | Keys.UP), (1, 2), walkers, segment, 0.7, prompt)


def memory(revision: int) -> Memory:
    return Memory(revision, Clearance((-1.5, 2.5), 0.25, floats(5, 7) > 0), 0.7, 1000 + revision, 10)


def chunk(index: int, size: int = 100) -> Chunk:
    path = CameraPath(np.tile(np.eye(4), (4, 1, 1)), np.ones((4, 4)))
    video = RANDOM.integers(0, 255, size, dtype=np.uint8).tobytes()
    return Chunk(index, 0, 2, 1, 4, 320, 192, video, path, Keys.D, 3, "ab" * 32, {"plan": 1.25})


def same(one: Any, two: Any) -> bool:
    """Equality of records, arrays by content."""
    if isinstance(one, np.ndarray):
        return one.dtype == two.dtype and np.array_equal(one, two)
    if hasattr(one, "__dataclass_fields__"):
        return all(same(getattr(one, name), getattr(two, name)) for name in one.__dataclass_fields__)
    return bool(one == two)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    store = Store(redis_url, Retention(chunks=4, nbytes=10_000, segments=3))
    yield store
    await store.close()


@pytest.mark.parametrize("fork", [None, Fork("a" * 26, 9, Walker(1.0, 2.0, 3.0, 4.0, 5.0), 3, 0.9)])
def test_records_survive_as_bytes(fork: Fork | None) -> None:
    born = record(fork=fork)
    assert same(codec.read_record(codec.write_record(born)), born)
    bound = binding(4)
    assert codec.read_binding(codec.write_binding(bound, "key"), {"key": PROMPT}) == bound
    plan = Plan(4, floats(3, 2, 2), floats(3, 3, 2, 2), floats(3, 2, 2))
    assert same(codec.read_plan(codec.write_plan(plan)), plan)
    for room in (memory(2), replace(memory(2), clearance=Clearance.open())):
        assert same(codec.read_memory(codec.write_memory(room)), room)
    piece = chunk(5)
    assert same(codec.read_chunk(codec.write_chunk(piece)), piece)
    controls = (Control(1, Keys.W, 2**40), Control(2**63, Keys.NONE), Control(3, Keys.DOWN, 0))
    assert codec.read_controls(codec.write_controls(controls)) == controls


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"XXX" + data[3:],
        lambda data: data[:3] + bytes([9]) + data[4:],
        lambda data: data.replace(b'"f4"', b'"O8"', 1),
        lambda data: data.replace(b'"kind":"plan"', b'"kind":"plot"', 1),
        lambda data: data.replace(b"[3,2,2]", b"[3,2,9]", 1),
        lambda data: data.replace(b"[3,2,2]", b"[3,-2]", 1),
    ],
)
def test_damaged_bytes_are_refused(damage: Any) -> None:
    data = codec.write_plan(Plan(4, floats(3, 2, 2), floats(3, 3, 2, 2), floats(3, 2, 2)))
    with pytest.raises(Internal):
        codec.read_plan(damage(data))


async def test_a_log_is_read_back_as_it_was_written(store: Store) -> None:
    born = record()
    assert await store.create(born)
    assert not await store.create(born)
    epoch = await store.acquire(born.world, 5)
    other = Prompt("a cave", floats(4, 8))
    plan = Plan(0, floats(3, 2, 2), floats(3, 3, 2, 2), floats(3, 2, 2))
    waiting = (Control(7, Keys.W, 12), Control(8, Keys.A))
    await store.memory(born.world, epoch, memory(0))
    await store.bind(born.world, epoch, binding(0), waiting)
    await store.plan(born.world, epoch, plan)
    await store.memory(born.world, epoch, memory(1))
    await store.control(born.world, epoch, Control(9, Keys.S))
    await store.prompt(born.world, epoch, other)
    state = await store.state(born.world)
    assert (state.epoch, state.leased, state.segment, state.revision) == (epoch, True, 0, 1)
    assert (state.static_points, state.prompt_text) == (1001, "a cave")
    log = await store.log(born.world, state, 0)
    assert same(log.bindings[0], binding(0))
    assert same(log.plans[0], plan)
    assert set(log.memory) == {0, 1}
    assert log.controls == (*waiting, Control(9, Keys.S))
    assert same(log.prompt, other)


async def test_the_log_and_the_chunks_have_a_horizon(store: Store) -> None:
    world = (born := record()).world
    await store.create(born)
    epoch = await store.acquire(world, 5)
    for segment in range(8):
        prompt = Prompt(f"prompt {segment // 2}", floats(4, 8))
        await store.memory(world, epoch, memory(segment))
        await store.bind(world, epoch, binding(segment, prompt), ())
    log = await store.log(world, await store.state(world), 0)
    assert set(log.bindings) == {5, 6, 7}
    assert set(log.memory) == {5, 6, 7}
    for index in range(6):
        await store.put_chunk(world, epoch, chunk(index))
    state = await store.state(world)
    assert (state.oldest, state.head) == (2, 6)
    assert await store.chunk(world, 1) is None
    await store.put_chunk(world, epoch, chunk(6, 9000))
    state = await store.state(world)
    assert (state.oldest, state.head) == (6, 7)


async def test_what_follows_something_that_was_lost_is_refused_and_not_written(store: Store) -> None:
    world = (born := record()).world
    await store.create(born)
    epoch = await store.acquire(world, 5)
    await store.bind(world, epoch, binding(0), ())
    await store.put_chunk(world, epoch, chunk(0))
    await store.put_chunk(world, epoch, chunk(0))
    before = await store.state(world)
    for write in (
        store.put_chunk(world, epoch, chunk(2)),
        store.bind(world, epoch, binding(2), ()),
        store.ack(world, epoch + 1, 1),
    ):
        with pytest.raises(Unavailable, match="lost"):
            await write
    assert await store.state(world) == before
    assert await store.chunk(world, 2) is None


async def test_every_write_is_fenced(store: Store) -> None:
    world = (born := record()).world
    await store.create(born)
    old = await store.acquire(world, 5)
    new = await store.acquire(world, 5)
    before = await store.state(world)
    writes = [
        lambda epoch: store.bind(world, epoch, binding(0), ()),
        lambda epoch: store.plan(world, epoch, Plan(0, floats(1), floats(1), floats(1))),
        lambda epoch: store.memory(world, epoch, memory(0)),
        lambda epoch: store.put_chunk(world, epoch, chunk(0)),
        lambda epoch: store.control(world, epoch, Control(1, Keys.W)),
        lambda epoch: store.prompt(world, epoch, PROMPT),
        lambda epoch: store.ack(world, epoch, 1),
        lambda epoch: store.renew(world, epoch, 5),
        lambda epoch: store.release(world, epoch),
    ]
    for write in writes:
        with pytest.raises(StaleEpoch) as caught:
            await write(old)
        assert caught.value.current == new
    assert await store.state(world) == before
    await store.delete(born)
    for write in writes:
        with pytest.raises(NotFound):
            await write(new)
    assert await store.state(world) == State()


async def test_a_lease_ends_when_it_is_given_back_or_its_time_is_over(store: Store) -> None:
    world = (born := record()).world
    await store.create(born)
    assert await store.acquire(world, 0.01) == 1
    while (await store.state(world)).leased:
        pass
    assert await store.acquire(world, 60) == 2
    assert (await store.state(world)).leased
    await store.release(world, 2)
    assert not (await store.state(world)).leased


async def test_worlds_expire_and_leave_the_list(redis_url: str) -> None:
    store = Store(redis_url, Retention(world_seconds=0.01))
    try:
        await store.create(born := record())
        while await store.find(born.world) is not None:
            pass
        seen, after = list[str](), ""
        while True:
            records, after = await store.page("", after, 10)
            seen += [item.world for item in records]
            if not after:
                break
        assert born.world not in seen
        assert born.world.encode() not in await store.redis.zrange(f"{PREFIX}:worlds", 0, -1)
    finally:
        await store.close()


async def test_a_store_that_is_away_is_unavailable(unused_tcp_port: int) -> None:
    store = Store(f"redis://127.0.0.1:{unused_tcp_port}")
    try:
        with pytest.raises(Unavailable):
            await store.ping()
    finally:
        await store.close()
