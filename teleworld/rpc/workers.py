"""The ports of `teleworld.runtime.ports` over gRPC: one client for each worker address.

A client makes one attempt within its timeout; which errors mean that the task may be tried elsewhere is said by the ports.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar

from google.protobuf.message import Message
from grpc.aio import UnaryUnaryMultiCallable

from teleworld._proto.decoder.v1 import decoder_pb2, decoder_pb2_grpc
from teleworld._proto.planner.v1 import planner_pb2, planner_pb2_grpc
from teleworld._proto.populator.v1 import populator_pb2, populator_pb2_grpc
from teleworld._proto.reconstructor.v1 import reconstructor_pb2, reconstructor_pb2_grpc
from teleworld.rpc import calls
from teleworld.rpc.channels import open_channel
from teleworld.rpc.convert import common, decoder, planner, populator, reconstructor
from teleworld.rpc.link import Link, over
from teleworld.rpc.tls import TlsFiles, channel_credentials
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

Question = TypeVar("Question")
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Result = TypeVar("Result")


class WorkerClient:
    """A channel to one worker at `address` (`host:port`); an async context manager that closes it.

    tls: what we show, and check the worker with; `peer` is the name that its certificate must prove.
    """

    def __init__(self, address: str, tls: TlsFiles | None = None, peer: str = "") -> None:
        self.address = address
        credentials = None if tls is None else channel_credentials(tls)
        self.channel = open_channel(address, credentials=credentials, peer=peer)
        self._link = Link(address)

    async def close(self) -> None:
        """Close the channel; calls under way end with Unavailable."""
        await self.channel.close()

    async def _ask(
        self,
        method: UnaryUnaryMultiCallable[Request, Response],
        name: str,
        write: Callable[[Question], Request],
        question: Question,
        timeout: float,
        read: Callable[[Response], Result],
    ) -> Result:
        """One call: `question` written, sent, and its answer read, over the way that is agreed with this worker."""
        route = self._link.route()
        with over(route):
            try:
                return await calls.unary(method, name, write(question), timeout, read, self._link)
            finally:
                if route is not None:
                    route.discard()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class PlannerClient(WorkerClient):
    """PlannerPort over gRPC."""

    def __init__(self, address: str, tls: TlsFiles | None = None, peer: str = "") -> None:
        super().__init__(address, tls, peer)
        self._stub = planner_pb2_grpc.PlannerServiceStub(self.channel)

    async def embed(self, request: EmbedRequest, timeout: float) -> Prompt:
        write, read = planner.write_embed_request, planner.read_embed_response
        return await self._ask(self._stub.Embed, f"{PLANNER}/Embed", write, request, timeout, read)

    async def encode(self, request: EncodeRequest, timeout: float) -> EncodeResult:
        write, read = planner.write_encode_request, planner.read_encode_response
        return await self._ask(self._stub.Encode, f"{PLANNER}/Encode", write, request, timeout, read)

    async def plan(self, request: PlanRequest, timeout: float) -> LatentsResult:
        write, read = planner.write_plan_request, planner.read_plan_response
        return await self._ask(self._stub.Plan, f"{PLANNER}/Plan", write, request, timeout, read)

    async def plan_many(self, requests: Sequence[PlanRequest], timeout: float) -> tuple[LatentsResult, ...]:
        write, read = planner.write_plan_many_request, planner.read_plan_many_response
        return await self._ask(self._stub.PlanMany, f"{PLANNER}/PlanMany", write, requests, timeout, read)

    async def bridge(self, request: BridgeRequest, timeout: float) -> BridgeResult:
        write, read = planner.write_bridge_request, planner.read_bridge_response
        return await self._ask(self._stub.Bridge, f"{PLANNER}/Bridge", write, request, timeout, read)

    async def describe(self, timeout: float) -> common.ModelDescription:
        message = planner_pb2.DescribeModelRequest()
        name = f"{PLANNER}/DescribeModel"
        return await calls.unary(self._stub.DescribeModel, name, message, timeout, _read_description, self._link)


class PopulatorClient(WorkerClient):
    """PopulatorPort over gRPC."""

    def __init__(self, address: str, tls: TlsFiles | None = None, peer: str = "") -> None:
        super().__init__(address, tls, peer)
        self._stub = populator_pb2_grpc.PopulatorServiceStub(self.channel)

    async def populate(self, request: PopulateRequest, timeout: float) -> LatentsResult:
        write, read = populator.write_populate_request, populator.read_populate_response
        return await self._ask(self._stub.Populate, f"{POPULATOR}/Populate", write, request, timeout, read)

    async def populate_many(self, requests: Sequence[PopulateRequest], timeout: float) -> tuple[LatentsResult, ...]:
        write, read = populator.write_populate_many_request, populator.read_populate_many_response
        return await self._ask(self._stub.PopulateMany, f"{POPULATOR}/PopulateMany", write, requests, timeout, read)

    async def describe(self, timeout: float) -> common.ModelDescription:
        message = populator_pb2.DescribeModelRequest()
        name = f"{POPULATOR}/DescribeModel"
        return await calls.unary(self._stub.DescribeModel, name, message, timeout, _read_description, self._link)


class ReconstructorClient(WorkerClient):
    """ReconstructorPort over gRPC."""

    def __init__(self, address: str, tls: TlsFiles | None = None, peer: str = "") -> None:
        super().__init__(address, tls, peer)
        self._stub = reconstructor_pb2_grpc.ReconstructorServiceStub(self.channel)

    async def guide(self, request: GuideRequest, timeout: float) -> GuideResult:
        write, read = reconstructor.write_guide_request, reconstructor.read_guide_response
        return await self._ask(self._stub.Guide, f"{RECONSTRUCTOR}/Guide", write, request, timeout, read)

    async def reconstruct(self, request: ReconstructRequest, timeout: float) -> ReconstructResult:
        write, read = reconstructor.write_reconstruct_request, reconstructor.read_reconstruct_response
        return await self._ask(self._stub.Reconstruct, f"{RECONSTRUCTOR}/Reconstruct", write, request, timeout, read)

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
        return await calls.unary(self._stub.DescribeModel, name, message, timeout, _read_description, self._link)


class DecoderClient(WorkerClient):
    """DecoderPort over gRPC."""

    def __init__(self, address: str, tls: TlsFiles | None = None, peer: str = "") -> None:
        super().__init__(address, tls, peer)
        self._stub = decoder_pb2_grpc.DecoderServiceStub(self.channel)

    async def decode(self, request: DecodeRequest, timeout: float) -> DecodeResult:
        write, read = decoder.write_decode_request, decoder.read_decode_response
        return await self._ask(self._stub.Decode, f"{DECODER}/Decode", write, request, timeout, read)

    async def describe(self, timeout: float) -> common.ModelDescription:
        message = decoder_pb2.DescribeModelRequest()
        name = f"{DECODER}/DescribeModel"
        return await calls.unary(self._stub.DescribeModel, name, message, timeout, _read_description, self._link)


def _read_description(
    message: planner_pb2.DescribeModelResponse
    | populator_pb2.DescribeModelResponse
    | reconstructor_pb2.DescribeModelResponse
    | decoder_pb2.DescribeModelResponse,
) -> common.ModelDescription:
    return common.read_model(message.model)


def _nothing(message: object) -> None:
    """The answer has no content."""
