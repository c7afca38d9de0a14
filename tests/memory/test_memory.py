"""The memory as the reconstructor uses it, on a real store, across restarts and epochs."""

from __future__ import annotations

import numpy as np
import pytest
import redis

from teleworld.memory.clearance import clearance
from teleworld.memory.export import VERTEX
from teleworld.memory.fusion import fuse
from teleworld.memory.memory import Memory
from teleworld.memory.points import EMPTY_REVISION, Field
from teleworld.memory.redis_store import RedisMemoryStore
from teleworld.memory.store import LocalMemoryStore
from teleworld.world.errors import Conflict, InvalidInput, NotFound
from tests.memory.room import NANO, SMALL, observe, path

STEPS = [(0.1 * i, -2 + 0.2 * i, 15 * i) for i in range(6)]


def step(memory: Memory, world: str, i: int, epoch: int = 1) -> Field:
    seen = observe(path(STEPS[i], lens=SMALL), frames=(4 * i,), lens=SMALL, moving=True)
    return memory.fuse_and_append(world, epoch, i - 1, seen)


def test_a_restarted_reconstructor_continues_with_the_same_bits(client: redis.Redis, world: str) -> None:
    one = Memory(RedisMemoryStore(client))
    for i in range(6):
        whole = step(one, world, i)
    other = world + "-restarted"
    for i in range(6):
        restarted = step(Memory(RedisMemoryStore(client)), other, i)  # a cold process for each task
    assert restarted.same_as(whole)


def test_a_warm_memory_does_not_ask_the_store(world: str) -> None:
    memory = Memory(LocalMemoryStore())
    field = step(memory, world, 0)
    memory.store.drop(world)
    assert memory.field_at(world, 1, 0) is field


def test_a_new_epoch_asks_the_store_again(world: str) -> None:
    memory = Memory(LocalMemoryStore())
    step(memory, world, 0)
    memory.store.drop(world)
    with pytest.raises(NotFound):
        memory.field_at(world, 2, 0)


def test_the_cache_is_bounded(world: str) -> None:
    memory = Memory(LocalMemoryStore(), cache_bytes=1)
    fields = [step(memory, world, i) for i in range(3)]
    assert memory.field_at(world, 1, 2) is fields[2]
    assert memory.field_at(world, 1, 0) is not fields[0]
    assert memory.field_at(world, 1, 0).same_as(fields[0])


def test_a_repeated_task_gives_the_same_field_and_another_one_a_conflict(world: str) -> None:
    memory = Memory(LocalMemoryStore())
    first = step(memory, world, 0)
    assert step(memory, world, 0).same_as(first)
    with pytest.raises(Conflict):
        memory.fuse_and_append(world, 1, EMPTY_REVISION, observe(path((1, 1, 9), lens=SMALL), frames=(0,), lens=SMALL))


def test_guidance_is_filled_and_masked(world: str) -> None:
    memory = Memory(LocalMemoryStore())
    step(memory, world, 0)
    ahead = path(STEPS[1], (0, -2, 60), lens=SMALL)
    seen = memory.guidance_frames(world, 1, 0, ahead, SMALL.width, SMALL.height)
    assert seen.pixels.shape == (2, 24, 40, 3) and set(np.unique(seen.mask)) == {0, 255}
    assert ((seen.mask > 0) == (seen.depth > 0)).all()
    assert seen.pixels[seen.mask == 0].max(axis=-1).min() > 0  # the room has no black


def test_the_own_view_forgets_what_it_no_longer_sees(world: str) -> None:
    memory = Memory(LocalMemoryStore())
    for i in range(6):
        step(memory, world, i)
    back = path(STEPS[0], lens=SMALL)
    full = memory.guidance_frames(world, 1, 5, back, SMALL.width, SMALL.height)
    own = memory.guidance_frames(world, 1, 5, back, SMALL.width, SMALL.height, own_view_only=True)
    assert (full.mask > 0).mean() > 0.9 > 0.6 > (own.mask > 0).mean()
    assert not memory.guidance_frames(world, 1, -1, back, 40, 24, own_view_only=True).mask.any()


def test_bad_requests_are_named(world: str) -> None:
    memory = Memory(LocalMemoryStore())
    with pytest.raises(InvalidInput) as caught:
        memory.guidance_frames(world, 1, -1, path((0, np.inf, 0)), 160, 96)
    assert caught.value.field.startswith("path")
    with pytest.raises(InvalidInput):
        memory.guidance_frames(world, 1, -1, path((0, 0, 0)), 0, 96)


def test_a_fork_goes_its_own_way(world: str) -> None:
    memory = Memory(LocalMemoryStore())
    for i in range(3):
        step(memory, world, i)
    memory.fork(world, 1, world + "-fork")
    assert step(memory, world + "-fork", 2).same_as(memory.field_at(world, 1, 2))
    memory.drop(world)
    with pytest.raises(NotFound):
        memory.field_at(world, 1, 2)


def test_export_is_a_ply_of_the_points(world: str) -> None:
    memory = Memory(LocalMemoryStore())
    for i in range(3):
        field = step(memory, world, i)
    chunks = list(memory.export(world))
    header, rows = chunks[0], np.frombuffer(b"".join(chunks[1:]), VERTEX)
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\n") and header.endswith(b"end_header\n")
    assert f"element vertex {len(field.static)}\n".encode() in header
    assert np.array_equal(rows["x"], field.static.positions[:, 0])
    assert np.array_equal(rows["green"], field.static.colours[:, 1])
    with_moment = np.frombuffer(b"".join(list(memory.export(world, 2, frame=5))[1:]), VERTEX)
    moved = with_moment[len(field.static) :]
    assert (moved["frame"] == 4).all() and (moved["red"] == 255).all() and len(moved)
    with pytest.raises(NotFound):
        memory.export(world, 9)


def test_walls_block_and_the_open_floor_does_not() -> None:
    field = Field()
    for i, yaw in enumerate(range(0, 360, 45)):
        _, field = fuse(field, observe(path((0, 0, yaw)), frames=(i,)))
    around = clearance(field, 0.0, 0.0, 0.0)
    for x, z in ((0, 0), (2, -3), (-3, 3), (0.4, 1.0)):
        assert around.room(x, z, 0.3) == 0.3
    for x, z in ((3.9, 0), (-3.9, 2), (0, 4.9), (0, -4.9), (1.1, 1.5)):
        assert around.room(x, z, 0.3) < 0.3
    assert around.slide((0.0, 4.0), (0.0, 0.9), 0.3) == (0.0, 4.0)
    assert clearance(Field(), 0, 0, 0).room(0, 0, 0.3) == 0.3


def test_far_and_coarse_points_do_not_block() -> None:
    _, field = fuse(Field(), observe(path((0, -4.5, 0)), frames=(0,), lens=NANO))
    assert (field.static.radius > 0.1).any()
    near = clearance(field, 0.0, 0.0, -4.5)
    assert near.room(0.0, 0.0, 0.3) == 0.3 and not near.blocked[:, -4:].any()
