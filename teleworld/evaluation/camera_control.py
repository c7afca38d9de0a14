"""How far the camera of a video moved, told by features and the essential matrix alone: an estimator that knows nothing of
the networks or the commands that made the video."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from teleworld.evaluation.metrics import Pictures
from teleworld.world.camera import CameraPath

MINIMUM_MATCHES = 25
MINIMUM_MOVE_M = 0.3
# The strongest ones: more add weak corners and matching time, which grows with the square.
MOST_FEATURES = 800

Features = tuple[NDArray[np.float64], NDArray[Any]]


@dataclass(frozen=True)
class CameraError:
    """Degrees. `rotation`: angle between estimated and commanded rotation. `direction`: between the directions of
    translation, NaN when the command hardly moves."""

    rotation: float
    direction: float


def camera_errors(pictures: Pictures, path: CameraPath, step: int) -> list[CameraError | None]:
    """`camera_error` between every `step`-th frame and the next such one."""
    frames = range(0, len(pictures), step)
    features = [_features(pictures[frame]) for frame in frames]
    return [
        _error(one, two, path[[first, second]])
        for (first, one), (second, two) in pairwise(zip(frames, features, strict=True))
    ]


def camera_error(pictures: Pictures, path: CameraPath, first: int, second: int) -> CameraError | None:
    """The error between two frames of a video whose commanded cameras are `path` [F].

    Pitch is applied as the path's own principal point, so both pitch models are covered. None when too few features
    match to say anything.
    """
    return _error(_features(pictures[first]), _features(pictures[second]), path[[first, second]])


def _error(first: Features | None, second: Features | None, path: CameraPath) -> CameraError | None:
    """The error between two views of features, whose cameras are `path` [2]."""
    matched = None if first is None or second is None else _matches(first, second)
    if matched is None:
        return None
    one, two = (_normalised(points, lens) for points, lens in zip(matched, path.intrinsics, strict=True))
    essential, inliers = cv2.findEssentialMat(one, two, np.eye(3), cv2.RANSAC, 0.999, 1.0 / path.intrinsics[0][0])
    if essential is None or essential.shape != (3, 3):
        return None
    count, rotation, translation, _ = cv2.recoverPose(essential, one, two, np.eye(3), mask=inliers)
    if count < MINIMUM_MATCHES // 2:
        return None
    relative = np.linalg.inv(path.camera_to_world[1]) @ path.camera_to_world[0]
    moved = float(np.linalg.norm(relative[:3, 3]))
    direction = float("nan")
    if moved >= MINIMUM_MOVE_M:
        cosine = float(translation[:, 0] @ relative[:3, 3] / moved)
        direction = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return CameraError(_angle(rotation @ relative[:3, :3].T), direction)


def _features(picture: NDArray[np.uint8]) -> Features | None:
    """(positions [n, 2] in pixels, SIFT descriptors [n, 128]); None when there are hardly any."""
    sift = cv2.SIFT.create(nfeatures=MOST_FEATURES, contrastThreshold=0.02)
    keys, described = sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None)
    if described is None or len(keys) < MINIMUM_MATCHES:
        return None
    return np.array([key.pt for key in keys], np.float64), described


def _matches(first: Features, second: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Positions [n, 2] of matched features in both views, by Lowe's ratio test."""
    pairs = cv2.BFMatcher().knnMatch(first[1], second[1], k=2)
    good = [best for best, *rest in pairs if rest and best.distance < 0.75 * rest[0].distance]
    if len(good) < MINIMUM_MATCHES:
        return None
    return first[0][[match.queryIdx for match in good]], second[0][[match.trainIdx for match in good]]


def _normalised(points: NDArray[np.float64], intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    fx, fy, cx, cy = intrinsics
    # OpenCV's key points count pixel centres from 0, the intrinsics from 0.5.
    return (points + 0.5 - (cx, cy)) / (fx, fy)


def _angle(rotation: NDArray[np.float64]) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
