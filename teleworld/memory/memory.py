"""The 4D memory as the reconstructor uses it: fuse key frames, render guidance, say where one may walk, export.

The store holds the truth; this object only keeps the fields of late, within a bound of bytes, so that a warm worker
loads nothing and a cold one continues from the store with the same bits. Calls block for milliseconds and release the
GIL in their loops: run them in worker threads. Safe for threads, since fields are never written to.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.clearance import DEFAULT_BODY, Body, clearance
from teleworld.memory.export import ply
from teleworld.memory.fill import fill
from teleworld.memory.fusion import DEFAULT_POLICY, FusionPolicy, Observation, fuse, view_cloud
from teleworld.memory.motion import places
from teleworld.memory.points import EMPTY_REVISION, Field
from teleworld.memory.splat import DEFAULT_STYLE, Rendering, SplatStyle, render, splat
from teleworld.memory.store import MemoryStore
from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.errors import InvalidInput

MAX_IMAGE_SIDE = 4096


@dataclass(frozen=True, eq=False)
class GuidanceFrames:
    """The memory from F cameras. pixels: uint8 [F, H, W, 3], holes filled. mask: uint8 [F, H, W], 0 hole or 255
    seen. depth: float32 [F, H, W] metres, 0 in holes. dynamic: bool [F, H, W], from points that moved when they were
    seen. seen: int32 [F, H, W], the global pixel frame in which the point was observed, -1 in holes."""

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float32]
    dynamic: NDArray[np.bool_]
    seen: NDArray[np.int32]


class Memory:
    """The memories of the worlds in a store. cache_bytes bounds the fields kept in this process."""

    def __init__(
        self,
        store: MemoryStore,
        policy: FusionPolicy = DEFAULT_POLICY,
        style: SplatStyle = DEFAULT_STYLE,
        body: Body = DEFAULT_BODY,
        cache_bytes: int = 256 << 20,
    ) -> None:
        self.store = store
        self._policy = policy
        self._style = style
        self._body = body
        self._cache_bytes = cache_bytes
        self._fields: OrderedDict[tuple[str, int, int], Field] = OrderedDict()
        self._lock = threading.Lock()

    def field_at(self, world: str, epoch: int, revision: int) -> Field:
        """The field of a world at a revision; `EMPTY_REVISION` is the empty one. Raises as `MemoryStore.load`.

        A new epoch reads the store anew: if the store lost writes, the world may have gone another way since.
        """
        if revision == EMPTY_REVISION:
            return Field()
        key = (world, epoch, revision)
        with self._lock:
            if key in self._fields:
                self._fields.move_to_end(key)
                return self._fields[key]
        field = self.store.load(world, revision)
        self._keep(key, field)
        return field

    def fuse_and_append(self, world: str, epoch: int, base: int, seen: Observation) -> Field:
        """Fuse key frames into revision `base` and store the result as `base + 1`; returns the new field.

        Raises InvalidInput on a malformed observation, else as `MemoryStore.load` and `append`. May be repeated.
        """
        delta, after = fuse(self.field_at(world, epoch, base), seen, self._policy)
        self.store.append(world, epoch, delta, after)
        self._keep((world, epoch, after.revision), after)
        return after

    def guidance_frames(
        self,
        world: str,
        epoch: int,
        revision: int,
        path: CameraPath,
        width: int,
        height: int,
        own_view_only: bool = False,
    ) -> GuidanceFrames:
        """Render a revision from F cameras, those of the frames right behind its newest key frame, and fill the holes.

        own_view_only renders what the newest key frame alone shows, as a system without memory would.
        """
        path.check("path")
        if not (0 < width <= MAX_IMAGE_SIDE and 0 < height <= MAX_IMAGE_SIDE):
            raise InvalidInput("size", f"{width} x {height} is out of range")
        field = self.field_at(world, epoch, revision)
        seen = (
            self._own_view(field, path, width, height)
            if own_view_only
            else render(field, path, width, height, self._style)
        )
        return GuidanceFrames(fill(seen.rgb, seen.mask), seen.mask, seen.depth, seen.dynamic, seen.seen)

    def _own_view(self, field: Field, path: CameraPath, width: int, height: int) -> Rendering:
        cloud = [view_cloud(field.view, self._policy)] if field.view is not None else []
        return splat(cloud, sum(map(len, cloud)), path, width, height, self._style)

    def clearance(self, world: str, epoch: int, revision: int, x: float, y: float, z: float) -> Clearance:
        """Where one may walk around a camera at (x, y, z) metres."""
        return clearance(self.field_at(world, epoch, revision), x, y, z, self._body)

    def export(self, world: str, revision: int | None = None, frame: int | None = None) -> Iterator[bytes]:
        """A PLY of the static points at a revision (the newest if None), with what moved at a global pixel frame if given.

        Raises NotFound or PreconditionFailed before the first chunk.
        """
        clouds = [self.store.load(world, revision).static]
        if frame is not None:
            moving = self.store.dynamic(world, frame).points
            clouds.append(replace(moving, positions=places(moving, frame)))
        return ply(tuple(clouds))

    def fork(self, source: str, revision: int, target: str) -> None:
        """Let `target` start from a revision of `source`. Raises as `MemoryStore.fork`."""
        self.store.fork(source, revision, target)

    def drop(self, world: str) -> None:
        """Forget a world, here and in the store."""
        self.store.drop(world)
        with self._lock:
            for key in [key for key in self._fields if key[0] == world]:
                del self._fields[key]

    @property
    def held(self) -> dict[str, int]:
        """Bytes of the fields in this process, by kind: `static`, `dynamic`, and the newest key frame's `view`."""
        with self._lock:
            fields = list(self._fields.values())
        return {
            "static": sum(field.static.nbytes for field in fields),
            "dynamic": sum(field.dynamic.nbytes for field in fields),
            "view": sum(field.view.nbytes for field in fields if field.view is not None),
        }

    def _keep(self, key: tuple[str, int, int], field: Field) -> None:
        with self._lock:
            for other in [other for other in self._fields if other[0] == key[0] and other[1] < key[1]]:
                del self._fields[other]
            self._fields[key] = field
            self._fields.move_to_end(key)
            held = sum(kept.nbytes for kept in self._fields.values())
            while held > self._cache_bytes and len(self._fields) > 1:
                held -= self._fields.popitem(last=False)[1].nbytes
