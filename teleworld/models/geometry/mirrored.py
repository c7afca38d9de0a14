"""Pictures measured twice, as they are and in the mirror.

A world is as likely as its mirror image, but a trained network only nearly knows that: its two answers err differently, and
their mean errs less than either. It costs a second pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teleworld.models.geometry.inputs import GeometryBackend, GeometryEstimate, checked_inputs

# A mirror turns the x axis round: translations along x change sign, and so do rotations about y and z.
_AXES = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
_CORRECTION = torch.tensor([-1.0, 1.0, 1.0, 1.0, -1.0, -1.0])


def infer_mirrored(
    backend: GeometryBackend, pictures: Tensor, intrinsics: Tensor, camera_to_world: Tensor, guidance_depth: Tensor
) -> GeometryEstimate:
    """`backend.infer` of the frames and of their mirror images, as one: the mean, for depth of its logarithm.

    Arguments, answer and errors are those of `GeometryBackend.infer`.
    """
    pictures, lenses, poses, guidance = checked_inputs(pictures, intrinsics, camera_to_world, guidance_depth)
    turned = lenses.clone()
    turned[:, 2] = pictures.shape[-1] - lenses[:, 2]
    plain = backend.infer(pictures, lenses, poses, guidance)
    mirror = backend.infer(pictures.flip(-1), turned, _AXES @ poses @ _AXES, guidance.flip(-1))
    return GeometryEstimate(
        depth=(plain.depth * mirror.depth.flip(-1)).sqrt(),
        confidence=(plain.confidence + mirror.confidence.flip(-1)) / 2,
        dynamic=(plain.dynamic + mirror.dynamic.flip(-1)) / 2,
        pose_correction=(plain.pose_correction + _CORRECTION * mirror.pose_correction) / 2,
    )
