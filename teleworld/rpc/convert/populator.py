"""Messages of `teleworld.populator.v1.PopulatorService`."""

from __future__ import annotations

from teleworld._proto.populator.v1 import populator_pb2 as pb
from teleworld.rpc.convert import common
from teleworld.rpc.tensors import write_tensor
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import Group
from teleworld.world.work import LatentsResult, PopulateRequest


def write_populate_request(request: PopulateRequest) -> pb.PopulateRequest:
    return pb.PopulateRequest(
        context=common.write_context(request.context),
        timeline=common.write_timeline(request.timeline),
        group=common.write_group(request.group),
        clean=write_tensor(request.clean, "clean"),
        guidance=common.write_guidance(request.guidance),
        prompt=common.write_prompt(request.prompt),
    )


def read_populate_request(message: pb.PopulateRequest) -> PopulateRequest:
    timeline = common.read_timeline(message.timeline)
    group = common.read_group(message.group, "group")
    if group not in (Group.FIRST_HALF, Group.SECOND_HALF) or not timeline.members(group):
        raise InvalidInput("group", "expected a half of the segment that has latents to fill")
    return PopulateRequest(
        context=common.read_context(message.context),
        timeline=timeline,
        group=group,
        clean=common.read_latents(message.clean, "clean", len(timeline.visible(group))),
        guidance=common.read_guidance(message.guidance),
        prompt=common.read_prompt(message.prompt),
    )


def write_populate_response(result: LatentsResult) -> pb.PopulateResponse:
    latents = write_tensor(result.latents, "latents")
    return pb.PopulateResponse(indices=result.indices, latents=latents, stage_ms=result.stage_ms)


def read_populate_response(message: pb.PopulateResponse) -> LatentsResult:
    indices = common.read_indices(message.indices, "indices")
    latents = common.read_latents(message.latents, "latents", len(indices))
    return LatentsResult(indices, latents, dict(message.stage_ms))
