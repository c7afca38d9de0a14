"""From held keys to camera poses (paper 3.4.1): WASD in the horizontal plane, arrows turn and tilt, combinations add.

Movement is scaled by the depth of the first frame, and no key means a slow forward drift, the standby animation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from teleworld.world.camera import CameraPath, Lens, PitchModel, pose
from teleworld.world.collision import Clearance
from teleworld.world.controls import Keys

_W, _A, _S, _D, _LEFT, _RIGHT, _UP, _DOWN = (
    int(key) for key in (Keys.W, Keys.A, Keys.S, Keys.D, Keys.LEFT, Keys.RIGHT, Keys.UP, Keys.DOWN)
)


@dataclass(frozen=True)
class Gait:
    """How one frame of a held key moves the camera.

    step: metres a frame at movement scale 1. turn, tilt: radians a frame. drift: share of `step` when nothing is held.
    pitch_limit: radians. radius: metres kept from obstacles.
    """

    step: float = 0.09
    turn: float = np.deg2rad(2.5)
    tilt: float = np.deg2rad(1.0)
    drift: float = 0.15
    pitch_limit: float = np.deg2rad(15.0)
    radius: float = 0.5
    reference_depth: float = 6.0

    def scale(self, median_depth: float) -> float:
        """The movement scale of a world from the median depth of its first frame in metres, between 0.4 and 1.5."""
        return float(np.clip(median_depth / self.reference_depth, 0.4, 1.5))


@dataclass(frozen=True)
class Walker:
    """Where the camera is: position in metres (world frame, y down), yaw and pitch in radians (right and up positive)."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0

    def step(self, keys: Keys, gait: Gait, scale: float, clearance: Clearance) -> Walker:
        """The walker one frame later."""
        bits = int(keys)  # a flag's own operators are Python code, and this runs for every frame of every world
        held = lambda plus, minus: float(bool(bits & plus)) - float(bool(bits & minus))  # noqa: E731
        yaw = self.yaw + gait.turn * held(_RIGHT, _LEFT)
        pitch = min(max(self.pitch + gait.tilt * held(_UP, _DOWN), -gait.pitch_limit), gait.pitch_limit)
        forward = held(_W, _S) if bits else gait.drift
        right = held(_D, _A)
        length, sin, cos = gait.step * scale, math.sin(yaw), math.cos(yaw)
        move = (length * (forward * sin + right * cos), length * (forward * cos - right * sin))
        x, z = clearance.slide((self.x, self.z), move, gait.radius) if move != (0.0, 0.0) else (self.x, self.z)
        return Walker(float(x), self.y, float(z), float(yaw), float(pitch))

    def camera_to_world(self, lens: Lens) -> np.ndarray:
        """[4, 4] float64; a SHIFT camera keeps its axes level."""
        tilt = self.pitch if lens.pitch_model is PitchModel.ROTATION else 0.0
        return pose(self.x, self.y, self.z, self.yaw, tilt)


def path_of(walkers: Sequence[Walker], lens: Lens) -> CameraPath:
    """The camera path of walkers, one a frame."""
    return CameraPath(
        np.array([walker.camera_to_world(lens) for walker in walkers]).reshape(-1, 4, 4),
        np.array([lens.at_pitch(walker.pitch) for walker in walkers]).reshape(-1, 4),
    )


def walk(start: Walker, frames: Sequence[Keys], gait: Gait, scale: float, clearance: Clearance) -> tuple[Walker, ...]:
    """The walker after each frame of held keys."""
    walkers = []
    for keys in frames:
        start = start.step(keys, gait, scale, clearance)
        walkers.append(start)
    return tuple(walkers)
