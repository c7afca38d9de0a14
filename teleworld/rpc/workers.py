"""The ports of `teleworld.runtime.ports` over gRPC: one client for each worker address.

A client makes one attempt within its timeout; which errors mean that the task may be tried elsewhere is said by the ports.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from types import TracebackType
from typing import Self

from teleworld._proto.decoder.v1 import decoder_pb2, decoder_pb2_grpc
from teleworld._proto.planner.v1 import planner_pb2, planner_pb2_grpc
from teleworld._proto.populator.v1 import populator_pb2, populator_pb2_grpc
from teleworld._proto.reconstructor.v1 import reconstructor_pb2, reconstructor_pb2_grpc
from teleworld.rpc import calls
from teleworld.rpc.channels import open_channel
from teleworld.rpc.convert import common, decoder, planner, populator, reconstructor
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    DecodeRequest,
    DecodeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
    GuideRequest,
    GuideResult,
    LatentsResult,
    PlanRequest,
    PopulateRequest,
    Prompt,
    ReconstructRequest,
    ReconstructResult,
)

PLANNER = "teleworld.planner.v1.PlannerService"
POPULATOR = "teleworld.populator.v1.PopulatorService"
RECONSTRUCTOR = "teleworld.reconstructor.v1.ReconstructorService"
DECODER = "teleworld.decoder.v1.DecoderService"


class WorkerClient:
    """A channel to one worker at `address` (`host:port`); an async context manager that closes it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = open_channel(address)

    async def close(self) -> None:
        """Close the channel; calls under way end with Unavailable."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class PlannerClient(WorkerClient):
    """PlannerPort over gRPC."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = planner_pb2_grpc.PlannerServiceStub(self.channel)

    async def embed(self, request: EmbedRequest, timeout: float) -> Prompt:
        message = planner.write_embed_request(request)
        read = planner.read_embed_response
        return await calls.unary(self._stub.Embed, f"{PLANNER}/Embed", message, timeout, read)

    async def encode(self, request: EncodeRequest, timeout: float) -> EncodeResult:
        message = planner.write_encode_request(request)
        read = planner.read_encode_response
        return await calls.unary(self._stub.Encode, f"{PLANNER}/Encode", message, timeout, read)

    async def plan(self, request: PlanRequest, timeout: float) -> LatentsResult:
        message = planner.write_plan_request(request)
        read = planner.read_plan_response
        return await calls.unary(self._stub.Plan, f"{PLANNER}/Plan", message, timeout, read)

    async def bridge(self, request: BridgeRequest, timeout: float) -> BridgeResult:
        message = planner.write_bridge_request(request)
        read = planner.read_bridge_response
        return await calls.unary(self._stub.Bridge, f"{PLANNER}/Bridge", message, timeout, read)

    async def describe(self, timeout: float) -> common.ModelDescription:
        message = planner_pb2.DescribeModelRequest()
        name = f"{PLANNER}/DescribeModel"
        return await calls.unary(self._stub.DescribeModel, name, message, timeout, _read_description)


class PopulatorClient(WorkerClient):
    """PopulatorPort over gRPC."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = populator_pb2_grpc.PopulatorServiceStub(self.channel)

    async def populate(self, request: PopulateRequest, timeout: float) -> LatentsResult:
        message = populator.write_populate_request(request)
        read = populator.read_populate_response
        return await calls.unary(self._stub.Populate, f"{POPULATOR}/Populate", message, timeout, read)

    async def describe(self, timeout: float) -> common.ModelDescription:
        message = populator_pb2.DescribeModelRequest()
        name = f"{POPULATOR}/DescribeModel"
        return await calls.unary(self._stub.DescribeModel, name, message, timeout, _read_description)


class ReconstructorClient(WorkerClient):
    """ReconstructorPort over gRPC."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = reconstructor_pb2_grpc.ReconstructorServiceStub(self.channel)

    async def guide(self, request: GuideRequest, timeout: float) -> GuideResult:
        message = reconstructor.write_guide_request(request)
        read = reconstructor.read_guide_response
        return await calls.unary(self._stub.Guide, f"{RECONSTRUCTOR}/Guide", message, timeout, read)

    async def reconstruct(self, request: ReconstructRequest, timeout: float) -> ReconstructResult:
        message = reconstructor.write_reconstruct_request(request)
        read = reconstructor.read_reconstruct_response
        return await calls.unary(self._stub.Reconstruct, f"{RECONSTRUCTOR}/Reconstruct", message, timeout, read)

    async def fork(self, source: str, revision: int, target: str, timeout: float) -> None:
        message = reconstructor_pb2.ForkMemoryRequest(source=source, revision=revision, target=target)
        await calls.unary(self._stub.ForkMemory, f"{RECONSTRUCTOR}/ForkMemory", message, timeout, _nothing)

    async def forget(self, world: str, timeout: float) -> None:
        message = reconstructor_pb2.ForgetMemoryRequest(world=world)
        await calls.unary(self._stub.ForgetMemory, f"{RECONSTRUCTOR}/ForgetMemory", message, timeout, _nothing)

    async def export(
        self, world: str, revision: int, dynamic_frame: int | None, timeout: float
    ) -> AsyncGenerator[bytes, None]:
        message = reconstructor_pb2.ExportMemoryRequest(world=world, revision=revision, dynamic_frame=dynamic_frame)
        name = f"{RECONSTRUCTOR}/ExportMemory"
        async with aclosing(calls.server_stream(self._stub.ExportMemory, name, message, timeout)) as responses:
            async for response in responses:
                yield response.ply

    async def describe(self, timeout: float) -> common.ModelDescription:
        message = reconstructor_pb2.DescribeModelRequest()
        name = f"{RECONSTRUCTOR}/DescribeModel"
        return await calls.unary(self._stub.DescribeModel, name, message, timeout, _read_description)


class DecoderClient(WorkerClient):
    """DecoderPort over gRPC."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = decoder_pb2_grpc.DecoderServiceStub(self.channel)

    async def decode(self, request: DecodeRequest, timeout: float) -> DecodeResult:
        message = decoder.write_decode_request(request)
        read = decoder.read_decode_response
        return await calls.unary(self._stub.Decode, f"{DECODER}/Decode", message, timeout, read)

    async def describe(self, timeout: float) -> common.ModelDescription:
        message = decoder_pb2.DescribeModelRequest()
        name = f"{DECODER}/DescribeModel"
        return await calls.unary(self._stub.DescribeModel, name, message, timeout, _read_description)


def _read_description(
    message: planner_pb2.DescribeModelResponse
    | populator_pb2.DescribeModelResponse
    | reconstructor_pb2.DescribeModelResponse
    | decoder_pb2.DescribeModelResponse,
) -> common.ModelDescription:
    return common.read_model(message.model)


def _nothing(message: object) -> None:
    """The answer has no content."""
