"""Motion of a clip: dense optical flow (OpenCV's DIS), the part of it that the camera explains, and what is left.

The camera's part is a homography fitted to background features with RANSAC: exact for rotation and far scenes, close for the
small steps between neighbouring samples. What it does not explain is parallax or an object that moves by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

MINIMUM_FEATURES = 12


@dataclass(frozen=True, eq=False)
class Motion:
    """Between two pictures, in pixels. flow: float32 [H, W, 2]; residual: float32 [H, W], its length without the camera's
    part. camera: mean displacement that the camera caused. homography: [3, 3], or None where no features held."""

    flow: NDArray[np.float32]
    residual: NDArray[np.float32]
    camera: float
    homography: NDArray[np.float64] | None


def motions(pictures: NDArray[np.uint8]) -> list[Motion]:
    """Motion between neighbouring pictures of uint8 [n, H, W, 3]."""
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    found = []
    for one, other in pairwise(grey):
        flow = estimator.calc(one, other, None)  # type: ignore[call-overload]  # None asks for a new array
        found.append(_motion(one, other, flow))
    return found


def _motion(one: NDArray[np.uint8], other: NDArray[np.uint8], flow: NDArray[np.float32]) -> Motion:
    homography = _background(one, other)
    height, width = one.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    if homography is None:
        return Motion(flow, np.linalg.norm(flow, axis=-1), float("nan"), None)
    moved = cv2.perspectiveTransform(grid.reshape(1, -1, 2), homography).reshape(height, width, 2) - grid
    residual = np.linalg.norm(flow - moved, axis=-1).astype(np.float32)
    return Motion(flow, residual, float(np.linalg.norm(moved, axis=-1).mean()), homography)


def _background(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    points = cv2.goodFeaturesToTrack(one, 400, 0.01, 7)
    if points is None or len(points) < MINIMUM_FEATURES:
        return None
    tracked, found, _ = cv2.calcOpticalFlowPyrLK(one, other, points, np.empty_like(points))
    held = found[:, 0] == 1
    if held.sum() < MINIMUM_FEATURES:
        return None
    return cv2.findHomography(points[held], tracked[held], cv2.RANSAC, 2.0)[0]
