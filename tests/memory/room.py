"""A textured room with a pillar, ray-cast exactly: the ground truth that the memory's geometry is tested against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.fusion import Observation
from teleworld.world.camera import CameraPath, Lens, PitchModel, pose

NANO = Lens(160, 96, 66.67, 80.0, PitchModel.SHIFT)
ROOM = (np.array([-4.0, -1.6, -5.0]), np.array([4.0, 1.28, 5.0]))
PILLAR = (np.array([0.8, -1.6, 1.5]), np.array([1.4, 1.28, 2.1]))


@dataclass(frozen=True)
class Shot:
    """What one camera sees. picture: uint8 [H, W, 3]; depth: float32 [H, W] metres."""

    picture: NDArray[np.uint8]
    depth: NDArray[np.float32]


def path(*poses: tuple[float, float, float], lens: Lens = NANO) -> CameraPath:
    """A path of level cameras at eye height, one for each (x, z, yaw in degrees)."""
    return CameraPath(
        np.array([pose(x, 0.0, z, np.deg2rad(yaw)) for x, z, yaw in poses]),
        np.array([lens.at_pitch(0.0)] * len(poses)),
    )


def shoot(camera: CameraPath, lens: Lens = NANO, supersample: int = 2) -> list[Shot]:
    """Ray-cast the room from each camera; colours are averaged over supersample^2 rays a pixel, depth is the centre's."""
    shots = []
    for c2w, intrinsics in zip(camera.camera_to_world, camera.intrinsics, strict=True):
        colours = np.zeros((lens.height, lens.width, 3))
        offsets = (np.arange(supersample) + 0.5) / supersample
        for dv in offsets:
            for du in offsets:
                colours += _cast(c2w, intrinsics, lens, du, dv)[0]
        depth = _cast(c2w, intrinsics, lens, 0.5, 0.5)[1]
        shots.append(Shot(np.rint(colours / supersample**2).astype(np.uint8), depth.astype(np.float32)))
    return shots


def _cast(c2w: NDArray[np.float64], intrinsics: NDArray[np.float64], lens: Lens, du: float, dv: float):
    fx, fy, cx, cy = intrinsics
    u, v = np.meshgrid(np.arange(lens.width) + du, np.arange(lens.height) + dv)
    ray = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], axis=-1) @ c2w[:3, :3].T
    origin = c2w[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = (ROOM[0] - origin) / ray, (ROOM[1] - origin) / ray
        room = np.maximum(low, high)
        near, far = (PILLAR[0] - origin) / ray, (PILLAR[1] - origin) / ray
        enter, leave = np.minimum(near, far).max(axis=-1), np.maximum(near, far).min(axis=-1)
    depth = np.nanmin(room, axis=-1)
    axis = np.nanargmin(room, axis=-1)
    hit = (enter < leave) & (enter > 0) & (enter < depth)
    depth = np.where(hit, enter, depth)
    axis = np.where(hit, np.nanargmax(np.minimum(near, far), axis=-1) + 3, axis)
    return _texture(origin + ray * depth[..., None], axis), depth


def _texture(points: NDArray[np.float64], surface: NDArray[np.int64]) -> NDArray[np.float64]:
    """Tiles, stripes and a slow shade, different on each surface, in 0..255."""
    x, y, z = np.moveaxis(points, -1, 0)
    flat = surface % 3
    a, b = np.where(flat == 0, z, x), np.where(flat == 1, z, y)
    tiles = (np.floor(a / 0.5) + np.floor(b / 0.5)) % 2
    value = 90 + 50 * tiles + 30 * np.sin(7 * a + surface) + 20 * np.sin(11 * b) + 15 * np.sin(a) * np.cos(b)
    tint = np.array([[1.0, 0.8, 0.6], [0.7, 1.0, 0.7], [0.7, 0.8, 1.1], [1.1, 0.6, 0.6], [1, 1, 0.5], [0.6, 1, 1]])
    return np.clip(value[..., None] * tint[surface], 0, 255)


SMALL = NANO.scaled(0.25)


def observe(
    camera: CameraPath,
    frames: tuple[int, ...],
    lens: Lens = NANO,
    moving: bool = False,
    shots: list[Shot] | None = None,
) -> Observation:
    """What a perfect reconstructor measures of the room; `moving` puts a moving block in the middle of each frame."""
    shots = shots or shoot(camera, lens)
    depth = np.stack([shot.depth for shot in shots])
    dynamic = np.zeros(depth.shape, bool)
    pictures = np.stack([shot.picture for shot in shots])
    if moving:
        rows, columns = slice(lens.height // 2, lens.height * 3 // 4), slice(lens.width // 2, lens.width * 3 // 5)
        dynamic[:, rows, columns] = True
        depth[:, rows, columns] = 1.0
        pictures[:, rows, columns] = (255, 0, 255)
    return Observation(pictures, depth, np.ones_like(depth), dynamic, camera, frames)


def psnr(picture: NDArray[np.uint8], truth: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """dB over the chosen pixels."""
    error = (picture.astype(np.float64) - truth)[where]
    return float(10 * np.log10(255**2 / max(float(np.mean(error**2)), 1e-9)))


def sharpness(picture: NDArray[np.uint8], truth: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """Root of the gradient energy relative to the truth's, over neighbouring chosen pixels."""
    energy = []
    for image in (picture, truth):
        grey = image.astype(np.float64).mean(axis=-1)
        across = np.diff(grey, axis=1)[where[:, 1:] & where[:, :-1]]
        down = np.diff(grey, axis=0)[where[1:] & where[:-1]]
        energy.append(float((across**2).sum() + (down**2).sum()))
    return float(np.sqrt(energy[0] / energy[1]))
