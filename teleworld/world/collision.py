"""Where a walker may go: a small occupancy grid that the memory makes of its points, so that nobody walks through a wall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clearance:
    """Occupied cells on the ground plane. `origin` is (x, z) in metres of the corner of cell [0, 0]; `blocked` bool [X, Z]."""

    origin: tuple[float, float]
    cell: float
    blocked: NDArray[np.bool_]

    @classmethod
    def open(cls) -> Clearance:
        """No obstacle anywhere."""
        return cls((0.0, 0.0), 1.0, np.zeros((0, 0), dtype=bool))

    def room(self, x: float, z: float, radius: float) -> float:
        """Metres from (x, z) to the nearest occupied cell, at most `radius`; outside the grid everything is free."""
        # Numbers, not arrays: a gateway asks this for every frame of every world.
        (left, near), cell = self.origin, self.cell
        rows = range(max(math.floor((x - radius - left) / cell), 0), self._end(x + radius - left, 0))
        columns = range(max(math.floor((z - radius - near) / cell), 0), self._end(z + radius - near, 1))
        if not rows or not columns:
            return radius
        around = self.blocked[rows.start : rows.stop, columns.start : columns.stop]
        if not around.any():
            return radius
        nearest = radius
        for row, column in zip(*(axis.tolist() for axis in np.nonzero(around)), strict=True):
            corner_x, corner_z = left + (rows.start + row) * cell, near + (columns.start + column) * cell
            away_x = min(max(x, corner_x), corner_x + cell) - x
            away_z = min(max(z, corner_z), corner_z + cell) - z
            nearest = min(nearest, math.hypot(away_x, away_z))
        return nearest

    def _end(self, reach: float, axis: int) -> int:
        """The first cell along an axis that lies beyond `reach` metres from the origin, or the end of the grid."""
        return min(math.floor(reach / self.cell) + 1, self.blocked.shape[axis])

    def slide(self, start: tuple[float, float], move: tuple[float, float], radius: float) -> tuple[float, float]:
        """The end of `move` from `start`, cut to the axis along which a disc of `radius` metres comes no nearer to what it
        touches, or no move at all. So who stands too near, since the memory has learnt of an obstacle there, may go along it
        and away, not through it; who stands inside of one, anywhere."""
        x, z = start
        room = self.room(x, z, radius)
        for dx, dz in (move, (move[0], 0.0), (0.0, move[1])):
            if (dx or dz) and self.room(x + dx, z + dz, radius) >= room:
                return x + dx, z + dz
        return start
