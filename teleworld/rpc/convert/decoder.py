"""Messages of `teleworld.decoder.v1.DecoderService`."""

from __future__ import annotations

from teleworld._proto.decoder.v1 import decoder_pb2 as pb
from teleworld.rpc.convert import common
from teleworld.rpc.tensors import write_tensor
from teleworld.world.errors import InvalidInput
from teleworld.world.work import DecodeRequest, DecodeResult


def write_decode_request(request: DecodeRequest) -> pb.DecodeRequest:
    return pb.DecodeRequest(
        context=common.write_context(request.context),
        chunk=request.chunk,
        index=request.index,
        latents=write_tensor(request.latents, "latents"),
        previous_sha256=request.previous,
        guidance=None if request.guidance is None else common.write_guidance(request.guidance),
    )


def read_decode_request(message: pb.DecodeRequest) -> DecodeRequest:
    if not 1 <= message.index <= common.MAX_LATENTS:
        raise InvalidInput("index", f"expected 1 to {common.MAX_LATENTS}, got {message.index}")
    latents = common.read_latents(message.latents, "latents")
    if len(latents) not in (1, message.index):
        raise InvalidInput("latents.shape", f"expected 1 or {message.index} latents, got {len(latents)}")
    return DecodeRequest(
        context=common.read_context(message.context),
        chunk=message.chunk,
        index=message.index,
        latents=latents,
        previous=common.check_sha256(message.previous_sha256, "previous_sha256"),
        guidance=common.read_guidance(message.guidance) if message.HasField("guidance") else None,
    )


def write_decode_response(result: DecodeResult) -> pb.DecodeResponse:
    return pb.DecodeResponse(
        video=result.video,
        frames=result.frames,
        width=result.width,
        height=result.height,
        stage_ms=result.stage_ms,
    )


def read_decode_response(message: pb.DecodeResponse) -> DecodeResult:
    return DecodeResult(message.video, message.frames, message.width, message.height, dict(message.stage_ms))
