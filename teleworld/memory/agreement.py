"""What a measurement may change: depth where a picture shows what the memory shows is the memory's.

A generated key frame is painted over the memory's own rendering, so where it kept the colours it shows the same surface, and
that surface's depth is known. A network that measures it anew errs by a tenth and more, differently each time: walls would
move, double and be struck out while one looks at them. Measured depth serves where the picture shows something else or the
memory knows nothing, brought to the memory's scale by how the two compare around it, so that surfaces go on without a step.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.fusion import Observation
from teleworld.memory.splat import Rendering

# Mean difference of colours (0..255) around a pixel up to which it shows the same, and pixels to each side that are averaged.
_SAME, _AROUND = 24.0, 2
# The memory never multiplies or divides a measured depth by more than this.
_MOST = 2.0


def settled(seen: Observation, shown: Rendering) -> Observation:
    """`seen` with the depth of `shown`, the memory from the same cameras, where both show the same and nothing moves."""
    still = ~(seen.dynamic | shown.dynamic)
    frames = zip(seen.depth, seen.pictures, shown.depth, shown.rgb, still, strict=True)
    return replace(seen, depth=np.stack([_settle(*frame) for frame in frames]))


def _settle(
    measured: NDArray[np.float32],
    picture: NDArray[np.uint8],
    depth: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    still: NDArray[np.bool_],
) -> NDArray[np.float32]:
    known = (depth > 0) & still
    differs = np.abs(picture.astype(np.float32) - rgb.astype(np.float32)).mean(axis=2)
    shown, weight = _box(np.where(known, differs, 0)), _box(known.astype(np.float32))
    same = known & (shown <= _SAME * weight)
    comparable = same & np.isfinite(measured) & (measured > 0)
    if not comparable.any():
        return measured
    ratio = np.where(comparable, np.log(np.where(comparable, depth / np.where(comparable, measured, 1), 1)), 0)
    factor = np.exp(
        np.clip(_spread(ratio.astype(np.float32), comparable.astype(np.float32)), -np.log(_MOST), np.log(_MOST))
    )
    return np.where(same, depth, measured * factor).astype(np.float32)


def _box(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums over windows of `_AROUND` pixels to each side [H, W]: differences of running sums, so of float64."""
    size = 2 * _AROUND + 1
    sums = np.pad(values, ((_AROUND + 1, _AROUND), (_AROUND + 1, _AROUND))).cumsum(0, np.float64).cumsum(1)
    return sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]


def _spread(values: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values [H, W] where `weight` is 1, and between them the mean of those around, from ever wider windows (push and pull)."""
    height, width = values.shape
    if height <= 1 and width <= 1:
        return values
    padded = [np.pad(one, ((0, height % 2), (0, width % 2))) for one in (values * weight, weight)]
    sums, count = (one.reshape(one.shape[0] // 2, 2, one.shape[1] // 2, 2).sum(axis=(1, 3)) for one in padded)
    coarse = _spread(sums / np.maximum(count, 1), np.minimum(count, 1))
    wide = np.repeat(np.repeat(coarse, 2, axis=0), 2, axis=1)[:height, :width]
    return np.where(weight > 0, values, wide)
