"""What moves, between the key frames that see it (paper 3.3.2: dynamic points are kept by time, apart from the static ones).

A key frame tells about the moving things in its view alone. So what an earlier one saw is confronted with it point by point:

- out of view, or hidden behind what the key frame shows, a point goes on existing, and drifts on as its body moved when it
  was last seen (`teleworld.memory.motion`), unless the key frame sees that body elsewhere;
- where the key frame sees through it, finds something else at its place, or sees something moving itself, it is dropped:
  the thing has moved, and the newer observation is the truth;
- where the same colour still stands at the same depth, the detector has missed it. The point stays, at half its
  confidence, and its pixel stays out of the static points; after a few such misses the thing counts as still.

Without the last rule a thing is eaten away by the holes of each mask in turn, since what is not rendered into the guidance
is not generated again, and so not seen again.

Depth of moving pixels is the worst that the network measures: outlines mix two surfaces, and a body that stands out against
its background gets some of the background's slope. A body is about as far away in all its parts, so its depths are drawn
together before they are stored; otherwise it falls apart as soon as the camera moves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled
from teleworld.memory.motion import DEFAULT_MOTION, MotionPolicy, places
from teleworld.memory.points import PointCloud
from teleworld.memory.splat import splat
from teleworld.world.camera import CameraPath


@dataclass(frozen=True)
class MoverPolicy:
    """When a moving point is dropped.

    agree: relative depth difference up to which a point still stands where it was. alike: mean difference of the colour
    channels up to which a pixel shows it, the best of its neighbours counting. least: confidence (0..255) below which a
    point is let go: a mask may miss a fully trusted point `log2(255 / least)` times. budget: points of a world; the
    longest unseen go first. relief: relative depth around a body's median that its parts may have. motion: how it is
    followed.
    """

    agree: float = 0.12
    alike: float = 40.0
    least: int = 24
    budget: int = 12_000
    relief: float = 0.1
    motion: MotionPolicy = DEFAULT_MOTION


DEFAULT_MOVERS = MoverPolicy()


def outlived(
    movers: PointCloud,
    elsewhere: NDArray[np.bool_],
    picture: NDArray[np.uint8],
    depth: NDArray[np.float32],
    moving: NDArray[np.bool_],
    camera: CameraPath,
    now: int,
    policy: MoverPolicy = DEFAULT_MOVERS,
) -> tuple[PointCloud, NDArray[np.bool_]]:
    """(the points that go on existing, bool [H, W]: the pixels of `camera` in which they show).

    elsewhere: bool [P], points of bodies that the key frame sees elsewhere. picture: uint8 [H, W, 3]; depth: float32 [H, W]
    metres, 0 unknown; moving: bool [H, W], what the key frame itself sees moving, outlines included; camera: its one-frame
    path; now: its global pixel frame.
    """
    height, width = depth.shape
    if not len(movers):
        return movers, np.zeros((height, width), bool)
    column, row, distance = _project(places(movers, now), camera)
    inside = (distance > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    kept = ~elsewhere
    confidence = movers.confidence.copy()
    rows, columns = row[inside], column[inside]
    here, there = depth[rows, columns], distance[inside]
    hidden = (here > 0) & (there > here * (1 + policy.agree))
    absent = (here > 0) & (there < here * (1 - policy.agree))
    other = (here > 0) & ~_alike(movers.colours[inside], picture, rows, columns, policy.alike)
    missed = ~hidden
    confidence[inside] = np.where(missed, confidence[inside] // 2, confidence[inside])
    gone = missed & (absent | other | (confidence[inside] < policy.least))
    kept[inside] = ~(gone | moving[rows, columns] | (hidden & elsewhere[inside]))
    # From the end, where the latest seen are.
    kept &= np.cumsum(kept[::-1])[::-1] <= policy.budget
    left = replace(movers, confidence=confidence).select(kept)
    seen = splat([left], 0, camera, width, height, frames=(now,))
    shown = (seen.mask[0] > 0) & ((depth <= 0) | (seen.depth[0] <= depth * (1 + policy.agree)))
    return left, shown


def body_depth(
    depth: NDArray[np.float32],
    sound: NDArray[np.bool_],
    moving: NDArray[np.bool_],
    near: float,
    far: float,
    policy: MoverPolicy = DEFAULT_MOVERS,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """(depth [H, W] of the moving pixels, 0 elsewhere, with each body (connected pixels) about as far in all its parts; the
    number [H, W] of each one's body, from 1 on).

    A `sound` pixel keeps its depth within `policy.relief` of the median of the body's sound ones; a doubtful one takes
    that median. A body without any sound pixel is judged by all that was measured between `near` and `far` metres.
    """
    measured = np.where(np.isfinite(depth) & (depth >= near) & (depth <= far), depth, np.float32(0)).astype(np.float32)
    return _flatten(measured, sound, moving, np.float32(1 + policy.relief))


def _project(
    positions: NDArray[np.float32], camera: CameraPath
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """(column, row, z-depth) [P] of points; column and row are -1 behind the camera."""
    to_camera = np.linalg.inv(camera.camera_to_world[0])
    x, y, z = (positions @ to_camera[:3, :3].T + to_camera[:3, 3]).T
    fx, fy, cx, cy = camera.intrinsics[0]
    before = z > 1e-3
    scale = np.where(before, z, 1.0)
    column, row = np.floor(fx * x / scale + cx), np.floor(fy * y / scale + cy)
    limit = 1 << 20
    clipped = (np.where(before, np.clip(value, -limit, limit), -1).astype(np.int64) for value in (column, row))
    return *clipped, z


def _alike(
    colours: NDArray[np.uint8], picture: NDArray[np.uint8], rows: NDArray, columns: NDArray, limit: float
) -> NDArray[np.bool_]:
    """Whether any of the nine pixels around each point has about its colour."""
    height, width = picture.shape[:2]
    best = np.full(len(rows), np.inf)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            beside = picture[np.clip(rows + down, 0, height - 1), np.clip(columns + right, 0, width - 1)]
            best = np.minimum(best, np.abs(beside.astype(np.int16) - colours).mean(axis=1))
    return best <= limit


@compiled
def _flatten(depth, sound, moving, relief):  # type: ignore[no-untyped-def]
    """See `body_depth`; depth is 0 where nothing was measured."""
    height, width = depth.shape
    flat = np.zeros((height, width), np.float32)
    body = np.zeros((height, width), np.int32)
    bodies = 0
    member = np.empty((height * width, 2), np.int32)
    values = np.empty(height * width, np.float32)
    for row in range(height):
        for column in range(width):
            if not moving[row, column] or body[row, column]:
                continue
            member[0, 0], member[0, 1] = row, column
            bodies += 1
            body[row, column] = bodies
            head, count = 0, 1
            while head < count:
                v, u = member[head]
                head += 1
                for y in range(max(v - 1, 0), min(v + 2, height)):
                    for x in range(max(u - 1, 0), min(u + 2, width)):
                        if moving[y, x] and not body[y, x]:
                            body[y, x] = bodies
                            member[count, 0], member[count, 1] = y, x
                            count += 1
            certain = 0
            for i in range(count):
                v, u = member[i]
                if sound[v, u] and depth[v, u] > 0:
                    values[certain] = depth[v, u]
                    certain += 1
            trusted = certain > 0
            if not trusted:
                for i in range(count):
                    v, u = member[i]
                    if depth[v, u] > 0:
                        values[certain] = depth[v, u]
                        certain += 1
            if certain == 0:
                continue
            middle = np.float32(np.median(values[:certain]))
            for i in range(count):
                v, u = member[i]
                if depth[v, u] > 0 and (sound[v, u] or not trusted):
                    flat[v, u] = min(max(depth[v, u], middle / relief), middle * relief)
                else:
                    flat[v, u] = middle
    return flat, body
