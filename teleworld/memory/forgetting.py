"""Staying within the budget of points: what is far away fades to half its detail before anything is lost.

A hole would be filled with something new on the way back, and the world would no longer be the same; a coarse memory of
a place is still that place, and coming close refines it again. So the points that are finest for their distance from the
camera are merged, one for each cell of twice their size, and only a field that is coarse all over loses its far end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.points import PointCloud
from teleworld.memory.quantise import octaves, snap_radius

ROUNDS = 4
YIELD = 0.4  # share of points that a merge removes, cautiously


def forget(
    static: PointCloud, camera: NDArray[np.float64], budget: int, target: int, next_id: int
) -> tuple[PointCloud, int]:
    """(at most `budget` points, the next free id); unchanged if they are within it, else about `target` of them.

    camera: [3], where the world is being looked at from. Merged points take new ids. Deterministic: ties go by id.
    """
    if len(static) <= budget:
        return static, next_id
    for _ in range(ROUNDS):
        excess = len(static) - target
        if excess <= 0:
            return static, next_id
        order = np.argsort(static.radius / _distance(static, camera), kind="stable")
        chosen = np.zeros(len(static), bool)
        chosen[order[: int(excess / YIELD)]] = True
        merged = _merge(static.select(chosen), next_id)
        next_id += len(merged)
        static = static.succeed(~chosen, merged)
    if len(static) > budget:
        static = static.select(np.sort(np.argsort(_distance(static, camera), kind="stable")[:target]))
    return static, next_id


def _distance(static: PointCloud, camera: NDArray[np.float64]) -> NDArray[np.float32]:
    """Metres [P] from the camera, never zero."""
    x, y, z = (static.positions - camera.astype(np.float32)).T
    return np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)


def _merge(fine: PointCloud, first_id: int) -> PointCloud:
    """One point of twice the radius for each cell of twice the radius: the one nearest its middle, in the mean colour."""
    level = octaves(fine.radius)
    scaled = fine.positions / np.ldexp(np.float32(2), level)[:, None]
    cell = np.floor(scaled).astype(np.int32)
    off_centre = np.abs(scaled - cell - 0.5).sum(axis=1)
    order = np.lexsort((off_centre, cell[:, 2], cell[:, 1], cell[:, 0], level))
    keys = np.column_stack([level, cell])[order]
    starts = np.flatnonzero(np.append(True, (np.diff(keys, axis=0) != 0).any(axis=1)))
    members = np.diff(np.append(starts, len(order)))
    colours = np.add.reduceat(fine.colours[order].astype(np.int64), starts, axis=0)
    kept = fine.select(order[starts])
    alone = members == 1
    return replace(
        kept,
        colours=((colours + members[:, None] // 2) // members[:, None]).astype(np.uint8),
        radius=np.where(alone, kept.radius, snap_radius(2 * kept.radius)),
        ids=first_id + np.arange(len(kept), dtype=np.int64),
    )
