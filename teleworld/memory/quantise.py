"""The grids that every stored point lies on.

A point is put on these grids when it is first observed, not when it is written: the field in a worker's memory and the
field read back from the store are then the same bits, and a restarted reconstructor continues exactly where another
stopped.

- Positions are whole multiples of 1/1024 m, so the error is at most 0.49 mm an axis, a tenth of the smallest footprint
  (about 4.5 mm: 0.3 m away through the nano lens). Every multiple within `MAX_EXTENT_M` of the origin is an exact float32.
- Radii are logarithmic, 15 steps an octave from 0.1 mm to 13 m: 2.3 % at most.
- Tangents are int8 in sixteenths of the radius.
- Drifts are int8 in 1/200 m a frame: up to 0.63 m, 11 m a second at 17.5 frames a second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRID_PER_METRE = 1024
MAX_EXTENT_M = 8192.0
TANGENT_STEPS = 16
DRIFT_PER_METRE = 200
_CODE_OF_METRE = 199  # the code of a radius of 1 m
RADIUS_CODES: NDArray[np.float32] = np.array([1e-4 * 2.0 ** (code / 15) for code in range(256)], dtype=np.float32)


def snap_positions(positions: NDArray[np.floating]) -> NDArray[np.float32]:
    """The nearest grid positions [P, 3] float32, in metres."""
    return (np.rint(positions.astype(np.float64) * GRID_PER_METRE) / GRID_PER_METRE).astype(np.float32)


def position_codes(positions: NDArray[np.float32]) -> NDArray[np.int32]:
    """Grid indices [P, 3] of positions that lie on the grid; exact, because the grid is a power of two."""
    return (positions * np.float32(GRID_PER_METRE)).astype(np.int32)


def positions_of(codes: NDArray[np.int32]) -> NDArray[np.float32]:
    """Positions [P, 3] in metres of grid indices; exact."""
    return codes.astype(np.float32) * np.float32(1 / GRID_PER_METRE)


def radius_codes(radius: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The nearest radius code [P] on the logarithmic scale."""
    radius = radius.astype(np.float32)
    upper = np.clip(np.searchsorted(RADIUS_CODES, radius), 1, 255)
    low, high = RADIUS_CODES[upper - 1], RADIUS_CODES[upper]
    return np.where(radius * radius < low * high, upper - 1, upper).astype(np.uint8)


def snap_radius(radius: NDArray[np.floating]) -> NDArray[np.float32]:
    """The nearest radii [P] float32 on the logarithmic scale, in metres."""
    return RADIUS_CODES[radius_codes(radius)]


def octaves(radius: NDArray[np.floating]) -> NDArray[np.int32]:
    """The nearest power of two [P] of radii in metres, in whole numbers, so that it is the same on every machine."""
    return (radius_codes(radius).astype(np.int32) - _CODE_OF_METRE + 7) // 15
