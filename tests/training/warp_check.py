"""Proof that poses, intrinsics and depth of a recording agree: warp one frame into another and compare.

A frame is seen from a later camera by looking up, for every pixel of the later frame, where its 3D point lay in the
earlier one. Where the earlier depth confirms that the point was visible, and nothing moves, the colours must agree up
to resampling and shading (the engine darkens with distance, so perfect agreement is not to be had).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from teleworld.world.camera import unproject


def warp_psnr(
    rgb: npt.NDArray[np.uint8],
    depth: npt.NDArray[np.floating],
    dynamic: npt.NDArray[np.bool_],
    camera_to_world: npt.NDArray[np.float64],
    intrinsics: npt.NDArray[np.floating],
    tolerance: float = 0.05,
) -> tuple[float, float, float]:
    """Compares frame 0, warped with the geometry, against frame 1.

    Args:
        rgb: `[2, H, W, 3]` u8.
        depth: `[2, H, W]` metres, 0 unknown.
        dynamic: `[2, H, W]` moving things, left out.
        camera_to_world: `[2, 4, 4]`.
        intrinsics: `[2, 4]`.
        tolerance: relative depth error up to which a point counts as seen in both.

    Returns:
        PSNR in dB over pixels seen in both, PSNR of the unwarped frame over the same pixels, and their share.
        PSNR is NaN where no pixel is seen in both.
    """
    height, width = depth.shape[1:]
    points = unproject(depth[1], intrinsics[1].astype(np.float64), camera_to_world[1]).reshape(-1, 3)
    world_to_camera = np.linalg.inv(camera_to_world[0])
    local = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    z = np.maximum(local[:, 2], 1e-6)
    fx, fy, cx, cy = intrinsics[0]
    u, v = fx * local[:, 0] / z + cx - 0.5, fy * local[:, 1] / z + cy - 0.5
    inside = (local[:, 2] > 0.05) & (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1)
    inside &= (depth[1].ravel() > 0) & ~dynamic[1].ravel()
    u, v, z = u[inside], v[inside], z[inside]
    u0, v0 = np.minimum(u.astype(int), width - 2), np.minimum(v.astype(int), height - 2)
    nearest_u, nearest_v = np.rint(u).astype(int), np.rint(v).astype(int)
    seen = np.abs(depth[0][nearest_v, nearest_u] - z) < tolerance * z
    seen &= ~dynamic[0][nearest_v, nearest_u]
    if not seen.any():
        return float("nan"), float("nan"), 0.0
    u, v, u0, v0 = u[seen], v[seen], u0[seen], v0[seen]
    du, dv = (u - u0)[:, None], (v - v0)[:, None]
    source = rgb[0].astype(np.float64)
    warped = (1 - dv) * ((1 - du) * source[v0, u0] + du * source[v0, u0 + 1]) + dv * (
        (1 - du) * source[v0 + 1, u0] + du * source[v0 + 1, u0 + 1]
    )
    target = rgb[1].reshape(-1, 3)[inside][seen].astype(np.float64)
    still = rgb[0].reshape(-1, 3)[inside][seen].astype(np.float64)
    return _psnr(warped, target), _psnr(still, target), float(seen.sum() / (height * width))


def _psnr(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> float:
    return float(10 * np.log10(255.0**2 / max(float(np.mean((left - right) ** 2)), 1e-6)))
