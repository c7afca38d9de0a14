"""Depth Anything 3 as a geometry backend, from its authors' package, which knows its own weights and configurations.

The package is optional and imported on first use: it declares dependencies that would replace ours, so it is installed
without them (see docs/geometry.md). It is given the commanded poses, which it can take as a condition; its answer is brought
to metres like VGGT's. It says nothing about what moves, so every pixel counts as static.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from teleworld.models.geometry.inputs import GeometryEstimate, checked_inputs
from teleworld.models.geometry.metric import as_patches, in_metres, resized
from teleworld.world.errors import CheckpointError

PATCH = 14
TOLERANCE = 0.3
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NEAREST_UNIT_M = 0.1


@dataclass(frozen=True)
class DepthAnythingConfig:
    """name: of a configuration that the package ships, for example da3-large. longest: side of the pictures it sees, pixels.

    given_poses: condition on the commanded cameras instead of finding them.
    """

    name: str = "da3-large"
    longest: int = 504
    given_poses: bool = True


class DepthAnythingGeometry(nn.Module):
    """The package's network with the interface of `GeometryBackend`. Its state dict is the published one, `model.` and all."""

    def __init__(self, config: DepthAnythingConfig = DepthAnythingConfig()) -> None:
        super().__init__()
        self.config = config
        self.model: Any = _network(config.name)

    @torch.inference_mode()
    def infer(
        self, pictures: Tensor, intrinsics: Tensor, camera_to_world: Tensor, guidance_depth: Tensor
    ) -> GeometryEstimate:
        """See `GeometryBackend.infer`. Pictures may have any size."""
        pictures, intrinsics, poses, guidance = checked_inputs(pictures, intrinsics, camera_to_world, guidance_depth)
        height, width = pictures.shape[2:]
        small = as_patches(pictures, self.config.longest, PATCH)
        mean, std = (small.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        weights = next(self.parameters())
        seen = ((small - mean) / std)[None].to(weights)
        cameras: tuple[Tensor, ...] = ()
        if self.config.given_poses:
            cameras = (
                _conditions(poses)[None].to(weights),
                _lenses(intrinsics, (height, width), (small.shape[2], small.shape[3]))[None].to(weights),
            )
        answer = self.model(seen, *cameras)
        own = poses
        if "extrinsics" in answer:
            own = torch.linalg.inv(_square(answer["extrinsics"][0].double().cpu()))
        depth = resized(answer["depth"][0].float().cpu(), (height, width)).clamp_min(1e-6)
        confidence = resized(answer["depth_conf"][0].float().cpu(), (height, width))
        certain = 1 - torch.exp(-TOLERANCE * confidence)
        return in_metres(depth, certain, torch.zeros_like(depth), guidance, own, poses)


def published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of the published file, whose `model.` prefix is taken off wherever it means nothing."""
    return {name if name.startswith("model.") else f"model.{name}": tensor for name, tensor in tensors.items()}


def _network(name: str) -> nn.Module:
    """The package's network `name` with fresh weights. Raises CheckpointError if the package or the name is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it re-registers resolvers of its configuration library
            configuration = importlib.import_module("depth_anything_3.cfg")
            registry = importlib.import_module("depth_anything_3.registry").MODEL_REGISTRY
            if name not in registry:
                raise CheckpointError("geometry.name", f"{name!r} is none of {', '.join(registry)}")
            return configuration.create_object(configuration.load_config(registry[name]))
    except ModuleNotFoundError as error:
        raise CheckpointError("geometry", f"Depth Anything 3 is not installed: no module {error.name}") from error


def _conditions(poses: Tensor) -> Tensor:
    """World to camera [S, 4, 4] as the network was trained: from the first camera's axes, the median distance being 1."""
    relative = torch.linalg.inv(poses[0]) @ poses
    relative[:, :3, 3] /= relative[:, :3, 3].norm(dim=1).median().clamp_min(_NEAREST_UNIT_M)
    return torch.linalg.inv(relative)


def _lenses(intrinsics: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
    """Camera matrices [S, 3, 3] for pictures brought from one size (height, width) to another."""
    fx, fy, cx, cy = intrinsics.unbind(1)
    down, across = after[0] / before[0], after[1] / before[1]
    matrix = torch.eye(3).repeat(len(intrinsics), 1, 1)
    matrix[:, 0, 0], matrix[:, 0, 2] = fx * across, cx * across
    matrix[:, 1, 1], matrix[:, 1, 2] = fy * down, cy * down
    return matrix


def _square(poses: Tensor) -> Tensor:
    """[S, 3, 4] or [S, 4, 4] -> [S, 4, 4]."""
    if poses.shape[1] == 4:
        return poses
    return torch.cat([poses, poses.new_tensor([0, 0, 0, 1]).expand(len(poses), 1, 4)], dim=1)
