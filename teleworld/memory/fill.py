"""Filling of what the memory does not know by reflection at its edge, so that a world goes on where it ends.

An unknown pixel takes the colour of the point behind the nearest known pixel, as far inside as it is outside: floors go on as
floors, walls as walls, and since the edge lies in the world, what is made up moves with the camera as a world does. Upwards and
downwards it folds back within a few rows of the edge. Where that point is unknown too, one at a smaller part of the distance
serves, the edge itself at last. Known pixels keep their value exactly.

A smooth fill would be nearer to the truth on average and look like none of it: a network that is asked to go on from it
continues fog, which the memory then keeps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled

NOTHING_KNOWN = 128
# The edge is that of regions, not of stray points: a pixel belongs to one if this share of the window around it is known.
_REGION, _REACH = 0.55, 3
# How far inside the colour is taken, as parts of the distance outside; the last is the edge itself.
_DEPTHS = np.array([1.0, 0.7, 0.5, 0.35, 0.25, 0.12, 0.0], np.float32)
# Upwards and downwards the reflection goes back and forth within this part of the height: deeper lies another kind of surface.
_FOLD = 10 / 96


def fill(rgb: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures [F, H, W, 3] of one walk, in order, whose pixels with mask [F, H, W] = 0 are filled.

    A picture of which nothing is known is the mirror image of the one before it, or mid-grey if there is none.
    """
    result = rgb.copy()
    before: NDArray[np.uint8] | None = None
    for picture, known in zip(result, mask, strict=True):
        if known.any():
            if not known.all():
                _fill(picture, known, _DEPTHS)
            before = picture[:, ::-1]
        else:
            picture[...] = NOTHING_KNOWN if before is None else before
    return result


@compiled
def _fill(picture, known, depths):  # type: ignore[no-untyped-def]
    height, width = known.shape
    row, column = _nearest(_regions(known))
    rows = max(1, np.int64(np.rint(_FOLD * height)))
    for v in range(height):
        for u in range(width):
            if known[v, u]:
                continue
            down, right = row[v, u] - v, column[v, u] - u
            for depth in depths:
                y = row[v, u] + _folded(np.int64(np.rint(down * depth)), rows)
                x = column[v, u] + np.int64(np.rint(right * depth))
                if 0 <= y < height and 0 <= x < width and known[y, x]:
                    picture[v, u, 0] = picture[y, x, 0]
                    picture[v, u, 1] = picture[y, x, 1]
                    picture[v, u, 2] = picture[y, x, 2]
                    break


@compiled
def _folded(way, rows):  # type: ignore[no-untyped-def]
    """A triangle wave: the way itself up to so many rows, then back to 0, and so on."""
    inside = abs(way) % (2 * rows)
    inside = min(inside, 2 * rows - inside)
    return inside if way > 0 else -inside


@compiled
def _regions(known):  # type: ignore[no-untyped-def]
    """Known pixels in a mostly known neighbourhood; all known ones where there is no such neighbourhood."""
    height, width = known.shape
    sums = np.zeros((height + 1, width + 1), np.int32)
    for v in range(height):
        for u in range(width):
            sums[v + 1, u + 1] = sums[v, u + 1] + sums[v + 1, u] - sums[v, u] + (known[v, u] > 0)
    region, found = np.zeros((height, width), np.bool_), False
    for v in range(height):
        top, bottom = max(v - _REACH, 0), min(v + _REACH + 1, height)
        for u in range(width):
            if known[v, u]:
                left, right = max(u - _REACH, 0), min(u + _REACH + 1, width)
                count = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
                if count > _REGION * (bottom - top) * (right - left):
                    region[v, u] = found = True
    return region if found else known > 0


@compiled
def _nearest(region):  # type: ignore[no-untyped-def]
    """(row, column) of about the nearest pixel of a region that is not empty, by two sweeps over the picture and back."""
    height, width = region.shape
    far = 4 * (height + width)
    row, column = np.full((height, width), far, np.int64), np.full((height, width), far, np.int64)
    for v in range(height):
        for u in range(width):
            if region[v, u]:
                row[v, u], column[v, u] = v, u
    for sweep in range(2):
        step = 1 - 2 * sweep
        for i in range(height):
            v = i if sweep == 0 else height - 1 - i
            for turn in (1, -1):
                for j in range(width):
                    u = j if turn == 1 else width - 1 - j
                    y, x = row[v, u], column[v, u]
                    best = (y - v) * (y - v) + (x - u) * (x - u)
                    for dv, du in ((0, -turn), (-step, 0), (-step, -1), (-step, 1)):
                        b, a = v + dv, u + du
                        if 0 <= b < height and 0 <= a < width:
                            y, x = row[b, a], column[b, a]
                            length = (y - v) * (y - v) + (x - u) * (x - u)
                            if length < best:
                                best = length
                                row[v, u], column[v, u] = y, x
    return row, column
