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

from teleworld.memory.footprint import FootprintStyle, Projector
from teleworld.memory.points import Field, PointCloud
from teleworld.memory.raster import blend, finish, front_surface
from teleworld.world.camera import CameraPath


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


def render(
    memory: Field,
    path: CameraPath,
    width: int,
    height: int,
    style: SplatStyle = DEFAULT_STYLE,
    frames: Sequence[int] | None = None,
) -> Rendering:
    """The field, static and newest dynamic points, from F cameras onto images of width x height.

    frames: the cameras' F global pixel frames, which say where things have moved to; None: those right behind the newest key
    frame, one after the other.
    """
    if frames is None:
        first = memory.view.frame + 1 if memory.view is not None else 0
        frames = range(first, first + len(path))
    return splat([memory.static, memory.dynamic], len(memory.static), path, width, height, style, frames)


def splat(
    clouds: Sequence[PointCloud],
    statics: int,
    path: CameraPath,
    width: int,
    height: int,
    style: SplatStyle = DEFAULT_STYLE,
    frames: Sequence[int] | None = None,
) -> Rendering:
    """Render clouds together; rows of the concatenated clouds from `statics` on count as dynamic.

    frames: the cameras' global pixel frames; None: every point is where it was last seen.
    """
    size = (len(path), height, width)
    rgb = np.zeros((*size, 3), np.uint8)
    depth = np.zeros(size, np.float32)
    index = np.full(size, -1, np.int32)
    projector = Projector(clouds, width, height, style.footprint)
    reach, front = np.float32(style.reach), np.float32(1 - style.front)
    nearest = np.empty((height, width), np.float32)
    total = np.empty((height, width, 6), np.float32)
    for frame in range(len(path)):
        seen = projector.see(path, frame, None if frames is None else frames[frame])
        nearest.fill(0)
        total.fill(0)
        front_surface(seen.record, nearest)
        base = 0
        for cloud, (start, end) in zip(clouds, pairwise(seen.bounds), strict=True):
            record, row = seen.record[start:end], seen.row[start:end]
            blend(record, row, base, cloud.colours, reach, front, nearest, total, index[frame])
            base += len(cloud)
        finish(total, rgb[frame], depth[frame])
    observed = np.concatenate([*(cloud.frame for cloud in clouds), np.array([-1], np.int32)])
    mask = np.where(index >= 0, np.uint8(255), np.uint8(0))
    return Rendering(rgb, depth, mask, index, observed[index], index >= statics)
