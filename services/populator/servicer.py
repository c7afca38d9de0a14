"""teleworld.populator.v1.PopulatorService over a populator core: checks, converts, delegates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import grpc

from services.common.desk import Desk
from teleworld._proto.populator.v1 import populator_pb2 as pb
from teleworld._proto.populator.v1 import populator_pb2_grpc
from teleworld.rpc.convert import populator as convert
from teleworld.rpc.convert.common import write_model
from teleworld.rpc.server import Server
from teleworld.rpc.workers import POPULATOR
from teleworld.world.work import LatentsResult, PopulateRequest


class PopulatorCore(Protocol):
    """What computes; called on one thread."""

    def populate(self, request: PopulateRequest) -> LatentsResult: ...
    def populate_many(self, requests: Sequence[PopulateRequest]) -> Sequence[LatentsResult]: ...


class PopulatorServicer(populator_pb2_grpc.PopulatorServiceServicer):
    """Passes each call over the desk to the core."""

    def __init__(self, desk: Desk[PopulatorCore]) -> None:
        self._desk = desk

    async def Populate(self, request: pb.PopulateRequest, context: grpc.aio.ServicerContext) -> pb.PopulateResponse:
        return await self._desk.task(
            request,
            convert.read_populate_request,
            lambda core, task: core.populate(task),
            convert.write_populate_response,
        )

    async def PopulateMany(
        self, request: pb.PopulateManyRequest, context: grpc.aio.ServicerContext
    ) -> pb.PopulateManyResponse:
        return await self._desk.tasks(
            request,
            convert.read_populate_many_request,
            lambda core, tasks: core.populate_many(tasks),
            convert.write_populate_many_response,
        )

    async def DescribeModel(
        self, request: pb.DescribeModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.DescribeModelResponse:
        return pb.DescribeModelResponse(model=write_model(self._desk.model))


def register(server: Server, desk: Desk[PopulatorCore]) -> None:
    """Serve the populator on `server`."""
    server.add(populator_pb2_grpc.add_PopulatorServiceServicer_to_server, PopulatorServicer(desk), POPULATOR)
