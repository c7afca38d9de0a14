"""Tokens of an identity provider, with rotation, and keys in Redis."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from services.gateway.access import keys as key_module
from services.gateway.access import tokens as module
from services.gateway.access.callers import EVERYTHING, Caller, Permission, Quota
from services.gateway.access.keys import REDIS_KEY, KeyFile, StoredKeys
from services.gateway.access.quotas import Quotas
from services.gateway.access.tokens import KeySet, ProviderTokens
from services.gateway.store import Store
from teleworld.world.credentials import new_key
from teleworld.world.errors import InvalidInput, Overloaded, Unavailable

ISSUER, AUDIENCE = "https://login.example", "teleworld"


class Provider:
    """An identity provider: signing keys, and a JWKS file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.keys: dict[str, rsa.RSAPrivateKey] = {}

    def rotate(self, name: str) -> None:
        """Sign with a fresh key from now on; only that one is published."""
        self.keys[name] = rsa.generate_private_key(65537, 2048)
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.keys[name].public_key()))
        self.file.write_text(json.dumps({"keys": [public | {"kid": name, "use": "sig", "alg": "RS256"}]}))

    def token(self, name: str, **claims: Any) -> str:
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "tenant": "acme", "exp": time.time() + 60} | claims
        body = {claim: value for claim, value in body.items() if value is not None}
        return jwt.encode(body, self.keys[name], algorithm="RS256", headers={"kid": name})


@pytest.fixture
def provider(tmp_path: Path) -> Provider:
    made = Provider(tmp_path / "jwks.json")
    made.rotate("one")
    return made


@pytest.fixture
def source(provider: Provider) -> ProviderTokens:
    return ProviderTokens(KeySet(str(provider.file)), ISSUER, AUDIENCE)


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    made = Store(redis_url)
    yield made
    await made.close()


async def test_a_token_names_its_tenant_and_what_it_may(provider: Provider, source: ProviderTokens) -> None:
    caller = await source.find(provider.token("one", permissions=["read", "control"]))
    assert caller is not None and (caller.tenant, caller.subject) == ("acme", "subject u1")
    assert caller.permissions == {Permission.READ, Permission.CONTROL}
    everything = await source.find(provider.token("one"))
    assert everything is not None and everything.permissions == EVERYTHING


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": time.time() - 120},
        {"exp": None},
        {"iss": "https://elsewhere.example"},
        {"aud": "another"},
        {"tenant": None},
        {"tenant": "../acme"},
        {"permissions": ["everything"]},
    ],
)
async def test_a_token_that_does_not_hold_is_nobodys(provider: Provider, source: ProviderTokens, claims: Any) -> None:
    assert await source.find(provider.token("one", **claims)) is None


async def test_a_token_is_not_believed_what_it_says_about_its_signature(
    provider: Provider, source: ProviderTokens
) -> None:
    unsigned = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "tenant": "acme", "exp": 2**33}, None, algorithm="none")
    public = provider.file.read_text()
    confused = jwt.encode({"tenant": "acme"}, public * 2, algorithm="HS256", headers={"kid": "one"})
    other = Provider(provider.file.with_name("other.json"))
    other.rotate("one")
    for token in (unsigned, confused, other.token("one"), "", "..", "x" * 5000):
        assert await source.find(token) is None


async def test_a_rotated_key_is_found_in_the_changed_file(provider: Provider, source: ProviderTokens) -> None:
    old = provider.token("one")
    assert await source.find(old)
    provider.rotate("two")
    assert await source.find(provider.token("two"))
    assert await source.find(old) is None, "a key that was withdrawn counts no more"


async def test_keys_that_cannot_be_had_are_not_a_bad_token(tmp_path: Path, provider: Provider) -> None:
    source = ProviderTokens(KeySet(str(tmp_path / "nowhere.json")), ISSUER, AUDIENCE)
    with pytest.raises(Unavailable, match="identity provider"):
        await source.find(provider.token("one"))


async def test_a_url_is_asked_again_for_an_unknown_key_but_not_all_the_time(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    keys = KeySet("https://login.example/jwks")
    monkeypatch.setattr(keys, "_read", lambda: asked.append(1) or provider.file.read_bytes())
    source = ProviderTokens(keys, ISSUER, AUDIENCE)
    assert await source.find(provider.token("one"))
    provider.rotate("two")
    assert await source.find(provider.token("two")) is None and len(asked) == 1, "it was asked just now"
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.0)
    assert await source.find(provider.token("two")) and len(asked) == 2


async def test_a_key_file_that_is_away_for_a_moment_keeps_its_keys(tmp_path: Path) -> None:
    file, (key, digest), (other, changed) = tmp_path / "keys.yaml", new_key("r1"), new_key("r1")
    file.write_text(f"keys: [{{id: r1, sha256: {digest}, tenant: acme}}]")
    source = KeyFile(file)
    file.unlink()
    assert await source.find(key) is not None
    file.write_text(f"# rotated\nkeys: [{{id: r1, sha256: {changed}, tenant: acme}}]")
    assert await source.find(key) is None and await source.find(other) is not None


async def test_keys_in_redis_may_be_added_and_withdrawn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_module, "REDIS_SECONDS", 0.0)
    source, (key, digest) = StoredKeys(store), new_key("r1")
    assert await source.find(key) is None
    await store.redis.hset(REDIS_KEY, "r1", json.dumps({"sha256": digest, "tenant": "acme", "quota": {"streams": 2}}))
    caller = await source.find(key)
    assert caller is not None and (caller.tenant, caller.quota.streams) == ("acme", 2)
    assert await source.find(new_key("r1")[0]) is None
    await store.redis.hdel(REDIS_KEY, "r1")
    assert await source.find(key) is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("keys: 3", "api_keys_file"),
        ("keys: [{id: 'a b'}]", r"keys\[0\].id"),
        ("keys: [{id: a, sha256: abc}]", r"keys\[0\].sha256"),
        (f"keys: [{{id: a, sha256: {'ab' * 32}, tenant: 'A!'}}]", r"keys\[0\].tenant"),
        (f"keys: [{{id: a, sha256: {'ab' * 32}, tenant: t, permissions: [fly]}}]", r"keys\[0\].permissions"),
        (f"keys: [{{id: a, sha256: {'ab' * 32}, tenant: t, quota: {{words: 1}}}}]", r"keys\[0\].quota.words"),
        (f"keys: [{{id: a, sha256: {'ab' * 32}, tenant: t, quota: {{worlds: lots}}}}]", r"keys\[0\].quota.worlds"),
    ],
)
def test_a_bad_key_file_names_the_entry_and_the_field(tmp_path: Path, text: str, field: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=field):
        KeyFile(file)


async def test_driven_worlds_count_until_they_rest_or_fall_silent(store: Store) -> None:
    quotas = Quotas(store)
    caller = Caller("drivers", "key", quota=Quota(streams=2, fps=40.0))
    await quotas.drive(caller, "a", 16.0, 5.0)
    await quotas.drive(caller, "b", 16.0, 0.02)
    await quotas.drive(caller, "a", 16.0, 5.0)  # renewed, not counted twice
    with pytest.raises(Overloaded):
        await quotas.drive(caller, "c", 16.0, 5.0)
    while True:  # b falls silent
        try:
            await quotas.drive(caller, "c", 16.0, 5.0)
            break
        except Overloaded:
            continue
    await quotas.rest(caller, "c")
    with pytest.raises(Overloaded):
        await quotas.drive(caller, "d", 30.0, 5.0)  # 16 + 30 > 40 frames a second
    await quotas.drive(caller, "d", 24.0, 5.0)
