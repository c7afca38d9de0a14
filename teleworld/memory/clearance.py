"""How far one may walk: an occupancy grid of the static points at body height (`teleworld.world.collision`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from teleworld.memory.compiled import compiled
from teleworld.memory.points import Field
from teleworld.world.collision import Clearance


@dataclass(frozen=True)
class Body:
    """Who walks, in metres.

    eye: height of the camera over the floor. above: how far over the eye something may hang. step: height of what one
    steps over (a little more than the 24 map units of the game, so that its stairs are no walls). reach: distance around
    the camera that is mapped. cell: edge of a cell. points: how many points block a cell. coarsest: points with a larger
    footprint say too little about where the wall is, and block nothing.
    """

    eye: float = 1.28
    above: float = 0.1
    step: float = 0.76
    reach: float = 8.0
    cell: float = 0.2
    points: int = 3
    coarsest: float = 0.1


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
