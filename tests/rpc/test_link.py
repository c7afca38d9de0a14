"""Which way tensors take: through shared memory between two ends that both see it, inside of the message otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from teleworld._proto.planner.v1 import planner_pb2 as pb
from teleworld._proto.planner.v1 import planner_pb2_grpc
from teleworld._proto.types.v1 import tensor_pb2
from teleworld.rpc import link
from teleworld.rpc.convert import planner as convert
from teleworld.rpc.segments import Segments
from teleworld.rpc.tensors import read_tensor, write_tensor
from teleworld.world.errors import InvalidInput, Unavailable
from teleworld.world.work import EncodeRequest, EncodeResult
from tests.rpc import samples
from tests.rpc.conftest import Start

PICTURE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
LATENT = np.random.default_rng(1).standard_normal((16, 64, 64), np.float32)


class Mirror(planner_pb2_grpc.PlannerServiceServicer):
    """Encode answers a fixed latent, and notes how the picture came."""

    def __init__(self, failing: bool = False) -> None:
        self.ways: list[str | None] = []
        self.failing = failing

    async def Encode(self, request: pb.EncodeRequest, context: grpc.aio.ServicerContext) -> pb.EncodeResponse:
        self.ways.append(request.picture.WhichOneof("payload"))
        if self.failing:
            raise Unavailable("not today")
        assert (convert.read_encode_request(request).picture == PICTURE).all()
        return convert.write_encode_response(EncodeResult(LATENT, {}))


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Segments]:
    """The process's segments, in a folder of their own."""
    segments = Segments(tmp_path)
    monkeypatch.setattr(link, "_ours", [segments])
    yield segments
    segments.close()


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


async def test_large_tensors_take_the_node_s_memory_once_both_know(
    start: Start, shared: Segments, tmp_path: Path
) -> None:
    mirror = Mirror()
    _, client = await start(mirror)
    for _ in range(2):
        result = await client.encode(EncodeRequest(samples.context(), PICTURE), timeout=5)
        assert (result.latent == LATENT).all()
    assert mirror.ways == ["inline", "shared_memory"], (
        "the first answer tells the client that the server sees its memory"
    )
    assert files(tmp_path) == []


async def test_a_failed_call_leaves_no_segment(start: Start, shared: Segments, tmp_path: Path) -> None:
    mirror = Mirror()
    _, client = await start(mirror)
    await client.encode(EncodeRequest(samples.context(), PICTURE), timeout=5)
    mirror.failing = True
    with pytest.raises(Unavailable):
        await client.encode(EncodeRequest(samples.context(), PICTURE), timeout=5)
    assert mirror.ways[-1] == "shared_memory"
    assert files(tmp_path) == []


async def test_another_memory_is_not_used(start: Start, shared: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror()
    _, client = await start(mirror)
    monkeypatch.setattr(shared, "namespace", "here")
    monkeypatch.setattr(link.Link, "metadata", ((link.METADATA_KEY, "another boot:19"),))
    for _ in range(2):
        result = await client.encode(EncodeRequest(samples.context(), PICTURE), timeout=5)
        assert (result.latent == LATENT).all()
    assert mirror.ways == ["inline", "inline"]


async def test_it_can_be_turned_off(start: Start, shared: Segments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_inline", None)
    mirror = Mirror()
    _, client = await start(mirror)
    for _ in range(2):
        await client.encode(EncodeRequest(samples.context(), PICTURE), timeout=5)
    assert mirror.ways == ["inline", "inline"]


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:50051", True),
        ("ipv4:127.8.8.8:1", True),
        ("ipv6:%5B::1%5D:50051", True),
        ("unix:/run/teleworld.sock", True),
        ("127.0.0.1:7300", True),
        ("localhost:7300", True),
        ("ipv4:10.0.0.7:50051", False),
        ("ipv4:127.0.0.1.evil.example:1", False),
        ("ipv6:%5Bfe80::1%5D:50051", False),
        ("localhost.evil.example:1", False),
        ("planner.mesh.svc:7300", False),
        ("", False),
    ],
)
def test_only_this_machine_is_local(peer: str, local: bool) -> None:
    assert link.is_local(peer) is local


def test_a_remote_peer_is_never_agreed_with(shared: Segments) -> None:
    claim = ((link.METADATA_KEY, shared.namespace),)
    assert link.agreed("ipv4:10.0.0.7:1", claim) is None
    assert link.agreed("ipv4:127.0.0.1:1", ()) is None
    assert link.agreed("ipv4:127.0.0.1:1", ((link.METADATA_KEY, "another"),)) is None
    assert link.agreed("ipv4:127.0.0.1:1", claim) is not None


def reference(segments: Segments, **changed: object) -> tensor_pb2.Tensor:
    with link.over(link.Route(segments, inline=0)):
        message = write_tensor(LATENT, "x")
    assert message.WhichOneof("payload") == "shared_memory"
    for name, value in changed.items():
        setattr(message.shared_memory, name, value)
    return message


def test_a_reference_from_an_unknown_peer_is_refused_and_left_alone(shared: Segments, tmp_path: Path) -> None:
    message = reference(shared)
    with pytest.raises(InvalidInput, match="inline") as caught:
        read_tensor(message, "x", np.float32, LATENT.shape)
    assert caught.value.field == "x.shared_memory"
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize(
    ("changed", "field", "problem"),
    [
        ({"namespace": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6:19"}, "x.shared_memory.namespace", "not the memory"),
        ({"name": "../../etc/passwd"}, "x.shared_memory.name", "name of a segment"),
        ({"length": LATENT.nbytes + 4}, "x.shared_memory", f"takes {LATENT.nbytes} bytes"),
    ],
)
def test_a_hostile_reference_is_refused_by_name(
    shared: Segments, changed: dict[str, object], field: str, problem: str
) -> None:
    message = reference(shared, **changed)
    with link.over(link.Route(shared, inline=0)), pytest.raises(InvalidInput, match=problem) as caught:
        read_tensor(message, "x", np.float32, LATENT.shape)
    assert caught.value.field == field


def test_what_is_fetched_is_checked_like_what_is_inline(shared: Segments) -> None:
    with link.over(link.Route(shared, inline=0)):
        message = write_tensor(np.full(8, np.nan, np.float32), "x")
        with pytest.raises(InvalidInput, match="finite"):
            read_tensor(message, "x", np.float32, (8,))


def test_a_segment_that_vanished_means_that_the_task_is_tried_again(shared: Segments) -> None:
    message = reference(shared)
    shared.discard(message.shared_memory.name)
    with link.over(link.Route(shared, inline=0)), pytest.raises(Unavailable, match="gone"):
        read_tensor(message, "x", np.float32, LATENT.shape)
