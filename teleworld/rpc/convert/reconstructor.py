"""Messages of `teleworld.reconstructor.v1.ReconstructorService`."""

from __future__ import annotations

import math

import numpy as np

from teleworld._proto.reconstructor.v1 import reconstructor_pb2 as pb
from teleworld.rpc.convert import common
from teleworld.rpc.tensors import read_tensor, write_tensor
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT
from teleworld.world.work import GuideRequest, GuideResult, ReconstructRequest, ReconstructResult


def write_guide_request(request: GuideRequest) -> pb.GuideRequest:
    return pb.GuideRequest(
        context=common.write_context(request.context),
        revision=request.revision,
        indices=request.indices,
        path=common.write_path(request.path),
        own_view_only=request.own_view_only,
    )


def read_guide_request(message: pb.GuideRequest) -> GuideRequest:
    indices = common.read_indices(message.indices, "indices")
    return GuideRequest(
        context=common.read_context(message.context),
        revision=message.revision,
        indices=indices,
        path=common.read_path(message.path, "path", len(indices) * PIXEL_FRAMES_PER_LATENT),
        own_view_only=message.own_view_only,
    )


def write_guide_response(result: GuideResult) -> pb.GuideResponse:
    return pb.GuideResponse(guidance=common.write_guidance(result.guidance), stage_ms=result.stage_ms)


def read_guide_response(message: pb.GuideResponse) -> GuideResult:
    return GuideResult(common.read_guidance(message.guidance, held=True), dict(message.stage_ms))


def write_reconstruct_request(request: ReconstructRequest) -> pb.ReconstructRequest:
    return pb.ReconstructRequest(
        context=common.write_context(request.context),
        base_revision=request.base,
        pictures=write_tensor(request.pictures, "pictures"),
        path=common.write_path(request.path),
        frames=request.frames,
    )


def read_reconstruct_request(message: pb.ReconstructRequest) -> ReconstructRequest:
    context = common.read_context(message.context)
    if message.base_revision < -1:
        raise InvalidInput("base_revision", f"expected -1 or more, got {message.base_revision}")
    pictures = read_tensor(message.pictures, "pictures", np.uint8, (None, None, None, 3))
    path = common.read_path(message.path, "path", len(pictures))
    if len(message.frames) != len(pictures):
        raise InvalidInput("frames", f"expected {len(pictures)} frame numbers, got {len(message.frames)}")
    return ReconstructRequest(context, message.base_revision, pictures, path, tuple(message.frames))


def write_reconstruct_response(result: ReconstructResult) -> pb.ReconstructResponse:
    return pb.ReconstructResponse(
        revision=result.revision,
        clearance=common.write_clearance(result.clearance),
        median_depth_metres=result.median_depth,
        static_points=result.static_points,
        dynamic_points=result.dynamic_points,
        stage_ms=result.stage_ms,
    )


def read_reconstruct_response(message: pb.ReconstructResponse) -> ReconstructResult:
    if not math.isfinite(message.median_depth_metres):
        raise InvalidInput("median_depth_metres", "must be finite")
    return ReconstructResult(
        revision=message.revision,
        clearance=common.read_clearance(message.clearance),
        median_depth=message.median_depth_metres,
        static_points=message.static_points,
        dynamic_points=message.dynamic_points,
        stage_ms=dict(message.stage_ms),
    )


def read_fork_request(message: pb.ForkMemoryRequest) -> tuple[str, int, str]:
    """(source, revision, target)."""
    source, target = common.check_name(message.source, "source"), common.check_name(message.target, "target")
    if source == target:
        raise InvalidInput("target", "must differ from the source")
    return source, message.revision, target


def read_export_request(message: pb.ExportMemoryRequest) -> tuple[str, int, int | None]:
    """(world, revision, dynamic frame or None)."""
    dynamic_frame = message.dynamic_frame if message.HasField("dynamic_frame") else None
    return common.check_name(message.world, "world"), message.revision, dynamic_frame
