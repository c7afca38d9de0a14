"""Cameras: OpenCV axes (x right, y down, z forward), metres, pixels.

The world frame has y down and is aligned with gravity. A pose is `camera_to_world`, 4x4 float64. Intrinsics are per frame:
a `PitchModel.SHIFT` camera (ViZDoom's renderer) tilts by moving the principal point, not by rotating.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from teleworld.world.errors import InvalidInput

Array = NDArray[np.float64]
MAX_COORDINATE_M = 1e5


class PitchModel(Enum):
    """How a camera tilts: by rotation, or by a vertical shift of the principal point (a y-shear)."""

    ROTATION = "rotation"
    SHIFT = "shift"


@dataclass(frozen=True)
class Lens:
    """The fixed part of a camera: image size and focal lengths in pixels, principal point at rest, and how it tilts."""

    width: int
    height: int
    fx: float
    fy: float
    pitch_model: PitchModel = PitchModel.ROTATION

    def at_pitch(self, pitch: float) -> Array:
        """Intrinsics [4] = (fx, fy, cx, cy) when the camera is tilted up by `pitch` radians."""
        shift = self.fy * math.tan(pitch) if self.pitch_model is PitchModel.SHIFT else 0.0
        return np.array([self.fx, self.fy, self.width / 2, self.height / 2 + shift])

    def scaled(self, factor: float) -> Lens:
        """The same view on an image `factor` times as large."""
        return Lens(
            round(self.width * factor),
            round(self.height * factor),
            self.fx * factor,
            self.fy * factor,
            self.pitch_model,
        )


@dataclass(frozen=True)
class CameraPath:
    """A camera over F frames: `camera_to_world` [F, 4, 4] float64 and `intrinsics` [F, 4] float64 (fx, fy, cx, cy)."""

    camera_to_world: Array
    intrinsics: Array

    def __len__(self) -> int:
        return len(self.camera_to_world)

    def __getitem__(self, frames: slice | list[int] | NDArray[np.int64]) -> CameraPath:
        return CameraPath(self.camera_to_world[frames], self.intrinsics[frames])

    def check(self, field: str, frames: int | None = None) -> None:
        """Raise InvalidInput naming `field` unless the path is finite, rigid and of the expected length."""
        poses, lenses = self.camera_to_world, self.intrinsics
        if poses.ndim != 3 or poses.shape[1:] != (4, 4):
            raise InvalidInput(f"{field}.camera_to_world", f"expected [F, 4, 4], got {list(poses.shape)}")
        if lenses.shape != (len(poses), 4):
            raise InvalidInput(f"{field}.intrinsics", f"expected [{len(poses)}, 4], got {list(lenses.shape)}")
        if frames is not None and len(poses) != frames:
            raise InvalidInput(field, f"expected {frames} frames, got {len(poses)}")
        for name, values in (("camera_to_world", poses), ("intrinsics", lenses)):
            finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
            if not finite.all():
                raise InvalidInput(f"{field}.{name}[{int(np.argmin(finite))}]", "must be finite")
        rotation = poses[:, :3, :3]
        with np.errstate(over="ignore", invalid="ignore"):  # of huge numbers, which are not rigid either
            rigid = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0) < 1e-3
            proper = (np.linalg.det(rotation) > 0) & (np.abs(poses[:, 3] - [0, 0, 0, 1]).max(axis=1) < 1e-6)
        near = np.abs(poses[:, :3, 3]).max(axis=1, initial=0) < MAX_COORDINATE_M
        for ok, problem in ((rigid & proper, "must be a rigid transform"), (near, "is too far from the origin")):
            if not ok.all():
                raise InvalidInput(f"{field}.camera_to_world[{int(np.argmin(ok))}]", problem)
        if len(lenses) and not (lenses[:, :2] > 0).all():
            raise InvalidInput(f"{field}.intrinsics", "focal lengths must be positive")


def pose(x: float, y: float, z: float, yaw: float, pitch: float = 0.0) -> Array:
    """`camera_to_world` [4, 4] of a camera at (x, y, z), looking along (sin yaw, 0, cos yaw), tilted up by `pitch` radians."""
    sin, cos, rise, run = math.sin(yaw), math.cos(yaw), math.sin(pitch), math.cos(pitch)
    return np.array(
        [
            [cos, sin * rise, sin * run, x],
            [0.0, run, -rise, y],
            [-sin, cos * rise, cos * run, z],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def unproject(depth: NDArray[np.floating], intrinsics: Array, camera_to_world: Array) -> NDArray[np.float32]:
    """World points [H, W, 3] float32 of a z-depth map [H, W] in metres. Pixel centres lie at integer + 0.5."""
    height, width = depth.shape
    fx, fy, cx, cy = intrinsics
    u = (np.arange(width, dtype=np.float32) + 0.5 - cx) / fx
    v = (np.arange(height, dtype=np.float32) + 0.5 - cy) / fy
    z = depth.astype(np.float32)
    local = np.stack([u[None, :] * z, v[:, None] * z, z], axis=-1)
    return (local @ camera_to_world[:3, :3].T.astype(np.float32) + camera_to_world[:3, 3].astype(np.float32)).astype(
        np.float32
    )
