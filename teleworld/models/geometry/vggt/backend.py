"""VGGT4D as a geometry backend: what moves is found in a first pass and kept out of a second one (the paper's 3.3.2).

Depth is the first pass's, as published, because a moving thing has a depth too; poses are the second one's. The answer
is in the network's unit and axes, so it is brought to metres by what is known already (`metric.metric_scale`); the
commanded poses stay the truth. The network's own field of view is not used: z-depth belongs to a pixel whatever the lens.

Pictures are brought to the size that the encoder was trained at, and the answer back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from teleworld.models.geometry.inputs import GeometryEstimate, checked_inputs
from teleworld.models.geometry.metric import as_patches, in_metres, resized
from teleworld.models.geometry.vggt.model import VGGT, VGGTOutput, camera_matrices
from teleworld.models.geometry.vggt.refine import confirmed, dynamic_pixels
from teleworld.models.geometry.vggt.saliency import dynamic_map

# The training loss is confidence * error - ALPHA * ln(confidence): the expected error is ALPHA / confidence.
ALPHA = 0.2
TOLERANCE = 0.3
_MASKED_SHARE = 0.5


class VGGTGeometry(VGGT):
    """VGGT with the interface of `GeometryBackend`; its state dict is VGGT's."""

    @torch.inference_mode()
    def infer(
        self, pictures: Tensor, intrinsics: Tensor, camera_to_world: Tensor, guidance_depth: Tensor
    ) -> GeometryEstimate:
        """See `GeometryBackend.infer`. Pictures may have any size."""
        pictures, intrinsics, poses, guidance = checked_inputs(pictures, intrinsics, camera_to_world, guidance_depth)
        height, width = pictures.shape[2:]
        small = as_patches(pictures, self.config.encoder.image, self.config.patch)
        size = (small.shape[2], small.shape[3])
        device = next(self.parameters())
        features = self.encode(small[None].to(device))
        first, second, dynamic = self.two_passes(features, size)
        own, lens = camera_matrices(second.poses[0].float().cpu(), *size)
        depth, confidence = first.depth[0].float().cpu(), first.confidence[0].float().cpu()
        dynamic = confirmed(dynamic.cpu(), depth, small, own, lens)
        certain = 1 - torch.exp(-TOLERANCE * depth * confidence / ALPHA)
        depth = resized(depth, (height, width))
        certain, dynamic = (resized(shown, (height, width)) for shown in (certain, dynamic.float()))
        return in_metres(depth, certain, dynamic, guidance, own, poses)

    def two_passes(self, features: Tensor, size: tuple[int, int]) -> tuple[VGGTOutput, VGGTOutput, Tensor]:
        """The passes without and with suppression, and the dynamic pixels bool [S, *size] that lie between them.

        features: `encode`'s tokens [1, S, h*w, D] for pictures of `size`. The second pass is the first where nothing moves,
        or where a single frame leaves nothing to compare.
        """
        grid = size[0] // self.config.patch, size[1] // self.config.patch
        frames = features.shape[1]
        first = self(features, grid, salient=frames > 1)
        if frames == 1:
            return first, first, torch.zeros(1, *size, dtype=torch.bool)
        near = first.aggregated
        queries, keys = ({pair: x[0].float() for pair, x in kept.items()} for kept in (near.queries, near.keys))
        saliency = dynamic_map(queries, keys, self.config.saliency, self.config.window)
        dynamic = dynamic_pixels(saliency, features[0].float(), grid, size)
        tokens = F.avg_pool2d(dynamic.float(), self.config.patch).flatten(1) > _MASKED_SHARE
        second = self(features, grid, tokens[None], salient=False) if bool(tokens.any()) else first
        return first, second, dynamic
