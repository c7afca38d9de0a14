"""Where a walker may go: a small occupancy grid that the memory makes of its points, so that nobody walks through a wall."""

from __future__ import annotations

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

    def free(self, x: float, z: float, radius: float) -> bool:
        """Whether a disc of `radius` metres at (x, z) touches no occupied cell; outside the grid everything is free."""
        low = (np.floor((np.array([x, z]) - radius - self.origin) / self.cell)).astype(int)
        high = (np.floor((np.array([x, z]) + radius - self.origin) / self.cell)).astype(int) + 1
        low, high = np.maximum(low, 0), np.minimum(high, self.blocked.shape)
        if (low >= high).any():
            return True
        cells = np.argwhere(self.blocked[low[0] : high[0], low[1] : high[1]]) + low
        corner = np.asarray(self.origin) + cells * self.cell
        nearest = np.clip(np.array([x, z]), corner, corner + self.cell)
        return bool((np.hypot(*(nearest - [x, z]).T) > radius).all())

    def slide(self, start: tuple[float, float], move: tuple[float, float], radius: float) -> tuple[float, float]:
        """The end of `move` from `start`, cut to the axis that is free, or no move at all. A blocked start may always leave."""
        x, z = start
        if not self.free(x, z, radius):
            return x + move[0], z + move[1]
        for dx, dz in (move, (move[0], 0.0), (0.0, move[1])):
            if (dx or dz) and self.free(x + dx, z + dz, radius):
                return x + dx, z + dz
        return start
