"""VGGT under its public weight names: pictures to poses, depth and confidence in one pass, without any given camera.

The published checkpoint also holds heads that reconstruction does not use (`point_head`, `track_head`); `load_vggt`
leaves those out by name, and every other name must fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.checkpoint import load_into
from teleworld.models.geometry.vggt.aggregator import Aggregated, Aggregator
from teleworld.models.geometry.vggt.config import VGGT_1B, VGGTConfig
from teleworld.models.geometry.vggt.heads import CameraHead, DPTHead
from teleworld.world.errors import InvalidInput

UNUSED_HEADS = ("point_head.", "track_head.")


@dataclass(frozen=True, eq=False)
class VGGTOutput:
    """poses: encodings [B, S, 9], see `CameraHead`. depth, confidence: [B, S, H, W], depth in the network's own unit."""

    poses: Tensor
    depth: Tensor
    confidence: Tensor
    aggregated: Aggregated


class VGGT(nn.Module):
    """Aggregator, camera head, depth head."""

    def __init__(self, config: VGGTConfig = VGGT_1B) -> None:
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config)
        self.depth_head = DPTHead(config)

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [B, S, 3, H, W] in [0, 1], H and W whole patches -> patch tokens [B, S, h*w, D]."""
        patch = self.config.patch
        if pictures.dim() != 5 or pictures.shape[2] != 3 or pictures.shape[3] % patch or pictures.shape[4] % patch:
            raise InvalidInput("pictures", f"expected [B, S, 3, n * {patch}, m * {patch}], got {list(pictures.shape)}")
        return self.aggregator.encode(pictures)

    def forward(
        self, features: Tensor, grid: tuple[int, int], suppressed: Tensor | None = None, *, salient: bool = True
    ) -> VGGTOutput:
        """Poses and depth from `encode`'s tokens; suppressed, salient: as in `Aggregator.forward`."""
        aggregated = self.aggregator(features, grid, suppressed, salient=salient)
        poses = self.camera_head(aggregated.taps[self.config.depth - 1][:, :, 0])[-1]
        depth, confidence = self.depth_head(aggregated.taps, grid, self.aggregator.specials)
        return VGGTOutput(poses, depth, confidence, aggregated)


def load_vggt(tensors: Mapping[str, Tensor], config: VGGTConfig = VGGT_1B, source: str = "vggt") -> VGGT:
    """The network of a checkpoint in its public naming. Raises CheckpointError that lists every difference."""
    with torch.device("meta"):
        network = VGGT(config)
    load_into(network, used_tensors(tensors), strict=True, source=source)
    return network.eval().requires_grad_(False)


def used_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a public checkpoint without the heads that reconstruction does not use."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED_HEADS)}


def camera_matrices(poses: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Encodings [..., 9] -> camera to world [..., 4, 4] and intrinsics (fx, fy, cx, cy) [..., 4] for pictures of a size.

    OpenCV axes; the world is the first camera's; translation in the network's own unit.
    """
    translation, quaternion, fov = poses[..., :3], F.normalize(poses[..., 3:7], dim=-1), poses[..., 7:]
    x, y, z, w = quaternion.unbind(-1)
    rotation = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
        ],
        dim=-1,
    ).unflatten(-1, (3, 3))  # fmt: skip
    to_world = rotation.transpose(-1, -2)
    matrix = torch.zeros(*poses.shape[:-1], 4, 4, dtype=poses.dtype, device=poses.device)
    matrix[..., :3, :3] = to_world
    matrix[..., :3, 3] = -(to_world @ translation[..., None])[..., 0]
    matrix[..., 3, 3] = 1
    tall, wide = fov.unbind(-1)
    fy, fx = (size / 2 / (angle / 2).tan().clamp_min(1e-6) for size, angle in ((height, tall), (width, wide)))
    centre = torch.stack([torch.full_like(fx, width / 2), torch.full_like(fy, height / 2)], -1)
    return matrix, torch.cat([torch.stack([fx, fy], -1), centre], -1)
