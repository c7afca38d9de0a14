"""The public API with callers: nobody gets in without a credential, and no tenant sees, guesses or disturbs another's worlds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from services.gateway.servicer import WORLD_SERVICE
from teleworld._proto.gateway.v1 import stream_pb2
from teleworld._proto.gateway.v1 import world_service_pb2 as pb
from teleworld.rpc.status import from_rpc_error
from teleworld.world.credentials import new_key
from teleworld.world.errors import NotFound, Overloaded, PermissionDenied, Unauthenticated
from tests.services.gateway.mesh import Gateway, Mesh, attached, png

NAMES = ("acme-1", "zeta-1", "reader", "small", "brief", "twins")
ACME, ZETA, READER, SMALL, BRIEF, TWINS = (new_key(name) for name in NAMES)


def entry(name: str, key: tuple[str, str], tenant: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "sha256": key[1], "tenant": tenant, **more}


def keys_yaml(*more: dict[str, Any]) -> str:
    return yaml.safe_dump(
        {
            "keys": [
                entry("acme-1", ACME, "acme"),
                entry("zeta-1", ZETA, "zeta"),
                entry("reader", READER, "acme", permissions=["read"]),
                entry("small", SMALL, "small", quota={"worlds": 1, "streams": 1, "calls_per_minute": 40}),
                entry("brief", BRIEF, "brief", quota={"calls_per_minute": 40}),
                entry("twins", TWINS, "twins", quota={"worlds": 2}),
                *more,
            ]
        }
    )


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    file = tmp_path / "keys.yaml"
    file.write_text(keys_yaml())
    return file


@pytest.fixture
async def guarded(mesh: Mesh, keys: Path) -> Gateway:
    return await mesh.gateway(api_keys_file=str(keys))


def bearer(key: tuple[str, str] | str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key if isinstance(key, str) else key[0]}"),)


async def create(gateway: Gateway, key: tuple[str, str], request_id: str = "") -> str:
    request = pb.CreateWorldRequest(image=png(), seed=7, request_id=request_id)
    return (await gateway.stub.CreateWorld(request, timeout=20, metadata=bearer(key))).world.name


async def refused(call: Any) -> type[Exception]:
    """The kind of error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    return type(from_rpc_error(caught.value))


def every_call(gateway: Gateway, name: str, metadata: Any) -> dict[str, Any]:
    """One call of every method on a world."""

    async def attach() -> AsyncIterator[pb.StreamWorldRequest]:
        yield pb.StreamWorldRequest(attach=stream_pb2.Attach(name=name))

    stub, options = gateway.stub, {"timeout": 20, "metadata": metadata}
    return {
        "CreateWorld": stub.CreateWorld(pb.CreateWorldRequest(image=png()), **options),
        "GetWorld": stub.GetWorld(pb.GetWorldRequest(name=name), **options),
        "ListWorlds": stub.ListWorlds(pb.ListWorldsRequest(), **options),
        "DeleteWorld": stub.DeleteWorld(pb.DeleteWorldRequest(name=name), **options),
        "ForkWorld": stub.ForkWorld(pb.ForkWorldRequest(name=name), **options),
        "ExportMemory": stub.ExportMemory(pb.ExportMemoryRequest(name=name), **options),
        "StreamWorld": stub.StreamWorld(attach(), **options),
        "WatchWorld": stub.WatchWorld(pb.WatchWorldRequest(name=name), **options),
        "SendControls": stub.SendControls(pb.SendControlsRequest(name=name), **options),
        "CreateWorldToken": stub.CreateWorldToken(pb.CreateWorldTokenRequest(name=name), **options),
    }


@pytest.mark.parametrize(
    "metadata", [None, bearer("tw_acme-1_wrong-secret-wrong-secret"), bearer("nonsense"), bearer("a.b.c")]
)
async def test_no_method_is_open_to_strangers(guarded: Gateway, metadata: Any) -> None:
    name = await create(guarded, ACME)
    calls = every_call(guarded, name, metadata)
    methods = pb.DESCRIPTOR.services_by_name["WorldService"].methods_by_name
    assert set(calls) == set(methods), f"every method of {WORLD_SERVICE} is tried"
    assert {method: await refused(call) for method, call in calls.items()} == dict.fromkeys(methods, Unauthenticated)


async def test_a_tenant_cannot_tell_anothers_world_from_none(guarded: Gateway) -> None:
    name = await create(guarded, ACME)
    assert name.startswith("worlds/acme.")
    calls = every_call(guarded, name, bearer(ZETA))
    for method in ("CreateWorld", "ListWorlds"):
        await calls.pop(method)
    assert {method: await refused(call) for method, call in calls.items()} == dict.fromkeys(calls, NotFound)
    listed = await guarded.stub.ListWorlds(pb.ListWorldsRequest(), metadata=bearer(ZETA))
    assert listed.worlds and all(world.name.startswith("worlds/zeta.") for world in listed.worlds)
    own = await guarded.stub.ListWorlds(pb.ListWorldsRequest(), metadata=bearer(ACME))
    assert name in {world.name for world in own.worlds}


async def test_request_ids_of_tenants_do_not_meet(guarded: Gateway) -> None:
    first, again, other = [await create(guarded, key, "same") for key in (ACME, ACME, ZETA)]
    assert first == again != other


async def test_a_key_does_what_it_may(guarded: Gateway) -> None:
    name = await create(guarded, ACME)
    calls = every_call(guarded, name, bearer(READER))
    for method in ("GetWorld", "ListWorlds"):
        await calls.pop(method)
    for method in ("WatchWorld", "ExportMemory"):
        calls.pop(method).cancel()
    assert {method: await refused(call) for method, call in calls.items()} == dict.fromkeys(calls, PermissionDenied)


async def test_a_world_token_is_for_one_world_and_no_more_than_was_given(guarded: Gateway) -> None:
    name, other = await create(guarded, ACME), await create(guarded, ACME)
    request = pb.CreateWorldTokenRequest(name=name, permissions=[pb.PERMISSION_READ], ttl_seconds=60)
    token = (await guarded.stub.CreateWorldToken(request, metadata=bearer(ACME))).token
    stub = guarded.stub
    assert (await stub.GetWorld(pb.GetWorldRequest(name=name), metadata=bearer(token))).world.name == name
    assert await refused(stub.GetWorld(pb.GetWorldRequest(name=other), metadata=bearer(token))) is NotFound
    assert await refused(stub.DeleteWorld(pb.DeleteWorldRequest(name=name), metadata=bearer(token))) is PermissionDenied
    assert await refused(stub.ListWorlds(pb.ListWorldsRequest(), metadata=bearer(token))) is PermissionDenied
    assert await refused(stub.CreateWorldToken(request, metadata=bearer(token))) is PermissionDenied
    forged = token[:-4] + ("aaaa" if token[-4:] != "aaaa" else "bbbb")
    assert await refused(stub.GetWorld(pb.GetWorldRequest(name=name), metadata=bearer(forged))) is Unauthenticated


async def test_a_world_token_counts_against_the_quota_of_its_maker(guarded: Gateway) -> None:
    name = await create(guarded, BRIEF)
    request = pb.CreateWorldTokenRequest(name=name, ttl_seconds=60)
    token = (await guarded.stub.CreateWorldToken(request, metadata=bearer(BRIEF))).token
    calls = [guarded.stub.GetWorld(pb.GetWorldRequest(name=name), metadata=bearer(token)) for _ in range(20)]
    refusals = [error for error in await asyncio.gather(*calls, return_exceptions=True) if isinstance(error, Exception)]
    assert refusals and all(isinstance(from_rpc_error(error), Overloaded) for error in refusals)


async def test_quotas_refuse_with_a_time_to_come_back(guarded: Gateway) -> None:
    assert await create(guarded, SMALL, "again") == await create(guarded, SMALL, "again"), "said again, counted once"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(guarded, SMALL)
    error = from_rpc_error(caught.value)
    assert isinstance(error, Overloaded) and error.retry_after_s > 0 and "1 worlds" in error.message
    kinds = []
    for _ in range(12):
        try:
            await guarded.stub.ListWorlds(pb.ListWorldsRequest(), metadata=bearer(SMALL))
        except grpc.aio.AioRpcError as error:
            kinds.append(from_rpc_error(error))
    assert kinds and all(isinstance(kind, Overloaded) and 0 < kind.retry_after_s < 3 for kind in kinds)
    assert await create(guarded, ACME), "others are not disturbed"


async def test_of_all_that_come_at_a_time_as_many_get_in_as_there_is_room_for(
    mesh: Mesh, guarded: Gateway, keys: Path
) -> None:
    """Worlds, then forks, at two gateways: each of them asks before any other one is there."""
    gateways = (guarded, await mesh.gateway(api_keys_file=str(keys)))
    first = await create(guarded, TWINS)
    creations = [create(gateways[number % 2], TWINS) for number in range(6)]
    assert overloaded(await asyncio.gather(*creations, return_exceptions=True)) == 5
    listed = await guarded.stub.ListWorlds(pb.ListWorldsRequest(), metadata=bearer(TWINS))
    (second,) = {world.name for world in listed.worlds} - {first}
    async with attached(guarded, first, until_chunk=8, metadata=bearer(TWINS)) as stream:
        await stream.finish()
    await guarded.stub.DeleteWorld(pb.DeleteWorldRequest(name=second), metadata=bearer(TWINS))
    kept = set(mesh.memory.worlds)
    request = pb.ForkWorldRequest(name=first, chunk=8)
    forks = [gateways[number % 2].stub.ForkWorld(request, timeout=20, metadata=bearer(TWINS)) for number in range(6)]
    assert overloaded(await asyncio.gather(*forks, return_exceptions=True)) == 5
    assert len(set(mesh.memory.worlds) - kept) == 1, "the copied memory of a refused fork is left"


def overloaded(outcomes: list[Any]) -> int:
    """How many were refused for want of room; nothing else is wrong with any."""
    refusals = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert all(isinstance(from_rpc_error(error), Overloaded) for error in refusals)
    return len(refusals)


async def test_keys_are_read_anew_and_a_broken_file_changes_nothing(guarded: Gateway, keys: Path) -> None:
    fresh = new_key("acme-2")
    assert await refused(create(guarded, fresh)) is Unauthenticated
    keys.write_text(keys_yaml(entry("acme-2", fresh, "acme")))
    assert await create(guarded, fresh)
    keys.write_text("keys: [")
    assert await create(guarded, fresh)
    keys.write_text(keys_yaml())
    assert await refused(create(guarded, fresh)) is Unauthenticated


async def test_the_audit_log_tells_who_and_never_the_secret(guarded: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "teleworld.audit")
    name = await create(guarded, ACME)
    assert await refused(guarded.stub.GetWorld(pb.GetWorldRequest(name=name), metadata=bearer(ZETA))) is NotFound
    told = [record for record in caplog.records if record.name == "teleworld.audit"]
    admitted, denied = told[0], told[-1]
    assert (admitted.message, admitted.tenant, admitted.permission) == ("admitted", "acme", "create")  # type: ignore[attr-defined]
    assert (denied.message, denied.tenant, denied.reason) == ("refused", "zeta", "NOT_FOUND")  # type: ignore[attr-defined]
    assert all(key[0] not in str(vars(record)) for record in told for key in (ACME, ZETA))
