"""Creating, finding, listing and deleting worlds."""

from __future__ import annotations

import struct
from typing import Any

import grpc
import pytest

from teleworld._proto.gateway.v1 import world_pb2, world_service_pb2
from teleworld._proto.types.v1 import task_pb2
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.status import from_rpc_error
from teleworld.world.errors import InvalidInput, NotFound, Overloaded, PreconditionFailed
from teleworld.world.identifiers import new_world_id, world_name
from tests.services.gateway.mesh import Gateway, Mesh, attached, png

NOBODY = world_name(new_world_id())


async def refusal(call: Any) -> Any:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_world_is_what_was_asked_for(gateway: Gateway) -> None:
    made = await gateway.create(prompt="a red corridor", seed=2**64 - 1, chain_mode=task_pb2.CHAIN_MODE_T_C)
    found = await gateway.get(made.name)
    assert found == made
    assert (found.model, found.seed, found.prompt) == ("nano", 2**64 - 1, "a red corridor")
    assert (found.fps, found.width, found.height, found.chunks) == (17.5, 320, 192, 0)
    assert found.chain_mode == task_pb2.CHAIN_MODE_T_C
    assert found.state == world_pb2.WORLD_STATE_READY


async def test_an_equal_request_finds_the_same_world(gateway: Gateway) -> None:
    first = await gateway.create(request_id="only-once", seed=1)
    assert await gateway.create(request_id="only-once", seed=2) == first
    await gateway.stub.DeleteWorld(world_service_pb2.DeleteWorldRequest(name=first.name), timeout=20)
    assert (await gateway.create(request_id="only-once", seed=3)).name != first.name


@pytest.mark.parametrize(
    "fields, field",
    [
        ({"image": b"GIF89a"}, "image"),
        ({"image": b""}, "image"),
        ({"image": png()[:200]}, "image"),
        ({"image": png()[:16] + struct.pack(">II", 10_000, 10_000) + png()[24:]}, "image"),
        ({"prompt": "x" * 4097}, "prompt"),
        ({"model": "unheard-of"}, "model"),
        ({"request_id": "no spaces"}, "request_id"),
        ({"chain_mode": 9}, "chain_mode"),
    ],
)
async def test_bad_input_is_refused_by_name(gateway: Gateway, fields: dict[str, Any], field: str) -> None:
    error = await refusal(gateway.create(**fields))
    assert isinstance(error, InvalidInput)
    assert error.field == field


async def test_lists_page_through_all_worlds_in_order(mesh: Mesh) -> None:
    gateway = await mesh.gateway()
    names = [(await gateway.create()).name for _ in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        request = world_service_pb2.ListWorldsRequest(page_size=2, page_token=token)
        page = await gateway.stub.ListWorlds(request, timeout=20)
        assert len(page.worlds) <= 2
        seen += [world.name for world in page.worlds]
        token = page.next_page_token
        if not token:
            break
    assert [name for name in seen if name in names] == names
    assert seen == sorted(seen)


async def test_a_deleted_world_leaves_nothing(mesh: Mesh, gateway: Gateway) -> None:
    world = await gateway.create()
    world_id = world.name.removeprefix("worlds/")
    async with attached(gateway, world.name, until_chunk=8) as stream:
        await stream.finish()
    assert world_id in mesh.memory.worlds
    await gateway.stub.DeleteWorld(world_service_pb2.DeleteWorldRequest(name=world.name), timeout=20)
    assert isinstance(await refusal(gateway.get(world.name)), NotFound)
    assert await gateway.worlds.store.redis.keys(f"*{world_id}*") == []
    assert world_id not in mesh.memory.worlds


@pytest.mark.parametrize("method", ["GetWorld", "DeleteWorld", "ForkWorld", "SendControls"])
async def test_unknown_worlds_are_not_found(gateway: Gateway, method: str) -> None:
    request = getattr(world_service_pb2, f"{method}Request")
    call = getattr(gateway.stub, method)
    assert isinstance(await refusal(call(request(name=NOBODY), timeout=20)), NotFound)
    assert isinstance(await refusal(call(request(name="worlds/../x"), timeout=20)), InvalidInput)


async def test_a_stream_of_an_unknown_world_is_refused(gateway: Gateway) -> None:
    async with attached(gateway, NOBODY) as stream:
        assert isinstance(await refusal(stream.finish()), NotFound)


async def test_a_full_store_takes_no_more_worlds(mesh: Mesh) -> None:
    gateway = await mesh.gateway(max_worlds=1)
    await mesh.gateways[0].worlds.store.redis.flushdb()
    await gateway.create()
    error = await refusal(gateway.create())
    assert isinstance(error, Overloaded)
    assert error.retry_after_s > 0


async def test_a_world_of_other_weights_is_not_streamed(mesh: Mesh, gateway: Gateway) -> None:
    world = await gateway.create()
    other = Mesh(mesh.redis_url, weights=ModelDescription("nano", "digest-of-other-cores"))
    await other.start_workers()
    try:
        async with attached(await other.gateway(), world.name) as stream:
            assert isinstance(await refusal(stream.finish()), PreconditionFailed)
    finally:
        await other.close()
    assert (await gateway.get(world.name)).state == world_pb2.WORLD_STATE_READY
