"""How far one may walk: an occupancy grid of the static points at body height (`teleworld.world.collision`); and how far
what moves may go straight on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled
from teleworld.memory.points import Field, PointCloud
from teleworld.world.collision import Clearance


@dataclass(frozen=True)
class Body:
    """Who walks, in metres.

    eye: height of the camera over the floor. above: how far over the eye something may hang. step: height of what one
    steps over (a little more than the 24 map units of the game, so that its stairs are no walls). reach: distance around
    the camera that is mapped. cell: edge of a cell. points: how many points block a cell. coarsest: points with a larger
    footprint say too little about where the wall is, and block nothing. girth: half the height and the width of what must not
    touch a wall when something moves on.
    """

    eye: float = 1.28
    above: float = 0.1
    step: float = 0.76
    reach: float = 8.0
    cell: float = 0.2
    points: int = 3
    coarsest: float = 0.1
    girth: float = 0.3


DEFAULT_BODY = Body()


def clearance(field: Field, x: float, y: float, z: float, body: Body = DEFAULT_BODY) -> Clearance:
    """The cells around a camera at (x, y, z) metres (y down) in which static points stand between knee and eye."""
    side = int(np.ceil(2 * body.reach / body.cell))
    corner = (x - body.reach, z - body.reach)
    counts = _count(
        field.static.positions,
        field.static.radius,
        corner[0],
        corner[1],
        y - body.above,
        y + body.eye - body.step,
        1 / body.cell,
        side,
        body.coarsest,
    )
    return Clearance(corner, body.cell, counts >= body.points)


def free_way(
    static: PointCloud, start: NDArray[np.float64], way: NDArray[np.float64], body: Body = DEFAULT_BODY
) -> float:
    """Metres that a body in `start` [3] (its middle) may go in the direction of `way` [2] (x, z), at most the length of it,
    before static points stand in its way."""
    length = float(np.sqrt(way[0] * way[0] + way[1] * way[1]))
    if length == 0:
        return 0.0
    reach, girth = (way / length * (length + body.girth)).astype(np.float32), np.float32(body.girth)
    ahead = _ahead(static.positions, static.radius, start.astype(np.float32), reach, girth, body.cell, body.coarsest)
    blocked = np.flatnonzero(ahead >= body.points)
    return max(float(blocked[0] * body.cell) - body.girth, 0.0) if len(blocked) else length


@compiled
def _ahead(positions, radius, start, reach, half, cell, coarsest):  # type: ignore[no-untyped-def]
    """Points in each cell of a lane along `reach` [2] from `start` [3], as high and wide as twice `half`, but for its first
    `half`."""
    length = np.sqrt(reach[0] * reach[0] + reach[1] * reach[1])
    east, north = reach[0] / length, reach[1] / length
    counts = np.zeros(int(length / cell) + 1, np.int32)
    # Most points lie outside the box around the lane.
    x0, z0 = start[0] + min(reach[0], np.float32(0)) - half, start[2] + min(reach[1], np.float32(0)) - half
    wide, deep = abs(reach[0]) + half + half, abs(reach[1]) + half + half
    for i in range(len(positions)):
        x, z = positions[i, 0], positions[i, 2]
        if x < x0 or x > x0 + wide or z < z0 or z > z0 + deep or abs(positions[i, 1] - start[1]) > half:
            continue
        x, z = x - start[0], z - start[2]
        along, across = x * east + z * north, z * east - x * north
        if half <= along < length and abs(across) <= half and radius[i] <= coarsest:
            counts[int(along / cell)] += 1
    return counts


@compiled
def _count(positions, radius, x0, z0, top, bottom, scale, side, coarsest):  # type: ignore[no-untyped-def]
    """Points [side, side] in each cell between the heights `top` and `bottom` (y down)."""
    counts = np.zeros((side, side), np.int32)
    for i in range(len(positions)):
        y = positions[i, 1]
        if y < top or y > bottom or radius[i] > coarsest:
            continue
        cx, cz = (positions[i, 0] - x0) * scale, (positions[i, 2] - z0) * scale
        if 0 <= cx < side and 0 <= cz < side:
            counts[int(cx), int(cz)] += 1
    return counts
