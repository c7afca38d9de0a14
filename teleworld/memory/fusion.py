"""Fusing key frames into the field (paper 3.3): static points accumulate once, moving points follow what is seen of them.

Each static pixel of a key frame is confronted with every surfel that projects near it, the hidden ones included:

- a surfel that agrees in depth and is about as fine already knows this piece of surface, and the oldest wins, which keeps
  the world from drifting; this also is the de-duplication, hidden surfaces included;
- one that agrees but is much coarser is replaced by the new pixel;
- one that stands in what the pixel shows to be free space is struck: it loses half its confidence, and at the second
  strike (or at once if it was doubtful) it is removed;
- where nothing agrees, the pixel becomes a new surfel.

Nothing here trusts a pixel at a depth edge, nor one that touches a moving object. What becomes of moving points is told in
`teleworld.memory.movers`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.footprint import FootprintStyle, Projector
from teleworld.memory.forgetting import forget
from teleworld.memory.motion import followed, gathered, halted, numbered
from teleworld.memory.movers import DEFAULT_MOVERS, MoverPolicy, body_depth, outlived
from teleworld.memory.observe import depth_edges, surfels
from teleworld.memory.points import DynamicPoints, Field, FieldDelta, KeyView, PointCloud
from teleworld.memory.raster import REPLACED, SEEN, STRUCK, judge
from teleworld.world.camera import CameraPath
from teleworld.world.errors import InvalidInput

DOUBTFUL = 128


@dataclass(frozen=True)
class FusionPolicy:
    """When a pixel becomes a point, and when a point goes.

    confident: least confidence (0..1) of a depth that is fused. near, far: metres; depth outside is not fused.
    edge: largest change of the relative inverse-depth slope across a pixel. agree: relative depth difference up to which a
    surfel is the same surface; contradict: from which on it is another one. coarser: linear size, in pixels of the new
    frame, from which on an agreeing surfel is replaced. budget: static points of a world; keep: about the share
    that remains after forgetting, so that it is not due again at each key frame. movers: the same for what moves.
    """

    confident: float = 0.35
    near: float = 0.2
    far: float = 100.0
    edge: float = 0.08
    agree: float = 0.08
    contradict: float = 0.12
    coarser: float = 1.25
    budget: int = 200_000
    keep: float = 0.9
    movers: MoverPolicy = DEFAULT_MOVERS


DEFAULT_POLICY = FusionPolicy()


@dataclass(frozen=True, eq=False)
class Observation:
    """k key frames, as the reconstructor measured them.

    pictures: uint8 [k, H, W, 3]. depth: float32 [k, H, W] metres, 0 (or not finite) unknown. confidence: float32
    [k, H, W] in 0..1. dynamic: bool [k, H, W], pixels of moving things. path: k cameras. frames: their k global pixel
    frames, ascending.
    """

    pictures: NDArray[np.uint8]
    depth: NDArray[np.float32]
    confidence: NDArray[np.float32]
    dynamic: NDArray[np.bool_]
    path: CameraPath
    frames: tuple[int, ...]

    def check(self) -> None:
        """Raise InvalidInput naming the field that does not fit the others."""
        shape, kind = self.pictures.shape, self.pictures.dtype
        if len(shape) != 4 or shape[3] != 3 or kind != np.uint8 or 0 in shape:
            raise InvalidInput("pictures", f"expected uint8 [k, H, W, 3], got {kind} {list(shape)}")
        size = shape[:3]
        for name in ("depth", "confidence", "dynamic"):
            values = getattr(self, name)
            if values.shape != size:
                raise InvalidInput(name, f"expected {list(size)}, got {list(values.shape)}")
        self.path.check("path", size[0])
        if len(self.frames) != size[0] or any(a >= b for a, b in pairwise(self.frames)):
            raise InvalidInput("frames", f"expected {size[0]} ascending frame numbers, got {list(self.frames)}")
        if self.frames[0] < 0 or self.frames[-1] >= 2**31:
            raise InvalidInput("frames", "must lie in 0..2^31-1")


def fuse(field: Field, seen: Observation, policy: FusionPolicy = DEFAULT_POLICY) -> tuple[FieldDelta, Field]:
    """The change that the key frames make, and the field after it (equal to `delta.apply(field)` bit for bit)."""
    seen.check()
    static, next_id = field.static, field.next_id
    moments: list[DynamicPoints] = []
    movers, view = numbered(field.dynamic), None  # what was stored before bodies were followed has no numbers
    for i, frame in enumerate(seen.frames):
        trusted = (
            (seen.confidence[i] >= policy.confident) & (seen.depth[i] >= policy.near) & (seen.depth[i] <= policy.far)
        )
        view = KeyView(
            frame, seen.pictures[i].copy(), np.where(trusted, seen.depth[i], 0).astype(np.float16), seen.path[[i]]
        )
        depth = view.depth.astype(np.float32)
        sound, slope = depth_edges(depth, policy.edge)
        confidence = np.rint(np.clip(seen.confidence[i], 0, 1) * 255).astype(np.uint8)
        moving = _grown(seen.dynamic[i])
        moves, cut = _moves(view, seen, i, trusted & sound, policy)
        camera, lens = view.camera.camera_to_world[0], view.camera.intrinsics[0]
        moves, elsewhere = followed(moves, movers, cut, camera[:3, 3], frame, policy.movers.motion)
        movers, shown = outlived(movers, elsewhere, view.picture, depth, moving, view.camera, frame, policy.movers)
        still = sound & ~moving & ~_grown(shown)
        fresh, keep, confidences = _confront(static, depth, still, view.camera, policy)
        added = surfels(view.picture, depth, slope, fresh, confidence, camera, lens, frame, next_id)
        next_id += int(fresh.sum())
        static = replace(static, confidence=confidences).succeed(keep, added)
        movers = numbered(PointCloud.concatenate([movers, halted(moves, static)]))
        moments.append(DynamicPoints(frame, movers))
    eye = seen.path.camera_to_world[-1, :3, 3]
    static, next_id = forget(static, eye, policy.budget, int(policy.budget * policy.keep), next_id)
    after = Field(field.revision + 1, next_id, static, movers, view)
    return FieldDelta.between(field, after, tuple(moments)), after


def _moves(
    view: KeyView, seen: Observation, i: int, sound: NDArray[np.bool_], policy: FusionPolicy
) -> tuple[PointCloud, NDArray[np.bool_]]:
    """(what key frame i sees moving, by body; bool [P]: the points of bodies that the sides of the picture cut off)."""
    depth, body = body_depth(seen.depth[i], sound, seen.dynamic[i], policy.near, policy.far, policy.movers)
    chosen, certain = depth > 0, np.full(depth.shape, 255, np.uint8)
    camera, lens = view.camera.camera_to_world[0], view.camera.intrinsics[0]
    slope = depth_edges(depth, policy.edge)[1]
    cloud = surfels(view.picture, depth, slope, chosen, certain, camera, lens, view.frame, 0)
    number = body[chosen][cloud.ids]
    cloud = gathered(cloud, number)
    return cloud, np.isin(np.sort(number), body[:, [0, -1]])


def view_cloud(view: KeyView, policy: FusionPolicy = DEFAULT_POLICY) -> PointCloud:
    """All that the newest key frame alone knows, moving things included, as surfels with frame-local ids."""
    depth = view.depth.astype(np.float32)
    sound, slope = depth_edges(depth, policy.edge)
    full = np.full(depth.shape, 255, np.uint8)
    camera, lens = view.camera.camera_to_world[0], view.camera.intrinsics[0]
    return surfels(view.picture, depth, slope, sound, full, camera, lens, view.frame, 0)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask [H, W] and its eight neighbours, whose colours a moving object's outline has mixed with its own."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    grown = wide.copy()
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown


def _confront(
    static: PointCloud, depth: NDArray[np.float32], still: NDArray[np.bool_], camera: CameraPath, policy: FusionPolicy
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.uint8]]:
    """(pixels bool [H, W] that become new points, points bool [P] that stay, the confidence uint8 [P] they have now)."""
    height, width = depth.shape
    seen = Projector([static], width, height, FootprintStyle(near=policy.near / 2)).see(camera, 0)
    known, verdict = judge(
        seen.record,
        seen.row,
        depth,
        still,
        len(static),
        np.float32(policy.agree),
        np.float32(policy.contradict),
        np.float32(policy.coarser**4),
    )
    struck = verdict == STRUCK
    doubtful = static.confidence < DOUBTFUL
    gone = (struck & doubtful) | (verdict == REPLACED)
    confirmed = (verdict == SEEN) & doubtful
    confidence = static.confidence
    if struck.any() or confirmed.any():
        confidence = confidence.copy()
        confidence[struck] //= 2
        confidence[confirmed] *= 2
    return still & ~known, ~gone, confidence
