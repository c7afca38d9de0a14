"""What a worker computes with, and the world that it makes: `WorldSpec` on the wire."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from teleworld._proto.types.v1 import model_pb2 as pb
from teleworld.world.camera import Lens, PitchModel
from teleworld.world.errors import InvalidInput
from teleworld.world.spec import WorldSpec
from teleworld.world.walker import Gait

_PITCH = {PitchModel.ROTATION: pb.PITCH_MODEL_ROTATION, PitchModel.SHIFT: pb.PITCH_MODEL_SHIFT}
_LARGEST = 65_536


@dataclass(frozen=True)
class ModelDescription:
    """Name of a configuration, digest of its weights, and its world where the name stands for no built-in one.

    slots: calls that the worker does at a time. batches: tasks that a call may carry, by the name of their kind.
    """

    name: str
    weights_digest: str
    spec: WorldSpec | None = None
    slots: int = 1
    batches: Mapping[str, int] = field(default_factory=dict)


def write_spec(spec: WorldSpec) -> pb.WorldSpec:
    lens, gait = spec.lens, spec.gait
    return pb.WorldSpec(
        frames_per_second=spec.fps,
        latents=spec.latents,
        lens=pb.Lens(
            width_pixels=lens.width,
            height_pixels=lens.height,
            focal_x_pixels=lens.fx,
            focal_y_pixels=lens.fy,
            pitch_model=_PITCH[lens.pitch_model],
        ),
        upscale=spec.upscale,
        latent_channels=spec.latent_channels,
        spatial_stride=spec.spatial_stride,
        gait=pb.Gait(
            step_metres=gait.step,
            turn_radians=gait.turn,
            tilt_radians=gait.tilt,
            drift=gait.drift,
            pitch_limit_radians=gait.pitch_limit,
            radius_metres=gait.radius,
            reference_depth_metres=gait.reference_depth,
        ),
    )


def read_spec(message: pb.WorldSpec, name: str) -> WorldSpec:
    """The world of the model `name`. Raises InvalidInput naming the field."""
    lens, gait = message.lens, message.gait
    pitch = {value: model for model, value in _PITCH.items()}.get(lens.pitch_model)
    if pitch is None:
        raise InvalidInput("model.spec.lens.pitch_model", "is none that is known")
    counts = {
        "latents": message.latents,
        "upscale": message.upscale,
        "latent_channels": message.latent_channels,
        "spatial_stride": message.spatial_stride,
        "lens.width_pixels": lens.width_pixels,
        "lens.height_pixels": lens.height_pixels,
    }
    amounts = {
        "frames_per_second": message.frames_per_second,
        "lens.focal_x_pixels": lens.focal_x_pixels,
        "lens.focal_y_pixels": lens.focal_y_pixels,
        "gait.reference_depth_metres": gait.reference_depth_metres,
    }
    for part, value in counts.items():
        if not 1 <= value <= _LARGEST:
            raise InvalidInput(f"model.spec.{part}", f"must lie between 1 and {_LARGEST}")
    for part, amount in amounts.items():
        if not 0 < amount < math.inf:
            raise InvalidInput(f"model.spec.{part}", "must be positive and finite")
    steps = (
        gait.step_metres,
        gait.turn_radians,
        gait.tilt_radians,
        gait.drift,
        gait.pitch_limit_radians,
        gait.radius_metres,
        gait.reference_depth_metres,
    )
    if not all(math.isfinite(step) for step in steps):
        raise InvalidInput("model.spec.gait", "must be finite")
    return WorldSpec(
        name=name,
        fps=message.frames_per_second,
        latents=message.latents,
        lens=Lens(lens.width_pixels, lens.height_pixels, lens.focal_x_pixels, lens.focal_y_pixels, pitch),
        upscale=message.upscale,
        latent_channels=message.latent_channels,
        gait=Gait(*steps),
        spatial_stride=message.spatial_stride,
    )
