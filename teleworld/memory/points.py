"""The 4D field as plain arrays: static points that accumulate, and the dynamic points as of the newest key frame.

A point is a surfel: the small flat piece of surface that one pixel of a key frame saw. It remembers two tangents, the
steps on the surface from that pixel to its right and lower neighbours, because a disc facing the camera leaves gaps on
floors and paints over edges as soon as the camera moves.

All values lie on the grids of `teleworld.memory.quantise`. Arrays are never written to after construction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled
from teleworld.world.camera import CameraPath
from teleworld.world.errors import InvalidInput

EMPTY_REVISION = -1


@dataclass(frozen=True, eq=False)
class PointCloud:
    """P surfels, world frame (y down), as a struct of arrays.

    positions: float32 [P, 3] metres. tangents: int8 [P, 2, 3], the steps to the right and lower pixel in sixteenths of the
    radius. colours: uint8 [P, 3] RGB. radius: float32 [P], the observing pixel's footprint in metres (depth / fx).
    confidence: uint8 [P]. frame: int32 [P], the global pixel frame in which it was seen. drift: int8 [P, 2], how far it moves
    a frame along x and z just after that, in 1/200 m (`teleworld.memory.motion`). ids: int64 [P], ascending: unique in a
    world for static points; of moving ones, the number of the body and, in the lower bits, of the point in it.
    """

    positions: NDArray[np.float32]
    tangents: NDArray[np.int8]
    colours: NDArray[np.uint8]
    radius: NDArray[np.float32]
    confidence: NDArray[np.uint8]
    frame: NDArray[np.int32]
    drift: NDArray[np.int8]
    ids: NDArray[np.int64]

    @classmethod
    def empty(cls) -> PointCloud:
        """No points."""
        return cls(
            positions=np.zeros((0, 3), np.float32),
            tangents=np.zeros((0, 2, 3), np.int8),
            colours=np.zeros((0, 3), np.uint8),
            radius=np.zeros(0, np.float32),
            confidence=np.zeros(0, np.uint8),
            frame=np.zeros(0, np.int32),
            drift=np.zeros((0, 2), np.int8),
            ids=np.zeros(0, np.int64),
        )

    @classmethod
    def concatenate(cls, clouds: Iterable[PointCloud]) -> PointCloud:
        """The points of all clouds, in order."""
        parts = [cloud for cloud in clouds if len(cloud)]
        if len(parts) < 2:
            return parts[0] if parts else cls.empty()
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    def __len__(self) -> int:
        return len(self.ids)

    def succeed(self, keep: NDArray[np.bool_], added: PointCloud) -> PointCloud:
        """The points that `keep` [P] marks, followed by `added`; the same as select and concatenate, with one copy."""
        rows = np.flatnonzero(keep)
        if len(rows) == len(keep):
            return PointCloud.concatenate([self, added])
        arrays = []
        for item in fields(self):
            old, new = getattr(self, item.name), getattr(added, item.name)
            array = np.empty((len(rows) + len(new), *old.shape[1:]), old.dtype)
            np.take(old, rows, axis=0, out=array[: len(rows)], mode="clip")
            array[len(rows) :] = new
            arrays.append(array)
        return PointCloud(*arrays)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.integer] | slice) -> PointCloud:
        """The points of a boolean mask [P], of row numbers or of a slice (which shares memory)."""
        if isinstance(rows, slice):
            return PointCloud(*(getattr(self, item.name)[rows] for item in fields(self)))
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return PointCloud(*(np.take(getattr(self, item.name), chosen, axis=0, mode="clip") for item in fields(self)))

    def same_as(self, other: PointCloud) -> bool:
        """Whether every array is equal bit for bit."""
        return all(np.array_equal(getattr(self, item.name), getattr(other, item.name)) for item in fields(self))

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return sum(getattr(self, item.name).nbytes for item in fields(self))


@dataclass(frozen=True, eq=False)
class KeyView:
    """The newest key frame as it was fused: the world as one single picture knows it, which is what "memory off" renders.

    frame: its global pixel frame. picture: uint8 [H, W, 3]. depth: float16 [H, W] metres, 0 where it was not trusted.
    camera: its one-frame path.
    """

    frame: int
    picture: NDArray[np.uint8]
    depth: NDArray[np.float16]
    camera: CameraPath

    def same_as(self, other: KeyView) -> bool:
        """Whether everything is equal bit for bit."""
        return (
            self.frame == other.frame
            and np.array_equal(self.picture, other.picture)
            and np.array_equal(self.depth, other.depth)
            and np.array_equal(self.camera.camera_to_world, other.camera.camera_to_world)
            and np.array_equal(self.camera.intrinsics, other.camera.intrinsics)
        )

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self.picture.nbytes + self.depth.nbytes


@dataclass(frozen=True, eq=False)
class Field:
    """The memory of one world at one revision; `EMPTY_REVISION` is the empty field before the start picture.

    dynamic holds what moves as of `view`'s frame: what that frame saw, and what earlier ones saw of things that are out of
    sight by now. Older moments are in the store only. next_id is the id of the next static point.
    """

    revision: int = EMPTY_REVISION
    next_id: int = 0
    static: PointCloud = field(default_factory=PointCloud.empty)
    dynamic: PointCloud = field(default_factory=PointCloud.empty)
    view: KeyView | None = None

    def same_as(self, other: Field) -> bool:
        """Whether both are equal bit for bit."""
        views = (self.view is None) == (other.view is None)
        if views and self.view is not None and other.view is not None:
            views = self.view.same_as(other.view)
        return (
            views
            and (self.revision, self.next_id) == (other.revision, other.next_id)
            and self.static.same_as(other.static)
            and self.dynamic.same_as(other.dynamic)
        )

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self.static.nbytes + self.dynamic.nbytes + (self.view.nbytes if self.view else 0)


@dataclass(frozen=True, eq=False)
class DynamicPoints:
    """What moves as of one key frame, including what was last seen before it. frame: its global pixel frame."""

    frame: int
    points: PointCloud


@dataclass(frozen=True, eq=False)
class FieldDelta:
    """What fusing the key frames of one segment changed: revision - 1 -> revision.

    added: new static points. removed: ids [R] that are gone. weakened: ids [K] of points that stay with `confidence` [K].
    dynamic: what moves as of each key frame, in order; the last one's are those that the field shows.
    """

    revision: int
    next_id: int
    added: PointCloud
    removed: NDArray[np.int64]
    weakened: NDArray[np.int64]
    confidence: NDArray[np.uint8]
    dynamic: tuple[DynamicPoints, ...]
    view: KeyView

    @classmethod
    def between(cls, before: Field, after: Field, dynamic: tuple[DynamicPoints, ...]) -> FieldDelta:
        """The change from one field to the next."""
        if after.view is None:
            raise ValueError("a fused field has a view")
        # Ids ascend, so the survivors come first in the new cloud and in the same order as in the old one.
        old = int(np.searchsorted(after.static.ids, before.next_id))
        survivors = after.static.ids[:old]
        kept = _members(before.static.ids, survivors)
        changed = before.static.confidence[kept] != after.static.confidence[:old]
        return cls(
            revision=after.revision,
            next_id=after.next_id,
            added=after.static.select(slice(old, None)),
            removed=before.static.ids[~kept],
            weakened=survivors[changed],
            confidence=after.static.confidence[:old][changed],
            dynamic=dynamic,
            view=after.view,
        )

    def apply(self, before: Field) -> Field:
        """The field after this change; bit for bit what `fuse` made.

        Raises InvalidInput if the change belongs to another field.
        """
        static = before.static
        if self.revision != before.revision + 1:
            raise InvalidInput("delta.revision", f"{self.revision} does not follow {before.revision}")
        if len(self.added) and self.added.ids[0] < before.next_id:
            raise InvalidInput("delta.added", "ids are taken already")
        if len(self.weakened):
            confidence = static.confidence.copy()
            confidence[_rows(static.ids, self.weakened, "delta.weakened")] = self.confidence
            static = replace(static, confidence=confidence)
        keep = np.ones(len(static), bool)
        keep[_rows(static.ids, self.removed, "delta.removed")] = False
        return Field(
            revision=self.revision,
            next_id=self.next_id,
            static=static.succeed(keep, self.added),
            dynamic=self.dynamic[-1].points if self.dynamic else PointCloud.empty(),
            view=self.view,
        )


def _rows(ids: NDArray[np.int64], wanted: NDArray[np.int64], name: str) -> NDArray[np.intp]:
    """Where the wanted ids stand in the ascending `ids`; raises InvalidInput if one is missing."""
    rows = np.searchsorted(ids, wanted)
    if len(wanted) and (rows[-1] >= len(ids) or (ids[np.minimum(rows, len(ids) - 1)] != wanted).any()):
        raise InvalidInput(name, "names a point that does not exist")
    return rows


@compiled
def _members(ids, subset):  # type: ignore[no-untyped-def]
    """bool [P]: which of the ascending ids are in the ascending subset."""
    found = np.zeros(len(ids), np.bool_)
    j = 0
    for i in range(len(ids)):
        if j < len(subset) and ids[i] == subset[j]:
            found[i] = True
            j += 1
    return found
