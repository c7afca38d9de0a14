"""What every geometry backend takes and answers, and the checks that they share.

A backend measures S frames: `infer(pictures, intrinsics, camera_to_world, guidance_depth) -> GeometryEstimate`. Which one a
world uses is a matter of its model folder; reconstruction knows this interface only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from teleworld.world.errors import InvalidInput

MIN_DEPTH_M, MAX_DEPTH_M = 0.05, 500.0


@dataclass(frozen=True, eq=False)
class GeometryEstimate:
    """What `infer` says about S frames. All float32 on the CPU.

    depth: [S, H, W], z-depth in metres. confidence: [S, H, W] in (0, 1), the probability that the depth is within
    `GeometryConfig.tolerance` (30 %) of the truth. dynamic: [S, H, W], the probability that a pixel shows something
    that moves. pose_correction: [S, 6], translation in metres and rotation vector in radians along each frame's own
    axes, by which the pictures disagree with the commanded poses (a check, never a driver).
    """

    depth: Tensor
    confidence: Tensor
    dynamic: Tensor
    pose_correction: Tensor


class GeometryBackend(Protocol):
    """Measures frames."""

    def infer(
        self, pictures: Tensor, intrinsics: Tensor, camera_to_world: Tensor, guidance_depth: Tensor
    ) -> GeometryEstimate:
        """pictures [S, 3, H, W] float32 in [-1, 1]; intrinsics [S, 4] in pixels; camera_to_world [S, 4, 4] float64;
        guidance_depth [S, H, W] metres, 0 = hole. Raises InvalidInput for wrong shapes."""
        ...


def checked_inputs(
    pictures: Tensor, intrinsics: Tensor, camera_to_world: Tensor, guidance_depth: Tensor, patch: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arguments of `infer` (numpy arrays are welcome) in their dtypes. Raises InvalidInput that names the wrong one."""
    pictures = torch.as_tensor(pictures, dtype=torch.float32)
    intrinsics = torch.as_tensor(intrinsics, dtype=torch.float32)
    poses = torch.as_tensor(camera_to_world, dtype=torch.float64)
    guidance = torch.as_tensor(guidance_depth, dtype=torch.float32)
    if pictures.dim() != 4 or pictures.shape[1] != 3 or not len(pictures):
        raise InvalidInput("pictures", f"expected [S, 3, H, W], got {list(pictures.shape)}")
    frames, _, height, width = pictures.shape
    if height % patch or width % patch:
        raise InvalidInput("pictures", f"height and width must be multiples of {patch}, got {height}x{width}")
    expected = {
        "intrinsics": (intrinsics, (frames, 4)),
        "camera_to_world": (poses, (frames, 4, 4)),
        "guidance_depth": (guidance, (frames, height, width)),
    }
    for name, (value, shape) in expected.items():
        if tuple(value.shape) != shape:
            raise InvalidInput(name, f"expected {list(shape)}, got {list(value.shape)}")
    return pictures, intrinsics, poses, guidance
