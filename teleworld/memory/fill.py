"""Smooth filling of holes by a push-pull pyramid, so that the encoder sees no hard edges where the memory knows nothing.

Push: each coarser level averages the pixels that are known. Pull: from the coarsest level back, unknown pixels take the
bilinear value of the level above. Known pixels keep their value exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.compiled import compiled

NOTHING_KNOWN = 128


def fill(rgb: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures [F, H, W, 3] whose pixels with mask [F, H, W] = 0 are filled; mid-grey where a whole picture is unknown."""
    result = rgb.copy()
    for picture, known in zip(result, mask, strict=True):
        if not known.any():
            picture[...] = NOTHING_KNOWN
        elif not known.all():
            _fill(picture, known)
    return result


@compiled
def _fill(picture, known):  # type: ignore[no-untyped-def]
    height, width = known.shape
    base = np.zeros((height, width, 4), np.float32)
    for v in range(height):
        for u in range(width):
            if known[v, u]:
                base[v, u, 0] = picture[v, u, 0]
                base[v, u, 1] = picture[v, u, 1]
                base[v, u, 2] = picture[v, u, 2]
                base[v, u, 3] = 1
    levels = [base]
    while levels[-1].shape[0] > 1 or levels[-1].shape[1] > 1:
        levels.append(_push(levels[-1]))
    for i in range(len(levels) - 2, -1, -1):
        _pull(levels[i], levels[i + 1])
    half = np.float32(0.5)
    for v in range(height):
        for u in range(width):
            if not known[v, u]:
                picture[v, u, 0] = np.uint8(base[v, u, 0] + half)
                picture[v, u, 1] = np.uint8(base[v, u, 1] + half)
                picture[v, u, 2] = np.uint8(base[v, u, 2] + half)


@compiled
def _push(fine):  # type: ignore[no-untyped-def]
    """Half the size: colours averaged by weight, weights summed up to one."""
    height, width = fine.shape[:2]
    coarse = np.zeros(((height + 1) // 2, (width + 1) // 2, 4), np.float32)
    for v in range(height):
        for u in range(width):
            weight = fine[v, u, 3]
            if weight > 0:
                cell = coarse[v // 2, u // 2]
                cell[0] += weight * fine[v, u, 0]
                cell[1] += weight * fine[v, u, 1]
                cell[2] += weight * fine[v, u, 2]
                cell[3] += weight
    one = np.float32(1)
    for v in range(coarse.shape[0]):
        for u in range(coarse.shape[1]):
            cell = coarse[v, u]
            if cell[3] > 0:
                inverse = one / cell[3]
                cell[0] *= inverse
                cell[1] *= inverse
                cell[2] *= inverse
                cell[3] = min(cell[3], one)
    return coarse


@compiled
def _pull(fine, coarse):  # type: ignore[no-untyped-def]
    """Blend what is missing of each fine pixel from the bilinear coarse level, which is complete."""
    height, width = fine.shape[:2]
    last_row, last_column = coarse.shape[0] - 1, coarse.shape[1] - 1
    one, near, far = np.float32(1), np.float32(0.75), np.float32(0.25)
    for v in range(height):
        v0 = v // 2
        v1 = min(max(v0 + (1 if v % 2 else -1), 0), last_row)
        for u in range(width):
            missing = one - fine[v, u, 3]
            if missing <= 0:
                continue
            u0 = u // 2
            u1 = min(max(u0 + (1 if u % 2 else -1), 0), last_column)
            for c in range(3):
                top = near * coarse[v0, u0, c] + far * coarse[v0, u1, c]
                bottom = near * coarse[v1, u0, c] + far * coarse[v1, u1, c]
                fine[v, u, c] = fine[v, u, 3] * fine[v, u, c] + missing * (near * top + far * bottom)
            fine[v, u, 3] = one
