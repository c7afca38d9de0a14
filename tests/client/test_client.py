"""The unary calls: what goes over the wire, what comes back, and what is tried again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import teleworld.client
from teleworld.client import ChainMode, Patience, WorldClient, WorldState
from teleworld.world.errors import InvalidInput, NotFound, Overloaded, PreconditionFailed, Unavailable
from tests.client.gateway import Gateway


def test_the_exported_names_are_pinned():
    assert sorted(teleworld.client.__all__) == [
        "Attached",
        "ChainMode",
        "Chunk",
        "End",
        "EndReason",
        "Event",
        "Keys",
        "Pace",
        "Patience",
        "Receipt",
        "ReceiptState",
        "Rewound",
        "Walk",
        "World",
        "WorldClient",
        "WorldState",
    ]
    assert all(hasattr(teleworld.client, name) for name in teleworld.client.__all__)


def test_the_sdk_drags_in_nothing_that_computes():
    heavy = "{'torch', 'av', 'redis', 'numba', 'pydantic', 'PIL', 'transformers'}"
    code = f"import sys, teleworld.client; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_a_world_is_created_with_what_the_caller_said(gateway: Gateway, client: WorldClient):
    world = await client.create_world(b"picture", prompt="a hall", seed=7, chain=ChainMode.T_C, request_id="once")
    (request,) = gateway.requests
    assert (request.image, request.prompt, request.seed, request.request_id) == (b"picture", "a hall", 7, "once")
    assert (world.name, world.state, world.seed, world.chain) == ("worlds/0", WorldState.READY, 7, ChainMode.T_C)
    assert world.forked_at_chunk is None


async def test_a_lost_creation_is_asked_for_again_under_one_request_id(gateway: Gateway, client: WorldClient):
    gateway.fail = [Unavailable("away"), Overloaded("busy", retry_after_s=0.01)]
    await client.create_world(b"picture")
    ids = [request.request_id for request in gateway.requests]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    assert ids[0]


async def test_an_error_is_the_one_that_the_gateway_raised_and_is_not_asked_for_again(
    gateway: Gateway, client: WorldClient
):
    with pytest.raises(InvalidInput) as caught:
        await client.create_world(b"")
    assert caught.value.field == "image"
    with pytest.raises(NotFound) as missing:
        await client.get_world("worlds/none")
    assert missing.value.resource == "worlds/none"
    gateway.fail = [PreconditionFailed("beyond the horizon")]
    with pytest.raises(PreconditionFailed):
        await client.fork_world("worlds/none", 3)
    assert len(gateway.requests) == 3


async def test_patience_ends_with_the_last_error(gateway: Gateway, served: tuple[Gateway, str]):
    gateway.fail = [Unavailable("away")] * 1000
    patience = Patience(total_s=0.05, first_s=0.01, longest_s=0.02)
    async with WorldClient(served[1], patience=patience) as client:
        with pytest.raises(Unavailable):
            await client.get_world("worlds/0")
    assert len(gateway.requests) > 1


async def test_a_gateway_that_is_not_there_is_unavailable():
    async with WorldClient("127.0.0.1:1", patience=Patience(total_s=0)) as client:
        with pytest.raises(Unavailable):
            await client.get_world("worlds/0")


async def test_listing_goes_through_all_pages(gateway: Gateway, client: WorldClient):
    for _ in range(5):
        await client.create_world(b"picture")
    gateway.requests.clear()
    assert [world.name async for world in client.list_worlds(page_size=2)] == [f"worlds/{n}" for n in range(5)]
    assert len(gateway.requests) == 3


async def test_a_fork_names_its_source(client: WorldClient):
    source = await client.create_world(b"picture")
    fork = await client.fork_world(source.name, 12)
    assert (fork.forked_from, fork.forked_at_chunk) == (source.name, 12)


async def test_deleting_twice_fails_but_a_deletion_whose_answer_was_lost_does_not(
    gateway: Gateway, client: WorldClient
):
    first, second = [await client.create_world(b"picture") for _ in range(2)]
    await client.delete_world(first.name)
    with pytest.raises(NotFound):
        await client.delete_world(first.name)
    gateway.fail = [Unavailable("the answer is lost")]
    await client.delete_world(second.name)
    assert not gateway.worlds


async def test_the_memory_comes_in_pieces_or_as_a_file(client: WorldClient, tmp_path: Path):
    world = await client.create_world(b"picture")
    assert [piece async for piece in client.export_memory(world.name)] == [b"ply\n", b"points"]
    assert await client.save_memory(world.name, tmp_path / "memory.ply") == 10
    assert (tmp_path / "memory.ply").read_bytes() == b"ply\npoints"


async def test_a_failed_export_leaves_no_file(client: WorldClient, tmp_path: Path):
    with pytest.raises(NotFound):
        await client.save_memory("worlds/none", tmp_path / "memory.ply")
    assert list(tmp_path.iterdir()) == []
