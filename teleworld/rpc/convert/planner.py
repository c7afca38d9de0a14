"""Messages of `teleworld.planner.v1.PlannerService`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from teleworld._proto.planner.v1 import planner_pb2 as pb
from teleworld.rpc.convert import common
from teleworld.rpc.tensors import read_tensor, write_tensor
from teleworld.world.timeline import Group
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
    LatentsResult,
    PlanRequest,
    Prompt,
)


def write_embed_request(request: EmbedRequest) -> pb.EmbedRequest:
    return pb.EmbedRequest(weights=request.weights, text=request.text)


def read_embed_request(message: pb.EmbedRequest) -> EmbedRequest:
    weights = common.check_name(message.weights, "weights")
    return EmbedRequest(weights, common.check_text(message.text, "text"))


def write_embed_response(prompt: Prompt) -> pb.EmbedResponse:
    return pb.EmbedResponse(prompt=common.write_prompt(prompt))


def read_embed_response(message: pb.EmbedResponse) -> Prompt:
    return common.read_prompt(message.prompt)


def write_encode_request(request: EncodeRequest) -> pb.EncodeRequest:
    return pb.EncodeRequest(
        context=common.write_context(request.context), picture=write_tensor(request.picture, "picture")
    )


def read_encode_request(message: pb.EncodeRequest) -> EncodeRequest:
    context = common.read_context(message.context)
    return EncodeRequest(context, read_tensor(message.picture, "picture", np.uint8, (None, None, 3)))


def write_encode_response(result: EncodeResult) -> pb.EncodeResponse:
    return pb.EncodeResponse(latent=write_tensor(result.latent, "latent"), stage_ms=result.stage_ms)


def read_encode_response(message: pb.EncodeResponse) -> EncodeResult:
    return EncodeResult(common.read_latent(message.latent, "latent"), dict(message.stage_ms))


def write_plan_request(request: PlanRequest) -> pb.PlanRequest:
    return pb.PlanRequest(
        context=common.write_context(request.context),
        timeline=common.write_timeline(request.timeline),
        prefix=write_tensor(request.prefix, "prefix"),
        guidance=common.write_guidance(request.guidance),
        prompt=common.write_prompt(request.prompt),
    )


def read_plan_request(message: pb.PlanRequest) -> PlanRequest:
    timeline = common.read_timeline(message.timeline)
    return PlanRequest(
        context=common.read_context(message.context),
        timeline=timeline,
        prefix=common.read_latent(message.prefix, "prefix"),
        guidance=common.read_guidance(message.guidance, pictures=False, of=timeline.members(Group.PLAN)),
        prompt=common.read_prompt(message.prompt),
    )


def write_plan_response(result: LatentsResult) -> pb.PlanResponse:
    latents = write_tensor(result.latents, "latents")
    return pb.PlanResponse(indices=result.indices, latents=latents, stage_ms=result.stage_ms)


def read_plan_response(message: pb.PlanResponse) -> LatentsResult:
    indices = common.read_indices(message.indices, "indices")
    latents = common.read_latents(message.latents, "latents", len(indices))
    return LatentsResult(indices, latents, dict(message.stage_ms))


def write_plan_many_request(requests: Sequence[PlanRequest]) -> pb.PlanManyRequest:
    return pb.PlanManyRequest(requests=map(write_plan_request, requests))


def read_plan_many_request(message: pb.PlanManyRequest) -> tuple[PlanRequest, ...]:
    return common.read_batch(message.requests, read_plan_request, _shape)


def _shape(request: PlanRequest) -> object:
    """What the tasks of one call have in common."""
    arrays = request.prefix.shape, request.guidance.latents.shape, request.prompt.embedding.shape[1:]
    return request.timeline, arrays


def write_plan_many_response(results: Sequence[LatentsResult]) -> pb.PlanManyResponse:
    return pb.PlanManyResponse(responses=map(write_plan_response, results))


def read_plan_many_response(message: pb.PlanManyResponse) -> tuple[LatentsResult, ...]:
    return tuple(map(read_plan_response, message.responses))


def write_bridge_request(request: BridgeRequest) -> pb.BridgeRequest:
    return pb.BridgeRequest(
        context=common.write_context(request.context),
        timeline=common.write_timeline(request.timeline),
        prefix=write_tensor(request.prefix, "prefix"),
        keys=write_tensor(request.keys, "keys"),
        guidance=common.write_guidance(request.guidance),
    )


def read_bridge_request(message: pb.BridgeRequest) -> BridgeRequest:
    timeline = common.read_timeline(message.timeline)
    return BridgeRequest(
        context=common.read_context(message.context),
        timeline=timeline,
        prefix=common.read_latent(message.prefix, "prefix"),
        keys=common.read_latents(message.keys, "keys", len(timeline.key_frames)),
        guidance=common.read_guidance(message.guidance, of=timeline.key_frames),
    )


def write_bridge_response(result: BridgeResult) -> pb.BridgeResponse:
    return pb.BridgeResponse(
        pictures=write_tensor(result.pictures, "pictures"),
        boundary=write_tensor(result.boundary, "boundary"),
        stage_ms=result.stage_ms,
    )


def read_bridge_response(message: pb.BridgeResponse) -> BridgeResult:
    return BridgeResult(
        pictures=read_tensor(message.pictures, "pictures", np.uint8, (None, None, None, 3), held=True),
        boundary=common.read_latent(message.boundary, "boundary"),
        stage_ms=dict(message.stage_ms),
    )
