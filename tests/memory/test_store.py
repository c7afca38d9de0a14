"""One set of promises, kept by the store in this process and by the one in a real Redis-compatible server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from teleworld.memory.points import Field, FieldDelta
from teleworld.memory.redis_store import RedisMemoryStore
from teleworld.memory.store import LocalMemoryStore, MemoryStore, Retention
from teleworld.world.errors import Conflict, InvalidInput, NotFound, PreconditionFailed, StaleEpoch, Unavailable

Walk = list[tuple[FieldDelta, Field]]
MakeStore = Callable[[Retention], MemoryStore]
KEEP_ALL = Retention(snapshot_every=4, horizon=32)


@pytest.fixture(params=["local", "redis"])
def make_store(request: pytest.FixtureRequest) -> Iterator[MakeStore]:
    if request.param == "local":
        yield LocalMemoryStore
    else:
        client = request.getfixturevalue("client")
        yield lambda retention: RedisMemoryStore(client, retention)


@pytest.fixture
def store(make_store: MakeStore) -> MemoryStore:
    return make_store(KEEP_ALL)


def append_all(store: MemoryStore, world: str, walk: Walk, epoch: int = 1) -> None:
    for delta, field in walk:
        assert store.append(world, epoch, delta, field) == delta.revision


def test_every_revision_comes_back(store: MemoryStore, world: str, walk: Walk) -> None:
    append_all(store, world, walk)
    assert store.revisions(world) == range(0, len(walk))
    for _, field in walk:
        assert store.load(world, field.revision).same_as(field)
    assert store.load(world).same_as(walk[-1][1])


def test_a_repeated_append_succeeds_and_changes_nothing(store: MemoryStore, world: str, walk: Walk) -> None:
    append_all(store, world, walk[:1])
    append_all(store, world, walk[:6])
    assert store.append(world, 1, *walk[3]) == 3
    assert store.append(world, 2, *walk[5]) == 5
    assert store.revisions(world) == range(0, 6)
    assert store.load(world).same_as(walk[5][1])


def test_other_content_at_a_known_revision_is_a_conflict(store: MemoryStore, world: str, walk: Walk) -> None:
    append_all(store, world, walk[:3])
    delta, field = walk[2]
    colours = delta.added.colours.copy()
    colours[0] ^= 1
    other = FieldDelta(**{**vars(delta), "added": type(delta.added)(**{**vars(delta.added), "colours": colours})})
    with pytest.raises(Conflict):
        store.append(world, 1, other, field)
    assert store.load(world).same_as(field)


def test_an_older_epoch_is_refused_even_for_the_same_content(store: MemoryStore, world: str, walk: Walk) -> None:
    append_all(store, world, walk[:2], epoch=5)
    with pytest.raises(StaleEpoch) as caught:
        store.append(world, 4, *walk[2])
    assert (caught.value.epoch, caught.value.current) == (4, 5)
    with pytest.raises(StaleEpoch):
        store.append(world, 4, *walk[1])
    store.append(world, 6, *walk[1])
    with pytest.raises(StaleEpoch):
        store.append(world, 5, *walk[2])


def test_a_revision_cannot_be_skipped(store: MemoryStore, world: str, walk: Walk) -> None:
    with pytest.raises(PreconditionFailed):
        store.append(world, 1, *walk[1])
    append_all(store, world, walk[:2])
    with pytest.raises(PreconditionFailed):
        store.append(world, 1, *walk[3])


def test_a_delta_must_lead_to_its_field(store: MemoryStore, world: str, walk: Walk) -> None:
    with pytest.raises(InvalidInput):
        store.append(world, 1, walk[0][0], walk[1][1])
    with pytest.raises(InvalidInput):
        store.append(world, -1, *walk[0])


def test_unknown_worlds_and_revisions_are_not_found(store: MemoryStore, world: str, walk: Walk) -> None:
    for call in (lambda: store.load(world), lambda: store.revisions(world), lambda: store.dynamic(world, 3)):
        with pytest.raises(NotFound):
            call()
    append_all(store, world, walk[:2])
    for revision in (2, -1):
        with pytest.raises(NotFound):
            store.load(world, revision)


def test_old_revisions_go_and_the_newest_stay_loadable(make_store: MakeStore, world: str, walk: Walk) -> None:
    store = make_store(Retention(snapshot_every=2, horizon=4, moments=3))
    append_all(store, world, walk)
    kept = store.revisions(world)
    assert kept == range(4, 12)  # at least the horizon before the newest snapshot, rounded down to a lasting snapshot
    for revision in kept:
        assert store.load(world, revision).same_as(walk[revision][1])
    with pytest.raises(PreconditionFailed):
        store.load(world, 3)
    with pytest.raises(PreconditionFailed):
        store.append(world, 1, *walk[2])
    assert store.dynamic(world, 10**6).frame == 44
    with pytest.raises(NotFound):
        store.dynamic(world, 4 * 5)


def test_the_moments_keep_what_moved(store: MemoryStore, world: str, walk: Walk) -> None:
    append_all(store, world, walk[:5])
    moved = store.dynamic(world, 10)
    assert moved.frame == 8 and moved.points.same_as(walk[2][0].dynamic[0].points)


def test_a_fork_shares_the_past_and_lives_its_own_life(make_store: MakeStore, world: str, walk: Walk) -> None:
    store = make_store(KEEP_ALL)
    append_all(store, world, walk[:9])
    fork = world + "-fork"
    store.fork(world, 5, fork)
    store.fork(world, 5, fork)  # a repeated task
    assert store.revisions(fork) == range(5, 6) and store.load(fork).same_as(walk[5][1])
    assert store.dynamic(fork, 10**6).frame == 20
    store.append(fork, 1, *walk[6])
    store.fork(world, 5, fork)
    assert store.load(fork).same_as(walk[6][1]) and store.load(fork, 5).same_as(walk[5][1])
    with pytest.raises(Conflict):
        store.fork(world, 4, fork)
    with pytest.raises(Conflict):
        store.fork(fork, 6, world)
    store.drop(world)
    assert store.load(fork, 6).same_as(walk[6][1])


def test_a_fork_grows_past_its_own_horizon(make_store: MakeStore, world: str, walk: Walk) -> None:
    store = make_store(Retention(snapshot_every=2, horizon=4))
    append_all(store, world, walk[:4])
    fork = world + "-fork"
    store.fork(world, 3, fork)
    append_all(store, fork, walk[4:])
    for revision in store.revisions(fork):
        assert store.load(fork, revision).same_as(walk[revision][1])
    assert store.revisions(fork).start == 4


def test_a_dropped_world_is_gone(store: MemoryStore, world: str, walk: Walk) -> None:
    append_all(store, world, walk[:2])
    store.drop(world)
    store.drop(world)
    with pytest.raises(NotFound):
        store.load(world)
    append_all(store, world, walk[:1])


def test_of_two_writers_one_wins_and_nothing_is_torn(store: MemoryStore, world: str, walk: Walk) -> None:
    append_all(store, world, walk[:4])
    delta, field = walk[4]
    confidence = delta.added.confidence.copy()
    confidence[:] = 200
    cloud = type(delta.added)(**{**vars(delta.added), "confidence": confidence})
    other = FieldDelta(**{**vars(delta), "added": cloud})
    rivals = [(delta, field), (other, other.apply(walk[3][1]))] * 4

    def write(rival: tuple[FieldDelta, Field]) -> bool:
        try:
            return bool(store.append(world, 1, *rival))
        except Conflict:
            return False

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(write, rivals))
    assert sum(results) == 4
    winner = rivals[results.index(True)][1]
    assert store.load(world).same_as(winner)


def test_redis_keeps_a_world_in_one_slot_and_lets_it_expire(client: redis.Redis, world: str, walk: Walk) -> None:
    store = RedisMemoryStore(client, KEEP_ALL, ttl_s=600)
    append_all(store, world, walk[:2])
    keys = sorted(client.keys(f"tw:{{{world}}}:memory:*"))
    assert [key.decode().rsplit(":", 1)[1] for key in keys] == ["deltas", "head", "moments", "snapshots"]
    for key in keys:
        client.pexpire(key, 1000)
    store.append(world, 1, *walk[1])  # even a repeated append keeps the world alive
    assert all(590_000 < client.pttl(key) <= 600_000 for key in keys)
    RedisMemoryStore(client, KEEP_ALL).append(world, 1, *walk[2])
    store.fork(world, 1, world + "-fork")
    assert all(client.pttl(key) > 590_000 for key in client.keys(f"tw:{{{world}-fork}}:memory:*"))


def test_redis_survives_a_script_flush(client: redis.Redis, world: str, walk: Walk) -> None:
    store = RedisMemoryStore(client, KEEP_ALL)
    append_all(store, world, walk[:1])
    client.script_flush()
    append_all(store, world, walk[1:2])
    assert store.load(world).same_as(walk[1][1])


def test_a_lost_delta_is_told_and_not_guessed(client: redis.Redis, world: str, walk: Walk) -> None:
    store = RedisMemoryStore(client, KEEP_ALL)
    append_all(store, world, walk[:3])
    client.hdel(f"tw:{{{world}}}:memory:deltas", "1")
    with pytest.raises(PreconditionFailed, match="revision 1 is missing"):
        store.load(world)


def test_a_redis_that_is_away_is_unavailable(world: str, walk: Walk) -> None:
    store = RedisMemoryStore(redis.Redis(port=1, retry=Retry(NoBackoff(), 0)))
    for call in (lambda: store.load(world), lambda: store.append(world, 1, *walk[0]), lambda: store.drop(world)):
        with pytest.raises(Unavailable):
            call()


def test_a_full_redis_is_unavailable_and_keeps_no_half(client: redis.Redis, world: str, walk: Walk) -> None:
    def contents() -> dict[bytes, bytes]:
        return {key: client.dump(key) for key in client.keys(f"*{world}*")}

    store = RedisMemoryStore(client)
    store.append(world, 1, *walk[0])
    before = contents()
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(Unavailable):
            store.append(world, 1, *walk[1])
        with pytest.raises(Unavailable):
            store.fork(world, 0, f"{world}-fork")
        assert contents() == before
        assert store.load(world, 0).same_as(walk[0][1])
    finally:
        client.config_set("maxmemory", "0")
    store.append(world, 1, *walk[1])
    assert store.load(world).same_as(walk[1][1])
    client.config_set("maxmemory", "1")
    try:
        store.drop(world)
    finally:
        client.config_set("maxmemory", "0")
    assert contents() == {}


@pytest.mark.parametrize("name", ["", "a{b}", "x" * 200])
def test_a_name_that_would_break_the_hash_tag_is_refused(client: redis.Redis, name: str) -> None:
    with pytest.raises(InvalidInput):
        RedisMemoryStore(client).load(name)


@pytest.mark.parametrize(("every", "horizon"), [(0, 4), (3, 4), (2, 0)])
def test_a_retention_that_cannot_work_is_refused(every: int, horizon: int) -> None:
    with pytest.raises(InvalidInput):
        Retention(snapshot_every=every, horizon=horizon)


def test_the_walk_has_something_of_everything(walk: Walk) -> None:
    assert sum(len(delta.removed) for delta, _ in walk) and all(len(delta.dynamic[0].points) for delta, _ in walk)
    assert len(np.unique(walk[-1][1].static.frame)) > 5
