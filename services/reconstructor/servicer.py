"""teleworld.reconstructor.v1.ReconstructorService over a reconstructor core: checks, converts, delegates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Protocol

import grpc

from services.common.desk import Desk
from teleworld._proto.reconstructor.v1 import reconstructor_pb2 as pb
from teleworld._proto.reconstructor.v1 import reconstructor_pb2_grpc
from teleworld.rpc.convert import reconstructor as convert
from teleworld.rpc.convert.common import check_name, write_model
from teleworld.rpc.server import Server
from teleworld.rpc.workers import RECONSTRUCTOR
from teleworld.world.work import GuideRequest, GuideResult, ReconstructRequest, ReconstructResult

PIECE_BYTES = 2**20


class ReconstructorCore(Protocol):
    """What computes and keeps the memory; called on one thread."""

    def guide(self, request: GuideRequest) -> GuideResult: ...
    def reconstruct(self, request: ReconstructRequest) -> ReconstructResult: ...
    def fork(self, source: str, revision: int, target: str) -> None: ...
    def forget(self, world: str) -> None: ...
    def export(self, world: str, revision: int, dynamic_frame: int | None) -> Iterable[bytes]: ...


class ReconstructorServicer(reconstructor_pb2_grpc.ReconstructorServiceServicer):
    """Passes each call over the desk to the core."""

    def __init__(self, desk: Desk[ReconstructorCore]) -> None:
        self._desk = desk

    async def Guide(self, request: pb.GuideRequest, context: grpc.aio.ServicerContext) -> pb.GuideResponse:
        return await self._desk.task(
            request, convert.read_guide_request, lambda core, task: core.guide(task), convert.write_guide_response
        )

    async def Reconstruct(
        self, request: pb.ReconstructRequest, context: grpc.aio.ServicerContext
    ) -> pb.ReconstructResponse:
        return await self._desk.task(
            request,
            convert.read_reconstruct_request,
            lambda core, task: core.reconstruct(task),
            convert.write_reconstruct_response,
        )

    async def ForkMemory(
        self, request: pb.ForkMemoryRequest, context: grpc.aio.ServicerContext
    ) -> pb.ForkMemoryResponse:
        return await self._desk.answer(
            request, convert.read_fork_request, lambda core, ask: core.fork(*ask), lambda _: pb.ForkMemoryResponse()
        )

    async def ForgetMemory(
        self, request: pb.ForgetMemoryRequest, context: grpc.aio.ServicerContext
    ) -> pb.ForgetMemoryResponse:
        return await self._desk.answer(
            request,
            lambda message: check_name(message.world, "world"),
            lambda core, world: core.forget(world),
            lambda _: pb.ForgetMemoryResponse(),
        )

    async def ExportMemory(
        self, request: pb.ExportMemoryRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.ExportMemoryResponse]:
        export = self._desk.stream(request, convert.read_export_request, lambda core, ask: core.export(*ask))
        async with aclosing(export) as blocks:
            async for block in blocks:
                for start in range(0, len(block), PIECE_BYTES):
                    yield pb.ExportMemoryResponse(ply=block[start : start + PIECE_BYTES])

    async def DescribeModel(
        self, request: pb.DescribeModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.DescribeModelResponse:
        return pb.DescribeModelResponse(model=write_model(self._desk.model))


def register(server: Server, desk: Desk[ReconstructorCore]) -> None:
    """Serve the reconstructor on `server`."""
    server.add(
        reconstructor_pb2_grpc.add_ReconstructorServiceServicer_to_server, ReconstructorServicer(desk), RECONSTRUCTOR
    )
