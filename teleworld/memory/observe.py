"""From the pixels of one key frame to surfels: which pixels may be trusted, and which piece of surface each one saw.

Works on inverse depth, which is linear over the image of any plane: a jump of its *slope* marks a depth edge, however
steeply a floor or wall runs away from the camera, where the usual relative depth range over a window (REFERENCE.md 6)
would throw away most of the floor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled
from teleworld.memory.points import PointCloud
from teleworld.memory.quantise import MAX_EXTENT_M, TANGENT_STEPS, snap_positions, snap_radius
from teleworld.world.camera import Array, unproject

STEEPEST = 7.9  # longest tangent in radii that int8 sixteenths can hold


@compiled
def _slopes(depth, edge):  # type: ignore[no-untyped-def]
    """(sound bool [H, W], slope float32 [H, W, 2]): relative change of inverse depth to the right and lower pixel."""
    height, width = depth.shape
    sound = np.zeros((height, width), np.bool_)
    slope = np.zeros((height, width, 2), np.float32)
    for v in range(height):
        for u in range(width):
            z = depth[v, u]
            if z <= 0:
                continue
            good = True
            for axis in range(2):
                du, dv = 1 - axis, axis
                before = after = np.float32(0)
                has_before = has_after = False
                if u >= du and v >= dv and depth[v - dv, u - du] > 0:
                    before = np.float32(1) - z / depth[v - dv, u - du]
                    has_before = True
                if u + du < width and v + dv < height and depth[v + dv, u + du] > 0:
                    after = z / depth[v + dv, u + du] - np.float32(1)
                    has_after = True
                if has_before and has_after:
                    if abs(after - before) > edge:
                        good = False
                    slope[v, u, axis] = before if abs(before) < abs(after) else after
                elif has_before:
                    slope[v, u, axis] = before
                elif has_after:
                    slope[v, u, axis] = after
            sound[v, u] = good
    return sound, slope


def depth_edges(depth: NDArray[np.float32], edge: float) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Where the depth [H, W] (metres, 0 unknown) is no edge, and its slopes [H, W, 2].

    edge: the largest change of relative inverse-depth slope between the two sides of a pixel.
    """
    sound, slope = _slopes(depth, np.float32(edge))
    return sound, slope


def surfels(
    picture: NDArray[np.uint8],
    depth: NDArray[np.float32],
    slope: NDArray[np.float32],
    chosen: NDArray[np.bool_],
    confidence: NDArray[np.uint8],
    camera_to_world: Array,
    intrinsics: Array,
    frame: int,
    first_id: int,
) -> PointCloud:
    """The surfels of the chosen pixels in row order, on the storage grids. All maps are [H, W]; slope is [H, W, 2]."""
    fx, fy, cx, cy = intrinsics
    height, width = depth.shape
    rows, columns = np.nonzero(chosen)
    z = depth[rows, columns].astype(np.float64)
    ray = np.stack([(columns + 0.5 - cx) / fx, (rows + 0.5 - cy) / fy, np.ones(len(z))], axis=-1)
    steps = np.array([[1 / fx, 0, 0], [0, 1 / fy, 0]])
    slopes = slope[rows, columns].astype(np.float64)
    # d(z·ray) for one pixel: the ray turns, and the depth changes by -slope·z.
    tangents = z[:, None, None] * (steps - slopes[:, :, None] * ray[:, None, :])
    tangents = tangents @ camera_to_world[:3, :3].T
    radius = snap_radius(z / fx)
    scaled = tangents / radius[:, None, None]
    length = np.sqrt((scaled * scaled).sum(axis=-1, keepdims=True))
    scaled *= np.minimum(1.0, STEEPEST / np.maximum(length, 1e-9))
    positions = snap_positions(unproject(depth, intrinsics, camera_to_world)[rows, columns])
    inside: NDArray[np.bool_] = np.abs(positions).max(axis=1, initial=0) < MAX_EXTENT_M
    count = len(z)
    cloud = PointCloud(
        positions=positions,
        tangents=np.rint(scaled * TANGENT_STEPS).astype(np.int8),
        colours=picture[rows, columns],
        radius=radius,
        confidence=confidence[rows, columns],
        frame=np.full(count, frame, np.int32),
        drift=np.zeros((count, 2), np.int8),
        ids=first_id + np.arange(count, dtype=np.int64),
    )
    return cloud if inside.all() else cloud.select(inside)
