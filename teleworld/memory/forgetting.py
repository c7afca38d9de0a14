"""Staying within the budget of points: what is far away fades to half its detail before anything is lost.

A hole would be filled with something new on the way back, and the world would no longer be the same; a coarse memory of
a place is still that place, and coming close refines it again. So the points that are finest for their distance from the
camera are merged, one for each cell of twice their size, and only a field that is coarse all over loses its far end.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled
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
    eye = camera.astype(np.float32)
    for _ in range(ROUNDS):
        excess = len(static) - target
        if excess <= 0:
            return static, next_id
        fineness = static.radius / _distance(static.positions, eye)
        chosen = _least(fineness, min(int(excess / YIELD), len(static)))
        merged = _merge(static.select(chosen), next_id)
        next_id += len(merged)
        static = static.succeed(~chosen, merged)
    if len(static) > budget:
        static = static.select(_least(_distance(static.positions, eye), target))
    return static, next_id


def _least(values: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Marks [P] the `count` smallest of values [P], of equal ones the first."""
    limit = np.partition(values, count - 1)[count - 1]
    chosen = values < limit
    equal = np.flatnonzero(values == limit)
    chosen[equal[: count - int(chosen.sum())]] = True
    return chosen


def _merge(fine: PointCloud, first_id: int) -> PointCloud:
    """One point of twice the radius for each cell of twice the radius: the one nearest its middle, in the mean colour."""
    level = octaves(fine.radius)
    scaled = fine.positions / np.ldexp(np.float32(2), level)[:, None]
    cell = np.floor(scaled).astype(np.int32)
    off_centre = np.abs(scaled - cell - np.float32(0.5)).sum(axis=1)
    rows, members, colours = _group(level, cell, off_centre, fine.colours)
    kept = fine.select(rows)
    return replace(
        kept,
        colours=((colours + members[:, None] // 2) // members[:, None]).astype(np.uint8),
        radius=np.where(members == 1, kept.radius, snap_radius(2 * kept.radius)),
        ids=first_id + np.arange(len(kept), dtype=np.int64),
    )


@compiled
def _distance(positions, eye):  # type: ignore[no-untyped-def]
    """Metres [P] float32 of positions [P, 3] from `eye` [3], never zero."""
    far = np.empty(len(positions), np.float32)
    for i in range(len(positions)):
        x, y, z = positions[i, 0] - eye[0], positions[i, 1] - eye[1], positions[i, 2] - eye[2]
        far[i] = np.sqrt(x * x + y * y + z * z) + np.float32(1e-3)
    return far


@compiled
def _group(level, cell, off_centre, colours):  # type: ignore[no-untyped-def]
    """The cells that points [P] fall into, in the order in which they are met, by a hash table with linear probing.

    level: int32 [P]; cell: int32 [P, 3]. Returns by cell the row of the point with the least `off_centre`, how many there are,
    and the sums of their colours [G, 3].
    """
    count = len(level)
    size = 1
    while size < 2 * count:
        size *= 2
    table = np.full(size, -1, np.int32)
    rows, members = np.empty(count, np.int32), np.zeros(count, np.int64)
    sums = np.zeros((count, 3), np.int64)
    groups = 0
    for i in range(count):
        key = np.int64(level[i]) * 73856093 ^ np.int64(cell[i, 0]) * 19349669
        key ^= np.int64(cell[i, 1]) * 83492791 ^ np.int64(cell[i, 2]) * 50331653
        slot = (key ^ key >> 15) & (size - 1)
        while table[slot] >= 0:
            other = rows[table[slot]]
            same = level[other] == level[i] and cell[other, 0] == cell[i, 0]
            if same and cell[other, 1] == cell[i, 1] and cell[other, 2] == cell[i, 2]:
                break
            slot = slot + 1 & (size - 1)
        group = table[slot]
        if group < 0:
            group = table[slot] = groups
            rows[group] = i
            groups += 1
        elif off_centre[i] < off_centre[rows[group]]:
            rows[group] = i
        members[group] += 1
        for channel in range(3):
            sums[group, channel] += colours[i, channel]
    return rows[:groups], members[:groups], sums[:groups]
