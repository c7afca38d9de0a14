"""teleworld.planner.v1.PlannerService over a planner core: checks, converts, delegates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import grpc

from services.common.desk import Desk
from teleworld._proto.planner.v1 import planner_pb2 as pb
from teleworld._proto.planner.v1 import planner_pb2_grpc
from teleworld.rpc.convert import planner as convert
from teleworld.rpc.convert.common import write_model
from teleworld.rpc.server import Server
from teleworld.rpc.workers import PLANNER
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


class PlannerCore(Protocol):
    """What computes; called on one thread."""

    def embed(self, request: EmbedRequest) -> Prompt: ...
    def encode(self, request: EncodeRequest) -> EncodeResult: ...
    def plan(self, request: PlanRequest) -> LatentsResult: ...
    def plan_many(self, requests: Sequence[PlanRequest]) -> Sequence[LatentsResult]: ...
    def bridge(self, request: BridgeRequest) -> BridgeResult: ...


class PlannerServicer(planner_pb2_grpc.PlannerServiceServicer):
    """Passes each call over the desk to the core."""

    def __init__(self, desk: Desk[PlannerCore]) -> None:
        self._desk = desk

    async def Embed(self, request: pb.EmbedRequest, context: grpc.aio.ServicerContext) -> pb.EmbedResponse:
        def read(message: pb.EmbedRequest) -> EmbedRequest:
            question = convert.read_embed_request(message)
            self._desk.check_weights(question.weights)
            return question

        return await self._desk.answer(request, read, lambda core, ask: core.embed(ask), convert.write_embed_response)

    async def Encode(self, request: pb.EncodeRequest, context: grpc.aio.ServicerContext) -> pb.EncodeResponse:
        return await self._desk.task(
            request, convert.read_encode_request, lambda core, task: core.encode(task), convert.write_encode_response
        )

    async def Plan(self, request: pb.PlanRequest, context: grpc.aio.ServicerContext) -> pb.PlanResponse:
        return await self._desk.task(
            request, convert.read_plan_request, lambda core, task: core.plan(task), convert.write_plan_response
        )

    async def PlanMany(self, request: pb.PlanManyRequest, context: grpc.aio.ServicerContext) -> pb.PlanManyResponse:
        return await self._desk.tasks(
            request,
            convert.read_plan_many_request,
            lambda core, tasks: core.plan_many(tasks),
            convert.write_plan_many_response,
        )

    async def Bridge(self, request: pb.BridgeRequest, context: grpc.aio.ServicerContext) -> pb.BridgeResponse:
        return await self._desk.task(
            request, convert.read_bridge_request, lambda core, task: core.bridge(task), convert.write_bridge_response
        )

    async def DescribeModel(
        self, request: pb.DescribeModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.DescribeModelResponse:
        return pb.DescribeModelResponse(model=write_model(self._desk.model))


def register(server: Server, desk: Desk[PlannerCore]) -> None:
    """Serve the planner on `server`."""
    server.add(planner_pb2_grpc.add_PlannerServiceServicer_to_server, PlannerServicer(desk), PLANNER)
