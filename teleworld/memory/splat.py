"""Rendering the field at given poses: a two-pass z-buffer splat of surfels (REFERENCE.md 6).

Pass one finds the front surface: every surfel writes the inverse depth of its plane over its footprint. Pass two blends
the colours of the surfels that lie on that front, the nearest centre and the finest footprint far ahead of the others,
which keeps texture sharp.

Same input, same bits: one thread, points in order, no fast math.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled
from teleworld.memory.footprint import SOLID, FootprintStyle, Projector, box
from teleworld.memory.points import Field, PointCloud
from teleworld.world.camera import CameraPath

TILE = 12  # pixels


@dataclass(frozen=True)
class SplatStyle:
    """How surfels become pixels.

    footprint: their shapes. reach: squared radius, in ellipses, over which a surfel gives colour. front: relative inverse
    depth behind the front up to which a surfel still belongs to it.
    """

    footprint: FootprintStyle = field(default_factory=FootprintStyle)
    reach: float = 0.8
    front: float = 0.08


DEFAULT_STYLE = SplatStyle()


@dataclass(frozen=True, eq=False)
class Rendering:
    """What clouds look like over F frames.

    rgb: uint8 [F, H, W, 3], black in holes. depth: float32 [F, H, W] metres, 0 in holes. mask: uint8 [F, H, W], 0 hole or
    255 seen. index: int32 [F, H, W], the row of the heaviest point in the concatenated clouds, -1 in holes. seen: int32
    [F, H, W], the global frame in which that point was observed (-1 in holes), from which its age follows. dynamic: bool
    [F, H, W], seen and from a moving point.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    mask: NDArray[np.uint8]
    index: NDArray[np.int32]
    seen: NDArray[np.int32]
    dynamic: NDArray[np.bool_]


def render(memory: Field, path: CameraPath, width: int, height: int, style: SplatStyle = DEFAULT_STYLE) -> Rendering:
    """The field, static and newest dynamic points, from F cameras onto images of width x height."""
    return splat([memory.static, memory.dynamic], len(memory.static), path, width, height, style)


def splat(
    clouds: Sequence[PointCloud],
    statics: int,
    path: CameraPath,
    width: int,
    height: int,
    style: SplatStyle = DEFAULT_STYLE,
) -> Rendering:
    """Render clouds together; rows of the concatenated clouds from `statics` on count as dynamic."""
    size = (len(path), height, width)
    rgb = np.zeros((*size, 3), np.uint8)
    depth = np.zeros(size, np.float32)
    index = np.full(size, -1, np.int32)
    projector = Projector(clouds, width, height, style.footprint)
    reach, front = np.float32(style.reach), np.float32(1 - style.front)
    nearest = np.empty((height, width), np.float32)
    total = np.empty((height, width, 6), np.float32)
    for frame in range(len(path)):
        seen = projector.see(path, frame)
        nearest.fill(0)
        total.fill(0)
        _front(seen.record, SOLID, nearest)
        horizon = _horizon(nearest, front)
        base = 0
        for cloud, (start, end) in zip(clouds, pairwise(seen.bounds), strict=True):
            record, row = seen.record[start:end], seen.row[start:end]
            _blend(record, row, base, cloud.colours, reach, front, nearest, horizon, total, index[frame])
            base += len(cloud)
        _finish(total, rgb[frame], depth[frame])
    observed = np.concatenate([*(cloud.frame for cloud in clouds), np.array([-1], np.int32)])
    mask = np.where(index >= 0, np.uint8(255), np.uint8(0))
    return Rendering(rgb, depth, mask, index, observed[index], index >= statics)


@compiled
def _front(record, solid, nearest):  # type: ignore[no-untyped-def]
    """Pass one: `nearest` [H, W] becomes the largest inverse depth over every footprint."""
    height, width = nearest.shape
    half = np.float32(0.5)
    two = np.float32(2)
    root = np.sqrt(solid)
    for i in range(len(record)):
        u, v, w, gu, gv = record[i, 0], record[i, 1], record[i, 2], record[i, 3], record[i, 4]
        a, b, c, hu, hv = record[i, 5], record[i, 6], record[i, 7], record[i, 9], record[i, 10]
        iu, iv = int(np.floor(u)), int(np.floor(v))
        if hu * root < half and hv * root < half:  # a point and no more: most of what is seen from afar
            if 0 <= iu < width and 0 <= iv < height and w > nearest[iv, iu]:
                nearest[iv, iu] = w
            continue
        u0, u1, v0, v1 = box(u, v, root * hu, root * hv, width, height)
        low, high = w * np.float32(0.7), w * np.float32(1.4)  # a plane seen edge-on must not run to the horizon
        for py in range(v0, v1):
            dv = np.float32(py) + half - v
            for px in range(u0, u1):
                du = np.float32(px) + half - u
                if a * du * du + two * b * du * dv + c * dv * dv > solid and (px != iu or py != iv):
                    continue
                here = min(max(w + gu * du + gv * dv, low), high)
                if here > nearest[py, px]:
                    nearest[py, px] = here


@compiled
def _horizon(nearest, front):  # type: ignore[no-untyped-def]
    """Per tile, the inverse depth behind which nothing shows in it or in the eight tiles around it."""
    height, width = nearest.shape
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    deepest = np.full((rows, columns), np.float32(np.inf))
    for v in range(height):
        for u in range(width):
            deepest[v // TILE, u // TILE] = min(deepest[v // TILE, u // TILE], nearest[v, u])
    horizon = np.empty_like(deepest)
    for v in range(rows):
        for u in range(columns):
            horizon[v, u] = deepest[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2].min() * front
    return horizon


@compiled
def _add(total, index, v, u, row, colours, point, inverse_depth, weight):  # type: ignore[no-untyped-def]
    """Add one surfel to the sums of a pixel."""
    total[v, u, 0] += weight * np.float32(colours[point, 0])
    total[v, u, 1] += weight * np.float32(colours[point, 1])
    total[v, u, 2] += weight * np.float32(colours[point, 2])
    total[v, u, 3] += weight * inverse_depth
    total[v, u, 4] += weight
    if weight > total[v, u, 5]:
        total[v, u, 5] = weight
        index[v, u] = row


@compiled
def _blend(record, row, base, colours, reach, front, nearest, horizon, total, index):  # type: ignore[no-untyped-def]
    """Pass two: sums `total` [H, W, 6] of weighted (r, g, b, inverse depth), weight and the heaviest; `index` its row."""
    height, width = nearest.shape
    half, one, two = np.float32(0.5), np.float32(1), np.float32(2)
    least = np.float32(1e-4)
    root = np.sqrt(reach)
    scale = one / reach
    for i in range(len(record)):
        u, v, w, gu, gv = record[i, 0], record[i, 1], record[i, 2], record[i, 3], record[i, 4]
        a, b, c, fine, hu, hv = record[i, 5], record[i, 6], record[i, 7], record[i, 8], record[i, 9], record[i, 10]
        iu, iv = int(np.floor(u)), int(np.floor(v))
        low, high = w * np.float32(0.7), w * np.float32(1.4)
        if high < horizon[min(max(iv, 0), height - 1) // TILE, min(max(iu, 0), width - 1) // TILE]:
            continue
        if hu * root < half and hv * root < half:
            if iu < 0 or iu >= width or iv < 0 or iv >= height or w < nearest[iv, iu] * front:
                continue
            du, dv = np.float32(iu) + half - u, np.float32(iv) + half - v
            near = max(one - (a * du * du + two * b * du * dv + c * dv * dv) * scale, np.float32(0))
            weight = (near * near + least) * fine
            _add(total, index, iv, iu, row[i], colours, row[i] - base, w, weight)
            continue
        u0, u1, v0, v1 = box(u, v, root * hu, root * hv, width, height)
        for py in range(v0, v1):
            dv = np.float32(py) + half - v
            for px in range(u0, u1):
                du = np.float32(px) + half - u
                near = one - (a * du * du + two * b * du * dv + c * dv * dv) * scale
                if near <= 0:
                    if px != iu or py != iv:
                        continue
                    near = np.float32(0)
                here = min(max(w + gu * du + gv * dv, low), high)
                if here < nearest[py, px] * front:
                    continue
                weight = (near * near + least) * fine
                _add(total, index, py, px, row[i], colours, row[i] - base, here, weight)


@compiled
def _finish(total, rgb, depth):  # type: ignore[no-untyped-def]
    """Sums to colours and depth; a pixel without weight stays a hole."""
    height, width = depth.shape
    half, one = np.float32(0.5), np.float32(1)
    for v in range(height):
        for u in range(width):
            weight = total[v, u, 4]
            if weight > 0:
                inverse = one / weight
                rgb[v, u, 0] = np.uint8(total[v, u, 0] * inverse + half)
                rgb[v, u, 1] = np.uint8(total[v, u, 1] * inverse + half)
                rgb[v, u, 2] = np.uint8(total[v, u, 2] * inverse + half)
                depth[v, u] = weight / total[v, u, 3]
