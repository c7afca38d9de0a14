"""From a network's own unit and axes to the world's: metres, and the commanded poses.

Networks that find cameras by themselves answer up to a scale and in the axes of one of their frames. The commanded poses
are the truth here, so only the scale is taken from outside: from the memory's depth where it knows some, else from how
far the commanded cameras moved, else not at all. What is left of the poses is the correction, a check and never a driver.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from teleworld.models.geometry.inputs import MAX_DEPTH_M, MIN_DEPTH_M, GeometryEstimate

_STILL_M = 0.02
_FEW_PIXELS = 64


def in_metres(
    depth: Tensor, confidence: Tensor, dynamic: Tensor, guidance: Tensor, own: Tensor, commanded: Tensor
) -> GeometryEstimate:
    """A network's answer in its own unit and axes as the world's.

    depth, confidence, dynamic: [S, H, W], depth in the network's unit. guidance, own, commanded: as of `metric_scale`.
    """
    scale = metric_scale(depth, guidance, own, commanded)
    return GeometryEstimate(
        depth=(scale * depth).clamp(MIN_DEPTH_M, MAX_DEPTH_M),
        confidence=confidence,
        dynamic=dynamic,
        pose_correction=pose_corrections(own, commanded, scale),
    )


def metric_scale(depth: Tensor, guidance: Tensor, own: Tensor, commanded: Tensor) -> float:
    """Metres in one unit of the network.

    depth: [S, H, W] in that unit. guidance: [S, H, W] metres, 0 = hole. own, commanded: camera to world [S, 4, 4], in the
    network's unit and in metres.
    """
    known = guidance > 0
    if int(known.sum()) >= _FEW_PIXELS:
        return float((guidance[known] / depth[known].clamp_min(1e-6)).median())
    moved, drawn = _steps(commanded), _steps(own)
    real = moved > _STILL_M
    if not bool(real.any()):
        return 1.0
    return float((moved[real] / drawn[real].clamp_min(1e-6)).median())


def pose_corrections(own: Tensor, commanded: Tensor, scale: float) -> Tensor:
    """[S, 6]: translation in metres and rotation vector in radians, commanded pose * correction = what the network sees.

    The last frame is the reference: its correction is zero.
    """
    seen = own.double().clone()
    seen[:, :3, 3] *= scale
    seen = commanded[-1].double() @ torch.linalg.inv(seen[-1]) @ seen
    correction = torch.linalg.inv(commanded.double()) @ seen
    return torch.cat([correction[:, :3, 3], rotation_vectors(correction[:, :3, :3])], dim=1).float()


def rotation_vectors(rotation: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] -> axis times angle [N, 3], for angles well below pi."""
    skew = rotation - rotation.transpose(1, 2)
    axis = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], dim=1) / 2
    sine = axis.norm(dim=1, keepdim=True)
    cosine = ((rotation.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) - 1) / 2).clamp(-1, 1)
    return axis * torch.where(sine > 1e-9, torch.atan2(sine, cosine) / sine.clamp_min(1e-12), torch.ones_like(sine))


def whole_patches(height: int, width: int, longest: int, patch: int) -> tuple[int, int]:
    """The size nearest to a picture's shape whose longer side is `longest` and whose sides are whole patches."""
    by = longest / max(height, width)
    return tuple(max(patch, round(side * by / patch) * patch) for side in (height, width))  # type: ignore[return-value]


def as_patches(pictures: Tensor, longest: int, patch: int) -> Tensor:
    """Pictures [S, 3, H, W] in [-1, 1] -> [0, 1] at the size that `whole_patches` gives."""
    height, width = pictures.shape[2:]
    size = whole_patches(height, width, longest, patch)
    small = F.interpolate((pictures + 1) / 2, size, mode="bilinear", align_corners=False, antialias=True)
    return small.clamp(0, 1)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [S, H, W] bilinearly at another size."""
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _steps(poses: Tensor) -> Tensor:
    """Distances [S - 1] of the cameras from the last one."""
    return (poses[:-1, :3, 3] - poses[-1:, :3, 3]).norm(dim=1)
