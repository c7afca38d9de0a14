"""Where the memory of a world lives: a log of deltas, one a revision, with whole fields in between.

`MemoryStore` is the interface; `LocalMemoryStore` keeps the same bytes in this process, for the engine without services.
Every store makes the same promises:

- A delta is visible whole or not at all, and revision r + 1 can only follow r.
- Appending a revision again with the same content succeeds, so that a task may be tried again; other content is a
  Conflict. An epoch older than one already seen is a StaleEpoch: a worker that lost its lease changes nothing.
- Loading costs a bounded number of deltas, because a snapshot is kept every few revisions.
- Revisions older than the retention horizon go; asking for them is a PreconditionFailed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from teleworld.memory.codec import (
    decode_cloud,
    decode_delta,
    decode_field,
    digest,
    encode_cloud,
    encode_delta,
    encode_field,
)
from teleworld.memory.points import DynamicPoints, Field, FieldDelta
from teleworld.world.errors import Conflict, InvalidInput, NotFound, PreconditionFailed, StaleEpoch


@dataclass(frozen=True)
class Retention:
    """What a store keeps of a world.

    snapshot_every: revisions between two snapshots, which bounds the deltas that a load applies to the newest revision.
    horizon: how many revisions back can be loaded at least (at most twice as many are kept). moments: key frames whose
    dynamic points are kept.
    """

    snapshot_every: int = 16
    horizon: int = 64
    moments: int = 512

    def __post_init__(self) -> None:
        if self.snapshot_every < 1 or self.horizon < 1 or self.horizon % self.snapshot_every or self.moments < 1:
            raise InvalidInput(
                "retention", "horizon must be a positive multiple of snapshot_every, and moments positive"
            )

    def snapshot_due(self, revision: int) -> bool:
        """Whether a snapshot is written with this revision."""
        return revision % self.snapshot_every == 0

    def floor(self, newest: int) -> int:
        """The oldest revision that must stay loadable, rounded down to a snapshot that lasts; 0 for a young world."""
        return max(0, newest - self.horizon) // self.horizon * self.horizon

    def lasting(self, snapshot: int, newest: int, oldest: int) -> bool:
        """Whether a snapshot stays: the oldest, one a horizon, and the last two, which a retried task may build on."""
        recent = snapshot + self.snapshot_every >= newest
        return recent or snapshot == oldest or (snapshot > oldest and snapshot % self.horizon == 0)


DEFAULT_RETENTION = Retention()


class MemoryStore(Protocol):
    """The memories of many worlds. Calls block; run them in worker threads. A world is named by its resource name or id."""

    def append(self, world: str, epoch: int, delta: FieldDelta, after: Field) -> int:
        """Add revision `delta.revision`, whose field is `after`; returns the revision.

        Raises StaleEpoch; Conflict if that revision exists with other content; PreconditionFailed if the one before it
        is missing, or if it is so old that its content cannot be compared any more.
        """

    def load(self, world: str, revision: int | None = None) -> Field:
        """The field at a revision, the newest if None. Raises NotFound or, beyond the horizon, PreconditionFailed."""

    def revisions(self, world: str) -> range:
        """The revisions that can be loaded. Raises NotFound."""

    def dynamic(self, world: str, frame: int) -> DynamicPoints:
        """What moved in the newest key frame at or before a global pixel frame. Raises NotFound."""

    def fork(self, source: str, revision: int, target: str) -> None:
        """Let `target` start with the field of `source` at a revision; a repeated fork succeeds.

        Raises as `load` does, and Conflict if `target` exists with another origin.
        """

    def drop(self, world: str) -> None:
        """Forget a world; no error if there is none."""


def check_append(delta: FieldDelta, after: Field, epoch: int) -> None:
    """Raise InvalidInput unless the delta leads to `after` and the epoch is a number a store can hold."""
    if delta.revision != after.revision or delta.revision < 0:
        raise InvalidInput("delta.revision", f"{delta.revision} does not lead to revision {after.revision}")
    if not 0 <= epoch < 2**53:
        raise InvalidInput("epoch", f"{epoch} is out of range")


def conflict(world: str, revision: int) -> Conflict:
    """The error of a revision that exists with other content."""
    return Conflict(f"{world}: memory revision {revision} exists with other content")


def gap(world: str, revision: int, newest: int) -> PreconditionFailed:
    """The error of a revision that does not follow the newest one."""
    return PreconditionFailed(f"{world}: memory revision {revision} cannot follow revision {newest}")


def beyond(world: str, revision: int) -> PreconditionFailed:
    """The error of a revision that retention has dropped."""
    return PreconditionFailed(f"{world}: memory revision {revision} lies beyond the retention horizon")


def rebuild(snapshot: bytes | None, deltas: Sequence[bytes]) -> Field:
    """The field that follows from a snapshot (None: the empty field) and the deltas after it."""
    current = decode_field(snapshot) if snapshot is not None else Field()
    for block in deltas:
        current = decode_delta(block).apply(current)
    return current


@dataclass
class _World:
    """The log of one world; `origin` is the digest of the field that it was forked from."""

    epoch: int = 0
    oldest: int = 0
    newest: int = -1
    origin: bytes = b""
    deltas: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    snapshots: dict[int, bytes] = field(default_factory=dict)
    moments: dict[int, bytes] = field(default_factory=dict)


class LocalMemoryStore:
    """A `MemoryStore` in this process. Safe for threads; gone when the process ends."""

    def __init__(self, retention: Retention = DEFAULT_RETENTION) -> None:
        self._retention = retention
        self._worlds: dict[str, _World] = {}
        self._lock = threading.Lock()

    def append(self, world: str, epoch: int, delta: FieldDelta, after: Field) -> int:
        """See `MemoryStore.append`."""
        check_append(delta, after, epoch)
        block, revision = encode_delta(delta), delta.revision
        name = digest(block)
        snapshot = encode_field(after) if self._retention.snapshot_due(revision) else None
        moments = {moved.frame: encode_cloud(moved.points) for moved in delta.dynamic}
        with self._lock:
            log = self._worlds.get(world, _World())
            if epoch < log.epoch:
                raise StaleEpoch(world, epoch, log.epoch)
            if revision > log.newest + 1:
                raise gap(world, revision, log.newest)
            if revision <= log.newest:
                if revision not in log.deltas:
                    raise beyond(world, revision)
                if log.deltas[revision][0] != name:
                    raise conflict(world, revision)
                log.epoch = epoch
                return revision
            self._worlds[world] = log
            log.epoch, log.newest = epoch, revision
            log.deltas[revision] = name, block
            log.moments.update(moments)
            for old in sorted(log.moments)[: -self._retention.moments]:
                del log.moments[old]
            if snapshot is not None:
                log.snapshots[revision] = snapshot
                self._compact(log)
        return revision

    def _compact(self, log: _World) -> None:
        keep = self._retention
        log.oldest = max(log.oldest, keep.floor(log.newest))
        log.deltas = {at: block for at, block in log.deltas.items() if at >= log.oldest}
        log.snapshots = {at: block for at, block in log.snapshots.items() if keep.lasting(at, log.newest, log.oldest)}

    def load(self, world: str, revision: int | None = None) -> Field:
        """See `MemoryStore.load`."""
        with self._lock:
            log = self._find(world)
            wanted = log.newest if revision is None else revision
            if not 0 <= wanted <= log.newest:
                raise NotFound(f"{world}/memory/{wanted}")
            if wanted < log.oldest:
                raise beyond(world, wanted)
            base = max((at for at in log.snapshots if at <= wanted), default=-1)
            snapshot = log.snapshots.get(base)
            deltas = [log.deltas[at][1] for at in range(base + 1, wanted + 1)]
        return rebuild(snapshot, deltas)

    def revisions(self, world: str) -> range:
        """See `MemoryStore.revisions`."""
        with self._lock:
            log = self._find(world)
            return range(log.oldest, log.newest + 1)

    def dynamic(self, world: str, frame: int) -> DynamicPoints:
        """See `MemoryStore.dynamic`."""
        with self._lock:
            moments = self._find(world).moments
            found = max((at for at in moments if at <= frame), default=None)
            if found is None:
                raise NotFound(f"{world}/memory/dynamic/{frame}")
            block = moments[found]
        return DynamicPoints(found, decode_cloud(block))

    def fork(self, source: str, revision: int, target: str) -> None:
        """See `MemoryStore.fork`."""
        start = self.load(source, revision)
        block = encode_field(start)
        until = start.view.frame if start.view else -1
        with self._lock:
            moments = {at: moment for at, moment in self._find(source).moments.items() if at <= until}
            origin = digest(block)
            if target in self._worlds:
                if self._worlds[target].origin != origin:
                    raise Conflict(f"{target} exists already")
                return
            self._worlds[target] = _World(
                oldest=revision, newest=revision, origin=origin, snapshots={revision: block}, moments=moments
            )

    def drop(self, world: str) -> None:
        """See `MemoryStore.drop`."""
        with self._lock:
            self._worlds.pop(world, None)

    def _find(self, world: str) -> _World:
        if world not in self._worlds:
            raise NotFound(f"{world}/memory")
        return self._worlds[world]
