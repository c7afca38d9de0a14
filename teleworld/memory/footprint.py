"""Where surfels fall on an image: each one's ellipse, its inverse-depth plane, and how fine it is there.

A footprint is the surfel's parallelogram in this view as an ellipse, widened to about a pixel, so that neighbours leave
no pinholes when the camera comes closer and a far surfel never vanishes between pixels. Surfels are seen from their
front only: what a wall looks like from behind was never observed, so it stays a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled
from teleworld.memory.motion import places
from teleworld.memory.points import PointCloud
from teleworld.memory.quantise import TANGENT_STEPS
from teleworld.world.camera import CameraPath

FIELDS = 11


@dataclass(frozen=True)
class FootprintStyle:
    """near: metres in front of the camera from which on a surfel is drawn. widen: variance added to a footprint, in square
    pixels. largest: half-width of a footprint at most, in pixels."""

    near: float = 0.15
    widen: float = 0.15
    largest: float = 12.0


@dataclass(frozen=True, eq=False)
class Footprints:
    """The surfels in view of one camera, in the order of the clouds.

    record: float32 [N, 11]: centre u, v (pixels); inverse depth w (1/m); dw/du, dw/dv; conic a, b, c of the ellipse
    a·du² + 2b·du·dv + c·dv² = 1; fineness (1 / squared area in pixels); half-widths in u and v. row: int32 [N], the row
    in the concatenated clouds. bounds: where each cloud's footprints start, and the end.
    """

    record: NDArray[np.float32]
    row: NDArray[np.int32]
    bounds: tuple[int, ...]


class Projector:
    """Projects the same clouds from many cameras onto images of one size, reusing its buffers.

    The result of `see` lives until the next call. Not for use by two threads at a time.
    """

    def __init__(self, clouds: Sequence[PointCloud], width: int, height: int, style: FootprintStyle) -> None:
        self._clouds = clouds
        self._drifting = [bool(cloud.drift.any()) for cloud in clouds]
        self._size = (np.float32(width), np.float32(height))
        self._limits = np.array([style.near, style.widen, style.largest, 1 / TANGENT_STEPS], np.float32)
        total = sum(len(cloud) for cloud in clouds)
        self._record = np.empty((total, FIELDS), np.float32)
        self._row = np.empty(total, np.int32)

    def see(self, path: CameraPath, frame: int, now: int | None = None) -> Footprints:
        """The footprints in view of one camera of a path, in the global pixel frame `now`; None: where each was last seen."""
        rotation = np.ascontiguousarray(path.camera_to_world[frame, :3, :3].T, np.float32)
        centre = path.camera_to_world[frame, :3, 3].astype(np.float32)
        lens = path.intrinsics[frame].astype(np.float32)
        bounds, base = [0], 0
        for cloud, drifting in zip(self._clouds, self._drifting, strict=True):
            end = _project(
                cloud.positions if now is None or not drifting else places(cloud, now),
                cloud.tangents,
                cloud.radius,
                rotation,
                centre,
                lens,
                *self._size,
                self._limits,
                base,
                self._record,
                self._row,
                bounds[-1],
            )
            bounds.append(end)
            base += len(cloud)
        return Footprints(self._record[: bounds[-1]], self._row[: bounds[-1]], tuple(bounds))


@compiled
def _project(positions, tangents, radius, rotation, centre, lens, width, height, limits, base, record, row, start):  # type: ignore[no-untyped-def]
    """Append the footprint of every surfel in view; returns the new end."""
    r00, r01, r02 = rotation[0]
    r10, r11, r12 = rotation[1]
    r20, r21, r22 = rotation[2]
    x0, y0, z0 = centre
    fx, fy, cx, cy = lens
    near, widen, largest, step = limits
    one = np.float32(1)
    end = start
    for i in range(len(positions)):
        dx = positions[i, 0] - x0
        dy = positions[i, 1] - y0
        dz = positions[i, 2] - z0
        z = r20 * dx + r21 * dy + r22 * dz
        if z < near:
            continue
        w = one / z
        x = r00 * dx + r01 * dy + r02 * dz
        u = fx * x * w + cx
        if u < -largest or u > width + largest:
            continue
        y = r10 * dx + r11 * dy + r12 * dz
        v = fy * y * w + cy
        if v < -largest or v > height + largest:
            continue
        scale = radius[i] * step
        ax, ay, az = np.float32(tangents[i, 0, 0]), np.float32(tangents[i, 0, 1]), np.float32(tangents[i, 0, 2])
        bx, by, bz = np.float32(tangents[i, 1, 0]), np.float32(tangents[i, 1, 1]), np.float32(tangents[i, 1, 2])
        px = (r00 * ax + r01 * ay + r02 * az) * scale
        py = (r10 * ax + r11 * ay + r12 * az) * scale
        pz = (r20 * ax + r21 * ay + r22 * az) * scale
        qx = (r00 * bx + r01 * by + r02 * bz) * scale
        qy = (r10 * bx + r11 * by + r12 * bz) * scale
        qz = (r20 * bx + r21 * by + r22 * bz) * scale
        nx = py * qz - pz * qy
        ny = pz * qx - px * qz
        nz = px * qy - py * qx
        facing = nx * x + ny * y + nz * z
        if facing <= 0:
            continue
        xw, yw = x * w, y * w
        m00, m01 = fx * w * (px - xw * pz), fx * w * (qx - xw * qz)
        m10, m11 = fy * w * (py - yw * pz), fy * w * (qy - yw * qz)
        a = m00 * m00 + m01 * m01 + widen
        b = m00 * m10 + m01 * m11
        c = m10 * m10 + m11 * m11 + widen
        most = max(a, c)
        if most > largest * largest:
            shrink = largest * largest / most
            a, b, c = a * shrink, b * shrink, c * shrink
        inverse = one / (a * c - b * b)
        record[end, 0], record[end, 1], record[end, 2] = u, v, w
        # The plane n·X = facing has inverse depth n·ray / facing, linear over the image.
        record[end, 3], record[end, 4] = nx / (fx * facing), ny / (fy * facing)
        record[end, 5], record[end, 6], record[end, 7] = c * inverse, -b * inverse, a * inverse
        record[end, 8] = inverse
        record[end, 9], record[end, 10] = np.sqrt(a), np.sqrt(c)
        row[end] = base + i
        end += 1
    return end
