"""The memory in Redis (7 or newer), so that it outlives any process: keys `tw:{<world>}:memory:*`.

    head       hash   epoch, newest and oldest revision, origin (of a fork)
    deltas     hash   revision -> digest, block
    snapshots  hash   revision -> block
    moments    hash   key frame -> block of its dynamic points

Calls block and are meant for worker threads; the client's connection pool is safe for them. The store itself promises
what Redis keeps of acknowledged writes (`appendfsync always`, or no failover), and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from teleworld.memory import redis_scripts as scripts
from teleworld.memory.codec import decode_cloud, digest, encode_cloud, encode_delta, encode_field
from teleworld.memory.points import DynamicPoints, Field, FieldDelta
from teleworld.memory.store import DEFAULT_RETENTION, Retention, beyond, check_append, conflict, gap, rebuild
from teleworld.world.errors import Conflict, InvalidInput, NotFound, PreconditionFailed, StaleEpoch, Unavailable

MAX_WORLD_NAME = 128
SOCKET_SECONDS = 5.0


class RedisMemoryStore:
    """A `MemoryStore` in Redis.

    client: without `decode_responses`. ttl_s: seconds after the last append at which a world's memory goes; 0 keeps it.
    """

    def __init__(self, client: redis.Redis, retention: Retention = DEFAULT_RETENTION, ttl_s: float = 0.0) -> None:
        self._client = client
        self._retention = retention
        self._ttl_ms = round(ttl_s * 1000)
        self._append = client.register_script(scripts.APPEND)
        self._load = client.register_script(scripts.LOAD)
        self._moment = client.register_script(scripts.MOMENT)
        self._fork = client.register_script(scripts.FORK)

    @classmethod
    def from_url(cls, url: str, retention: Retention = DEFAULT_RETENTION, ttl_s: float = 0.0) -> RedisMemoryStore:
        """A store at `url` (redis://, rediss:// or unix://), connected when first used. Raises InvalidInput(`redis_url`)."""
        try:
            client = redis.Redis.from_url(url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS)
        except ValueError as error:
            raise InvalidInput("redis_url", str(error)) from error
        return cls(client, retention, ttl_s)

    def append(self, world: str, epoch: int, delta: FieldDelta, after: Field) -> int:
        """See `MemoryStore.append`."""
        check_append(delta, after, epoch)
        keep, block = self._retention, encode_delta(delta)
        arguments: list[Any] = [
            epoch,
            delta.revision,
            digest(block) + block,
            encode_field(after) if keep.snapshot_due(delta.revision) else b"",
            keep.horizon,
            keep.moments,
            keep.floor(delta.revision),
            self._ttl_ms,
            keep.snapshot_every,
        ]
        for moved in delta.dynamic:
            arguments += [moved.frame, encode_cloud(moved.points)]
        names = (scripts.HEAD, scripts.DELTAS, scripts.SNAPSHOTS, scripts.MOMENTS)
        status, *detail = self._run(self._append, world, names, arguments)
        match status:
            case b"STALE":
                raise StaleEpoch(world, epoch, int(detail[0]))
            case b"GAP":
                raise gap(world, delta.revision, int(detail[0]))
            case b"BEYOND":
                raise beyond(world, delta.revision)
            case b"CONFLICT":
                raise conflict(world, delta.revision)
        return delta.revision

    def load(self, world: str, revision: int | None = None) -> Field:
        """See `MemoryStore.load`."""
        names = (scripts.HEAD, scripts.DELTAS, scripts.SNAPSHOTS)
        status, *detail = self._run(self._load, world, names, ["" if revision is None else revision])
        match status:
            case b"NONE":
                raise NotFound(f"{world}/memory")
            case b"AHEAD":
                raise NotFound(f"{world}/memory/{revision}")
            case b"BEYOND":
                raise beyond(world, int(revision or 0))
            case b"LOST":
                raise PreconditionFailed(f"{world}: memory revision {int(detail[0])} is missing from the store")
        base, snapshot, *deltas = detail
        return rebuild(snapshot if int(base) >= 0 else None, deltas)

    def revisions(self, world: str) -> range:
        """See `MemoryStore.revisions`."""
        with _reachable():
            newest, oldest = self._client.hmget(self._key(world, scripts.HEAD), ["newest", "oldest"])
        if newest is None or oldest is None:
            raise NotFound(f"{world}/memory")
        return range(int(oldest), int(newest) + 1)

    def dynamic(self, world: str, frame: int) -> DynamicPoints:
        """See `MemoryStore.dynamic`."""
        status, *detail = self._run(self._moment, world, (scripts.HEAD, scripts.MOMENTS), [frame])
        if status != b"OK":
            raise NotFound(f"{world}/memory" if status == b"NONE" else f"{world}/memory/dynamic/{frame}")
        return DynamicPoints(int(detail[0]), decode_cloud(detail[1]))

    def fork(self, source: str, revision: int, target: str) -> None:
        """See `MemoryStore.fork`. Source and target may live in different slots: the target is written in one step."""
        start = self.load(source, revision)
        until = start.view.frame if start.view else -1
        block = encode_field(start)
        with _reachable():
            moments = self._client.hgetall(self._key(source, scripts.MOMENTS))
        arguments: list[Any] = [revision, digest(block), block, self._ttl_ms]
        for frame, moment in moments.items():
            if int(frame) <= until:
                arguments += [frame, moment]
        names = (scripts.HEAD, scripts.SNAPSHOTS, scripts.MOMENTS)
        if self._run(self._fork, target, names, arguments)[0] == b"CONFLICT":
            raise Conflict(f"{target} exists already")

    def drop(self, world: str) -> None:
        """See `MemoryStore.drop`."""
        names = (scripts.HEAD, scripts.DELTAS, scripts.SNAPSHOTS, scripts.MOMENTS)
        with _reachable():
            self._client.unlink(*(self._key(world, name) for name in names))

    def _run(self, script: Any, world: str, names: tuple[str, ...], arguments: list[Any]) -> list[Any]:
        with _reachable():
            return list(script(keys=[self._key(world, name) for name in names], args=arguments))

    def _key(self, world: str, name: str) -> str:
        if not 0 < len(world) <= MAX_WORLD_NAME or "{" in world or "}" in world:
            raise InvalidInput("world", f"expected 1..{MAX_WORLD_NAME} characters without braces")
        return f"tw:{{{world}}}:memory:{name}"


@contextmanager
def _reachable() -> Iterator[None]:
    """Turn a Redis that is away, full or failing over into Unavailable, so that the task is tried again."""
    try:
        yield
    except redis.RedisError as error:
        raise Unavailable(f"the memory store does not answer ({type(error).__name__})") from error
