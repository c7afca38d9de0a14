"""One minor version of skew, both ways: what the previous version says is understood today, and what is said today is understood
by the previous version. Its message classes are made from the committed baseline while the test runs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

import teleworld._proto
from services.gateway.endings import Ending, Reason
from services.gateway.messages import write_applied, write_attached, write_chunk, write_end, write_world
from services.gateway.states import State, View
from services.gateway.stream import read_attach
from teleworld._proto.gateway.v1 import stream_pb2
from teleworld._proto.gateway.v1 import world_service_pb2 as pb
from teleworld.client.messages import read_event, read_world
from teleworld.rpc.convert import common
from teleworld.world.errors import InvalidInput
from tests.rpc import samples
from tests.rpc.test_convert import PAIRS
from tests.services.gateway.test_store import chunk, record

BASELINE = Path(__file__).resolve().parents[2] / "protos" / "baseline.binpb"
FIELDS_SINCE = {
    "teleworld.gateway.v1.World": {"reanchor"},
    "teleworld.gateway.v1.CreateWorldRequest": {"reanchor"},
    "teleworld.populator.v1.PopulateRequest": {"group_number"},
    "teleworld.types.v1.ModelDescription": {"batches", "slots", "spec"},
    "teleworld.types.v1.SharedMemoryRef": {"offsets"},
    "teleworld.types.v1.Timeline": {"stages", "key_frames"},
}
"""What messages of the baseline have gained. Whoever adds a field writes it here, and sees below that it may be missing."""


NESTED = ("gateway.v1.Control", "types.v1.ModelDescription")


def previous() -> DescriptorPool:
    """The baseline's contracts."""
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(BASELINE.read_bytes()).file:
        pool.Add(file)  # type: ignore[no-untyped-call]
    return pool


POOL = previous()


def today() -> Iterator[Any]:
    """The files of today's contracts."""
    for module in pkgutil.walk_packages(teleworld._proto.__path__, "teleworld._proto."):
        if module.name.endswith("_pb2") and "keda" not in module.name:
            yield importlib.import_module(module.name).DESCRIPTOR


def then(descriptor: Descriptor) -> type[Message]:
    """The baseline's class of a message of today."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(descriptor.full_name))


def exchanged() -> list[Descriptor]:
    """Today's requests and responses of every method that the baseline has."""
    found: dict[str, Descriptor] = {}
    for file in today():
        for service in file.services_by_name.values():
            try:
                known = POOL.FindServiceByName(service.full_name).methods_by_name
            except KeyError:
                continue
            for method in service.methods:
                if method.name in known:
                    found |= {part.full_name: part for part in (method.input_type, method.output_type)}
    return list(found.values())


def filled(message: Message, depth: int = 4) -> Message:
    """`message` with something in each of its fields; of the members of a oneof, the last stays."""
    for number, field in enumerate(message.DESCRIPTOR.fields, 1):
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is None:
                getattr(message, field.name)["key"] = number
        elif field.message_type is not None:
            if depth:
                part = getattr(message, field.name)
                filled(part.add() if field.is_repeated else part, depth - 1)
        else:
            value = _scalar(field, number)
            if field.is_repeated:
                getattr(message, field.name).extend([value, value])
            else:
                setattr(message, field.name, value)
    return message


def _scalar(field: FieldDescriptor, number: int) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return b"\x80" * number if field.type == FieldDescriptor.TYPE_BYTES else "x" * number
        case FieldDescriptor.CPPTYPE_ENUM:
            return field.enum_type.values[-1].number
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_FLOAT | FieldDescriptor.CPPTYPE_DOUBLE:
            return number + 0.5
        case _:
            return number


def without_new(message: Message) -> Message:
    """What the previous version would have said in place of `message`."""
    old = then(message.DESCRIPTOR).FromString(message.SerializeToString())
    old.DiscardUnknownFields()
    return type(message).FromString(old.SerializeToString())


def understood(old: Message, new: Message) -> None:
    """Assert that each field of the one class means the same in the other."""
    for field in old.DESCRIPTOR.fields:
        mine, theirs = getattr(old, field.name), getattr(new, field.name)
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            assert mine == theirs or list(mine) == list(theirs), field.full_name
        else:
            for one, other in zip(mine, theirs, strict=True) if field.is_repeated else [(mine, theirs)]:
                understood(one, other)


def test_the_list_of_new_fields_is_true() -> None:
    gained = {}

    def look(descriptor: Descriptor) -> None:
        try:
            known = POOL.FindMessageTypeByName(descriptor.full_name).fields_by_name
        except KeyError:
            return
        if new := set(descriptor.fields_by_name) - set(known):
            gained[descriptor.full_name] = new
        for nested in descriptor.nested_types:
            look(nested)

    for file in today():
        for message in file.message_types_by_name.values():
            look(message)
    assert gained == FIELDS_SINCE


def test_no_method_of_the_baseline_is_gone() -> None:
    names = {part.full_name for part in exchanged()}
    for file in descriptor_pb2.FileDescriptorSet.FromString(BASELINE.read_bytes()).file:
        for service in file.service:
            for method in service.method:
                assert {method.input_type[1:], method.output_type[1:]} <= names, f"{service.name}/{method.name}"


@pytest.mark.parametrize("descriptor", exchanged(), ids=lambda descriptor: descriptor.full_name)
def test_every_field_means_the_same_in_both_versions(descriptor: Descriptor) -> None:
    new, old = filled(message_factory.GetMessageClass(descriptor)()), filled(then(descriptor)())
    assert len(descriptor.fields) == 0 or new.SerializeToString() != b""
    understood(then(descriptor).FromString(new.SerializeToString()), new)
    understood(old, type(new).FromString(old.SerializeToString()))


def spoken_then() -> list[tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]]:
    """Those conversions whose messages the previous version has."""
    known = {part.full_name for part in exchanged()} | {f"teleworld.{name}" for name in NESTED}
    return [pair for pair in PAIRS if pair[1](pair[0]).DESCRIPTOR.full_name in known]


def test_hardly_any_conversion_is_left_out() -> None:
    new = {write.__name__ for sent, write, read in PAIRS} - {write.__name__ for _, write, _ in spoken_then()}
    assert all("many" in name for name in new)


@pytest.mark.parametrize(("sent", "write", "read"), spoken_then(), ids=lambda value: getattr(value, "__name__", ""))
def test_workers_and_gateways_read_what_the_previous_version_writes(
    sent: Any, write: Callable[[Any], Any], read: Callable[[Any], Any]
) -> None:
    message = write(sent)
    if sent is samples.POPULATE_ALONE:
        with pytest.raises(InvalidInput):  # a layout that it did not know, and cannot ask for
            read(without_new(message))
        return
    assert samples.equal(read(without_new(message)), sent)


def test_a_worker_of_the_previous_version_takes_one_task_at_a_time_and_one_in_a_call() -> None:
    described = common.ModelDescription("nano", samples.DIGEST, slots=4, batches={"plan": 8})
    old = common.read_model(without_new(common.write_model(described)))
    assert (old.slots, dict(old.batches), old.spec) == (1, {}, None)


def test_clients_and_gateways_understand_each_other_across_the_versions() -> None:
    born, piece = record(), replace(chunk(3), stage_ms={"plan": 1.25})
    world = read_world(without_new(write_world(View(born, State(head=4)))))
    assert (world.name.removeprefix("worlds/"), world.chunks, world.seed) == (born.world, 4, born.seed)
    said = [
        pb.StreamWorldResponse(attached=write_attached(born, 2, 4)),
        pb.StreamWorldResponse(chunk=write_chunk(piece, 12.5)),
        pb.StreamWorldResponse(receipt=write_applied(7, 3)),
        pb.StreamWorldResponse(rewound=stream_pb2.Rewound(to_chunk=2)),
        *(pb.StreamWorldResponse(end=write_end(Ending(reason, "why"), 3)) for reason in Reason),
    ]
    for message in said:
        new, old = read_event(message), read_event(without_new(message))
        assert new is not None and samples.equal(old, new)
    attach = stream_pb2.Attach(name="worlds/" + born.world, resume_after_chunk=3, pace=stream_pb2.PACE_MAX, credit=5)
    request = pb.StreamWorldRequest(attach=attach)
    assert read_attach(without_new(request)) == read_attach(request)
    birth = pb.CreateWorldRequest(image=b"png", prompt="a hall", seed=7)
    assert not without_new(birth).HasField("reanchor"), "then the gateway takes its default"
    assert np.isclose(world.fps, born.spec.fps)
