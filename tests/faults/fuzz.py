"""Hostile messages for every RPC of ours: valid ones with something wrong, as fields and as bytes on the wire.

A service may refuse a message in any way but one: INTERNAL and UNKNOWN say that something unforeseen happened, and a dead
process says it louder. Seeds are the requests of a real walk, so that a mutation reaches as deep as it can.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

import services.decoder.servicer
import services.planner.servicer
import services.populator.servicer
import services.reconstructor.servicer
from services.common.desk import Desk
from teleworld._proto.gateway.v1 import stream_pb2
from teleworld._proto.gateway.v1 import world_service_pb2 as gateway_pb
from teleworld.generation.decoder import Decoder
from teleworld.generation.inprocess import InProcessEngine
from teleworld.generation.model import Model
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.rpc.channels import open_channel
from teleworld.rpc.convert import decoder, planner, populator, reconstructor
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server, ServerConfig
from teleworld.runtime.records import WorldRecord
from teleworld.world.controls import Keys, schedule
from teleworld.world.timeline import ChainMode
from teleworld.world.work import EmbedRequest, Prompt
from tests.services.gateway.mesh import Mesh, png

DEFECTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS)
TEXTS = ("", "x", "worlds/", "worlds/../../etc/passwd", "\N{SNOWMAN}" * 5000, "a\0b", "worlds/" + "0" * 26, "%s%n{0}")
NUMBERS = (0, 1, -1, 2, 7, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1e9, 1e38, float("nan"), float("inf"), -float("inf"))
TIMEOUT_S = 5.0


@dataclass
class Target:
    """A method and its valid requests. `kind` says which sides stream: 'unary', 'answers' or 'both'."""

    address: str
    path: str
    seeds: list[Message]
    kind: str = "unary"
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass
class Outcome:
    """How many messages ended with which status, and the first of those that must not be."""

    codes: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)

    @property
    def messages(self) -> int:
        """All that were sent."""
        return sum(self.codes.values())


def mutate(message: Message, dice: random.Random) -> bytes:
    """The wire form of `message` with one to three things wrong."""
    fresh = type(message)()
    fresh.CopyFrom(message)
    for _ in range(dice.randint(1, 3)):
        _spoil(fresh, dice)
    wire = fresh.SerializeToString()
    return _spoil_bytes(wire, dice) if dice.random() < 0.25 else wire


def _spoil(message: Message, dice: random.Random) -> None:
    """Change one field, somewhere in the tree."""
    places = list(_fields(message))
    if not places:
        return
    owner, known = dice.choice(places)
    if known.is_repeated:
        _spoil_repeated(getattr(owner, known.name), known, owner, dice)
    elif dice.random() < 0.2:
        owner.ClearField(known.name)
    elif known.message_type is None:
        setattr(owner, known.name, _value(known, getattr(owner, known.name), dice))


def _fields(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    for known in message.DESCRIPTOR.fields:
        yield message, known
        if known.message_type is None or known.message_type.GetOptions().map_entry:
            continue
        values = getattr(message, known.name)
        for value in list(values)[:2] if known.is_repeated else [values] if message.HasField(known.name) else []:
            yield from _fields(value)


def _spoil_repeated(values: Any, known: FieldDescriptor, owner: Message, dice: random.Random) -> None:
    if isinstance(values, Mapping):
        owner.ClearField(known.name)
        return
    choice = dice.random()
    if choice < 0.3 or not len(values):
        owner.ClearField(known.name)
    elif choice < 0.6:
        del values[dice.randrange(len(values)) :]
    elif known.message_type is not None:
        values.add().CopyFrom(values[0])
    else:
        values.extend([_value(known, values[0], dice)] * dice.choice((1, 3, 1000)))


def _value(known: FieldDescriptor, now: Any, dice: random.Random) -> Any:
    match known.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if known.type == FieldDescriptor.TYPE_BYTES:
            return dice.choice((b"", now[: len(now) // 2], now + b"\0", _spoil_bytes(now, dice), b"\xff" * 64))
        case FieldDescriptor.CPPTYPE_STRING:
            return dice.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_BOOL:
            return not now
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return dice.choice(FLOATS)
        case FieldDescriptor.CPPTYPE_ENUM:
            return dice.choice((0, 1, 2, 3, 99))
        case _:
            bits = 64 if known.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64) else 32
            signed = known.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_INT32)
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            return dice.choice([number for number in (*NUMBERS, now + 1, now - 1) if low <= number <= high])


def _spoil_bytes(data: bytes, dice: random.Random) -> bytes:
    if not data:
        return bytes(dice.randrange(256) for _ in range(dice.randrange(40)))
    at = dice.randrange(len(data))
    match dice.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
        case 2:
            return data[:at] + bytes(dice.randrange(256) for _ in range(8)) + data[at:]
        case _:
            return data[at:] + data[:at]


async def attack(targets: list[Target], messages: int, seed: int, alive: Callable[[], Awaitable[None]]) -> Outcome:
    """Send `messages` over all targets in turn; `alive` is asked now and then, and raises when a service is gone."""
    outcome, dice = Outcome(), random.Random(seed)
    channels = {target.address: open_channel(target.address) for target in targets}
    try:
        for number in range(messages):
            target = targets[number % len(targets)]
            wire = mutate(dice.choice(target.seeds), dice)
            code, text = await _send(channels[target.address], target, wire)
            outcome.codes[code.name] += 1
            if code in DEFECTS and len(outcome.defects) < 20:
                outcome.defects.append(f"{target.path} seed {seed} number {number}: {code.name} {text}")
            if number % 500 == 499:
                await alive()
        await alive()
    finally:
        for channel in channels.values():
            await channel.close()
    return outcome


async def _send(channel: grpc.aio.Channel, target: Target, wire: bytes) -> tuple[grpc.StatusCode, str]:
    same: Callable[[bytes], bytes] = bytes
    options: dict[str, Any] = {"timeout": TIMEOUT_S, "metadata": target.metadata}
    try:
        if target.kind == "unary":
            await channel.unary_unary(target.path, request_serializer=same, response_deserializer=same)(wire, **options)
            return grpc.StatusCode.OK, ""
        if target.kind == "answers":
            call = channel.unary_stream(target.path, request_serializer=same, response_deserializer=same)(
                wire, **options
            )
        else:
            call = channel.stream_stream(target.path, request_serializer=same, response_deserializer=same)(
                _messages(target, wire), **options
            )
        await call.read()
        call.cancel()
        return grpc.StatusCode.OK, ""
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""


async def _messages(target: Target, wire: bytes) -> AsyncIterator[bytes]:
    """A proper first message now and then, so that a stream gets to see the second one."""
    if wire and wire[0] % 2:
        yield target.seeds[0].SerializeToString()
    yield wire


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
    return [
        Target(addresses[path.partition(".")[0]], f"/teleworld.{path}", [write(request) for request in asked[method]])
        for method, (path, write) in writers.items()
    ]


async def _walk(model: Model) -> tuple[dict[str, list[Any]], Memory]:
    """The requests of a short walk by method, and the memory that it left behind."""
    asked: dict[str, list[Any]] = {"embed": [EmbedRequest(model.digest, "a hall")]}
    memory = Memory(LocalMemoryStore())
    picture = np.random.default_rng(3).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    prompt = Prompt("a hall", Planner(model).embed(asked["embed"][0]).embedding)
    record = WorldRecord("0" * 26, "nano", model.digest, 7, ChainMode.T_C, prompt, picture, 0.0, "r")

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
    """Every method of the gateway, on a world that exists."""
    gateway = await mesh.gateway()
    world = await gateway.create()
    name = world.name
    service = "/teleworld.gateway.v1.WorldService/"
    create = gateway_pb.CreateWorldRequest(image=png(), prompt="a hall", seed=7, request_id="same")
    attach = gateway_pb.StreamWorldRequest(attach=stream_pb2.Attach(name=name, credit=4))
    control = gateway_pb.StreamWorldRequest(control=stream_pb2.Control(keys=[1], sequence=1))
    yield [
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


def describe(outcome: Outcome) -> str:
    """One line a status, then the defects."""
    lines = [f"{code:20} {count}" for code, count in sorted(outcome.codes.items())]
    return "\n".join([*lines, *outcome.defects])
