"""Messages of `teleworld.populator.v1.PopulatorService`."""

from __future__ import annotations

from collections.abc import Sequence

from teleworld._proto.populator.v1 import populator_pb2 as pb
from teleworld.rpc.convert import common
from teleworld.rpc.tensors import write_tensor
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import Group
from teleworld.world.work import LatentsResult, PopulateRequest


def write_populate_request(request: PopulateRequest) -> pb.PopulateRequest:
    message = pb.PopulateRequest(
        context=common.write_context(request.context),
        timeline=common.write_timeline(request.timeline),
        clean=write_tensor(request.clean, "clean"),
        guidance=common.write_guidance(request.guidance),
        prompt=common.write_prompt(request.prompt),
    )
    if request.timeline.planned_chain is None:
        message.group_number = request.group
    else:
        message.group = common.write_group(request.group)
    return message


def read_populate_request(message: pb.PopulateRequest) -> PopulateRequest:
    timeline = common.read_timeline(message.timeline)
    group = message.group_number or int(common.read_group(message.group, "group"))
    if group < Group.FIRST_HALF or not timeline.members(group):
        raise InvalidInput("group", "expected a group of the segment that has latents to fill")
    return PopulateRequest(
        context=common.read_context(message.context),
        timeline=timeline,
        group=group,
        clean=common.read_latents(message.clean, "clean", len(timeline.visible(group))),
        guidance=common.read_guidance(message.guidance, pictures=False, of=timeline.members(group)),
        prompt=common.read_prompt(message.prompt),
    )


def write_populate_response(result: LatentsResult) -> pb.PopulateResponse:
    latents = write_tensor(result.latents, "latents")
    return pb.PopulateResponse(indices=result.indices, latents=latents, stage_ms=result.stage_ms)


def read_populate_response(message: pb.PopulateResponse) -> LatentsResult:
    indices = common.read_indices(message.indices, "indices")
    latents = common.read_latents(message.latents, "latents", len(indices), held=True)
    return LatentsResult(indices, latents, dict(message.stage_ms))


def write_populate_many_request(requests: Sequence[PopulateRequest]) -> pb.PopulateManyRequest:
    return pb.PopulateManyRequest(requests=map(write_populate_request, requests))


def read_populate_many_request(message: pb.PopulateManyRequest) -> tuple[PopulateRequest, ...]:
    return common.read_batch(message.requests, read_populate_request, _shape)


def _shape(request: PopulateRequest) -> object:
    """What the tasks of one call have in common."""
    arrays = request.clean.shape, request.guidance.latents.shape, request.prompt.embedding.shape[1:]
    return request.timeline, request.group, arrays


def write_populate_many_response(results: Sequence[LatentsResult]) -> pb.PopulateManyResponse:
    return pb.PopulateManyResponse(responses=map(write_populate_response, results))


def read_populate_many_response(message: pb.PopulateManyResponse) -> tuple[LatentsResult, ...]:
    return tuple(map(read_populate_response, message.responses))
