"""What is attacked: every method of the four workers, of the gateway and of its scaler, each with the messages of a real walk, so
that a mutation reaches as deep as it can.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
from google.protobuf.message import Message

import services.decoder.servicer
import services.planner.servicer
import services.populator.servicer
import services.reconstructor.servicer
from services.common.desk import Desk
from services.gateway import scaler
from services.gateway.demand import Demand
from teleworld._proto.decoder.v1 import decoder_pb2
from teleworld._proto.gateway.v1 import stream_pb2
from teleworld._proto.gateway.v1 import world_service_pb2 as gateway_pb
from teleworld._proto.keda.v1 import externalscaler_pb2 as keda_pb
from teleworld._proto.planner.v1 import planner_pb2
from teleworld._proto.populator.v1 import populator_pb2
from teleworld._proto.reconstructor.v1 import reconstructor_pb2
from teleworld.generation.decoder import Decoder
from teleworld.generation.inprocess import InProcessEngine
from teleworld.generation.model import Model
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.rpc.convert import decoder, planner, populator, reconstructor
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server, ServerConfig
from teleworld.runtime.records import WorldRecord
from teleworld.world.controls import Keys, schedule
from teleworld.world.timeline import ChainMode
from teleworld.world.work import EmbedRequest, Prompt
from tests.faults.fuzz import Target
from tests.services.gateway.mesh import Mesh, png

CONTRACTS = (planner_pb2, populator_pb2, reconstructor_pb2, decoder_pb2, gateway_pb, keda_pb)
WORLD = "0" * 26


def methods() -> set[str]:
    """The path of every method that a service of ours serves."""
    services_ = [service for contract in CONTRACTS for service in contract.DESCRIPTOR.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}" for service in services_ for method in service.methods}


async def worker_targets(model: Model, stack: AsyncExitStack) -> list[Target]:
    """Every method of the four workers, behind real desks and the real cores of `model`, with the requests of a walk."""
    asked, memory = await _walk(model)
    asked["plan_many"] = [asked["plan"][:2]]
    asked["populate_many"] = [[asked["populate"][0]] * 2]
    cores = {
        "planner": (Planner(model), services.planner.servicer.register),
        "populator": (Populator(model), services.populator.servicer.register),
        "reconstructor": (Reconstructor(model, memory), services.reconstructor.servicer.register),
        "decoder": (Decoder(model), services.decoder.servicer.register),
    }
    writers: dict[str, tuple[str, Callable[[Any], Message]]] = {
        "embed": ("planner.v1.PlannerService/Embed", planner.write_embed_request),
        "encode": ("planner.v1.PlannerService/Encode", planner.write_encode_request),
        "plan": ("planner.v1.PlannerService/Plan", planner.write_plan_request),
        "bridge": ("planner.v1.PlannerService/Bridge", planner.write_bridge_request),
        "populate": ("populator.v1.PopulatorService/Populate", populator.write_populate_request),
        "plan_many": ("planner.v1.PlannerService/PlanMany", planner.write_plan_many_request),
        "populate_many": ("populator.v1.PopulatorService/PopulateMany", populator.write_populate_many_request),
        "guide": ("reconstructor.v1.ReconstructorService/Guide", reconstructor.write_guide_request),
        "reconstruct": ("reconstructor.v1.ReconstructorService/Reconstruct", reconstructor.write_reconstruct_request),
        "decode": ("decoder.v1.DecoderService/Decode", decoder.write_decode_request),
    }
    addresses = {}
    for name, (core, register) in cores.items():
        desk: Desk[Any] = Desk(name, 8)
        server = Server(name, ServerConfig(drain_seconds=1.0))
        register(server, desk)
        server.on_drain(desk.close)
        addresses[name] = await server.start()
        await desk.open(lambda core=core: (ModelDescription(model.spec.name, model.digest), core))
        server.ready()
        stack.push_async_callback(server.drain)
    seeds: dict[str, list[Message]] = {
        path: [write(request) for request in asked[method]] for method, (path, write) in writers.items()
    }
    seeds |= {
        f"{pool}.v1.{pool.capitalize()}Service/DescribeModel": [contract.DescribeModelRequest()]
        for pool, contract in zip(cores, CONTRACTS, strict=False)
    }
    newest = max(request.base for request in asked["reconstruct"]) + 1
    pb, memories = reconstructor_pb2, "reconstructor.v1.ReconstructorService/"
    seeds |= {
        f"{memories}ForkMemory": [pb.ForkMemoryRequest(source=WORLD, revision=newest, target=WORLD[:-1] + "1")],
        f"{memories}ForgetMemory": [pb.ForgetMemoryRequest(world=WORLD[:-1] + "1")],
        f"{memories}ExportMemory": [pb.ExportMemoryRequest(world=WORLD, revision=newest, dynamic_frame=3)],
    }
    return [
        Target(
            addresses[path.partition(".")[0]],
            f"/teleworld.{path}",
            messages,
            "answers" if path.endswith("ExportMemory") else "unary",
        )
        for path, messages in seeds.items()
    ]


async def _walk(model: Model) -> tuple[dict[str, list[Any]], Memory]:
    """The requests of a short walk by method, and the memory that it left behind."""
    asked: dict[str, list[Any]] = {"embed": [EmbedRequest(model.digest, "a hall")]}
    memory = Memory(LocalMemoryStore())
    picture = np.random.default_rng(3).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    prompt = Prompt("a hall", Planner(model).embed(asked["embed"][0]).embedding)
    record = WorldRecord(WORLD, "nano", model.digest, 7, ChainMode.T_C, prompt, picture, 0.0, "r")

    class Listening(InProcessEngine):
        """Notes what its workers are asked."""

        async def __aenter__(self) -> InProcessEngine:
            await super().__aenter__()
            for thread in self._threads:
                for method in ("encode", "plan", "bridge", "populate", "guide", "reconstruct", "decode"):
                    if hasattr(thread.core, method):
                        setattr(thread.core, method, _noting(asked, method, getattr(thread.core, method)))
            return self

    async with Listening(model, memory) as engine:
        async for _ in engine.walk(record, schedule([Keys.W] * 40, 4), 7):
            pass
    return {method: requests[:3] for method, requests in asked.items()}, memory


def _noting(asked: dict[str, list[Any]], method: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def noted(request: Any) -> Any:
        asked.setdefault(method, []).append(request)
        return call(request)

    return noted


@asynccontextmanager
async def gateway_targets(mesh: Mesh) -> AsyncIterator[list[Target]]:
    """Every method of the gateway and its scaler, on a world that exists."""
    gateway = await mesh.gateway()
    keda = Server("scaler", ServerConfig(require_deadline=False, drain_seconds=1.0))
    scaler.register(keda, Demand(gateway.worlds.store, "fuzzed", dict))
    await keda.start()
    keda.ready()
    world = await gateway.create()
    name = world.name
    service = "/teleworld.gateway.v1.WorldService/"
    create = gateway_pb.CreateWorldRequest(image=png(), prompt="a hall", seed=7, request_id="same")
    attach = gateway_pb.StreamWorldRequest(attach=stream_pb2.Attach(name=name, credit=4))
    control = gateway_pb.StreamWorldRequest(control=stream_pb2.Control(keys=[1], sequence=1))
    ref = keda_pb.ScaledObjectRef(
        name="populator", namespace="worlds", scalerMetadata={"pool": "populator", "targetQueueDepth": "3"}
    )
    yield [
        *(Target(keda.address, f"/{scaler.NAME}/{method}", [ref]) for method in ("IsActive", "GetMetricSpec")),
        Target(keda.address, f"/{scaler.NAME}/StreamIsActive", [ref], "answers"),
        Target(keda.address, f"/{scaler.NAME}/GetMetrics", [keda_pb.GetMetricsRequest(scaledObjectRef=ref)]),
        Target(gateway.server.address, service + "CreateWorld", [create]),
        Target(gateway.server.address, service + "GetWorld", [gateway_pb.GetWorldRequest(name=name)]),
        Target(gateway.server.address, service + "ListWorlds", [gateway_pb.ListWorldsRequest(page_size=3)]),
        Target(gateway.server.address, service + "ForkWorld", [gateway_pb.ForkWorldRequest(name=name, request_id="f")]),
        Target(gateway.server.address, service + "DeleteWorld", [gateway_pb.DeleteWorldRequest(name=name[:-1] + "0")]),
        Target(
            gateway.server.address,
            service + "SendControls",
            [gateway_pb.SendControlsRequest(name=name[:-1] + "0", controls=[control.control])],
        ),
        Target(
            gateway.server.address,
            service + "CreateWorldToken",
            [gateway_pb.CreateWorldTokenRequest(name=name, permissions=[1, 2], ttl_seconds=60)],
        ),
        Target(
            gateway.server.address,
            service + "ExportMemory",
            [gateway_pb.ExportMemoryRequest(name=name, dynamic_at_chunk=1)],
            "answers",
        ),
        Target(
            gateway.server.address,
            service + "WatchWorld",
            [gateway_pb.WatchWorldRequest(name=name[:-1] + "0", resume_after_chunk=1)],
            "answers",
        ),
        Target(gateway.server.address, service + "StreamWorld", [attach, control], "both"),
    ]
    await keda.drain()
