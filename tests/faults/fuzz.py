"""Hostile messages for every RPC of ours: valid ones with something wrong, as fields and as bytes on the wire.

A service may refuse a message in any way but one: INTERNAL and UNKNOWN say that something unforeseen happened, and a dead
process says it louder. What is attacked, with which valid messages, is in `fuzz_targets`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from teleworld.rpc.channels import open_channel
from teleworld.world.identifiers import new_world_id

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
    _leave_others_alone(fresh, message)
    wire = fresh.SerializeToString()
    return _spoil_bytes(wire, dice) if dice.random() < 0.25 else wire


def _leave_others_alone(message: Message, valid: Message) -> None:
    """A later epoch is told of a world of its own: it would fence off every message after it."""
    if "context" in message.DESCRIPTOR.fields_by_name and message.context.epoch > valid.context.epoch:
        message.context.world = new_world_id()


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
        if values and dice.random() < 0.7 and isinstance(next(iter(values.values())), str):
            values[dice.choice([*values, ""])] = dice.choice(TEXTS)  # type: ignore[index]
        else:
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


def describe(outcome: Outcome) -> str:
    """One line a status, then the defects."""
    lines = [f"{code:20} {count}" for code, count in sorted(outcome.codes.items())]
    return "\n".join([*lines, *outcome.defects])
