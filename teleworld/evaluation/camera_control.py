"""How far the camera of a video moved, told by features and the essential matrix alone: an estimator that knows nothing of
the networks or the commands that made the video."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from teleworld.evaluation.metrics import Pictures
from teleworld.world.camera import CameraPath

MINIMUM_MATCHES = 25
MINIMUM_MOVE_M = 0.3


@dataclass(frozen=True)
class CameraError:
    """Degrees. `rotation`: angle between estimated and commanded rotation. `direction`: between the directions of
    translation, NaN when the command hardly moves."""

    rotation: float
    direction: float


def camera_error(pictures: Pictures, path: CameraPath, first: int, second: int) -> CameraError | None:
    """The error between two frames of a video whose commanded cameras are `path` [F].

    Pitch is applied as the path's own principal point, so both pitch models are covered. None when too few features
    match to say anything.
    """
    matched = _matches(pictures[first], pictures[second])
    if matched is None:
        return None
    one, two = (
        _normalised(points, path.intrinsics[frame]) for points, frame in zip(matched, (first, second), strict=True)
    )
    essential, inliers = cv2.findEssentialMat(one, two, np.eye(3), cv2.RANSAC, 0.999, 1.0 / path.intrinsics[first][0])
    if essential is None or essential.shape != (3, 3):
        return None
    count, rotation, translation, _ = cv2.recoverPose(essential, one, two, np.eye(3), mask=inliers)
    if count < MINIMUM_MATCHES // 2:
        return None
    relative = np.linalg.inv(path.camera_to_world[second]) @ path.camera_to_world[first]
    moved = float(np.linalg.norm(relative[:3, 3]))
    direction = float("nan")
    if moved >= MINIMUM_MOVE_M:
        cosine = float(translation[:, 0] @ relative[:3, 3] / moved)
        direction = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return CameraError(_angle(rotation @ relative[:3, :3].T), direction)


def _matches(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> tuple[NDArray[np.float64], ...] | None:
    """Matched pixel positions [n, 2] of two pictures, by SIFT with Lowe's ratio test."""
    sift = cv2.SIFT_create(contrastThreshold=0.02)
    found = [sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None) for picture in (first, second)]
    (keys_one, one), (keys_two, two) = found
    if one is None or two is None or len(keys_two) < 2:
        return None
    pairs = cv2.BFMatcher().knnMatch(one, two, k=2)
    good = [best for best, *rest in pairs if rest and best.distance < 0.75 * rest[0].distance]
    if len(good) < MINIMUM_MATCHES:
        return None
    return (
        np.array([keys_one[match.queryIdx].pt for match in good], np.float64),
        np.array([keys_two[match.trainIdx].pt for match in good], np.float64),
    )


def _normalised(points: NDArray[np.float64], intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    fx, fy, cx, cy = intrinsics
    # OpenCV's key points count pixel centres from 0, the intrinsics from 0.5.
    return (points + 0.5 - (cx, cy)) / (fx, fy)


def _angle(rotation: NDArray[np.float64]) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
