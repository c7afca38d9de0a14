"""teleworld.decoder.v1.DecoderService over a decoder core: checks, converts, delegates."""

from __future__ import annotations

from typing import Protocol

import grpc

from services.common.desk import Desk
from teleworld._proto.decoder.v1 import decoder_pb2 as pb
from teleworld._proto.decoder.v1 import decoder_pb2_grpc
from teleworld.rpc.convert import decoder as convert
from teleworld.rpc.convert.common import write_model
from teleworld.rpc.server import Server
from teleworld.rpc.workers import DECODER
from teleworld.world.work import DecodeRequest, DecodeResult


class DecoderCore(Protocol):
    """What computes; called on one thread. It may hold the state of streams between calls."""

    def decode(self, request: DecodeRequest) -> DecodeResult: ...


class DecoderServicer(decoder_pb2_grpc.DecoderServiceServicer):
    """Passes each call over the desk to the core."""

    def __init__(self, desk: Desk[DecoderCore]) -> None:
        self._desk = desk

    async def Decode(self, request: pb.DecodeRequest, context: grpc.aio.ServicerContext) -> pb.DecodeResponse:
        return await self._desk.task(
            request, convert.read_decode_request, lambda core, task: core.decode(task), convert.write_decode_response
        )

    async def DescribeModel(
        self, request: pb.DescribeModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.DescribeModelResponse:
        return pb.DescribeModelResponse(model=write_model(self._desk.model))


def register(server: Server, desk: Desk[DecoderCore]) -> None:
    """Serve the decoder on `server`."""
    server.add(decoder_pb2_grpc.add_DecoderServiceServicer_to_server, DecoderServicer(desk), DECODER)
