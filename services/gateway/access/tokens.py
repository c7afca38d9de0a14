"""JSON Web Tokens: those of an identity provider (OIDC), and our own short-lived ones for one world.

An identity provider's tokens are checked against its JWKS, from a file that is read again when it changes, or from a URL that
is asked again for a key that is not known yet (rotation), at most every few seconds. Our own are signed with a secret that
the replicas share through Redis; a backend hands one to a browser, which then may watch or walk in that world alone. A store
that loses the secret gets it back from whoever knows it; one that has another is believed.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import jwt

from services.gateway.access.callers import Caller, Permission, Quota, read_permissions
from services.gateway.scripts import PREFIX
from services.gateway.store import Store
from teleworld.world.errors import InvalidInput, Unavailable
from teleworld.world.identifiers import check_tenant, tenant_of

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
LEEWAY_SECONDS = 30
REFRESH_SECONDS = 10.0
ANSWER_SECONDS = 5.0
MAX_JWKS_BYTES = 1 << 20
WORLD_PREFIX = "tww."
SECRET_KEY = f"{PREFIX}:token_secret"
AUDIENCE = "teleworld.world"
MAX_WORLD_TOKEN_SECONDS = 24 * 3600
SECRET_SECONDS = 60.0
"""How long the shared secret is used without a look at the store."""
DOUBT_SECONDS = 1.0
"""How long after a look a signature that does not hold is no reason for another."""


class KeySet:
    """A provider's public keys by id. `place` is a file or an http(s) URL."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = float("-inf")
        self._stamp = 0
        self._lock = asyncio.Lock()

    async def key(self, name: str) -> jwt.PyJWK | None:
        """The key with the id `name`, or None. Raises Unavailable when the keys cannot be had at all."""
        if self._changed() or name not in self._keys:
            await self._refresh(name)
        return self._keys.get(name)

    def _changed(self) -> bool:
        if self._place.startswith(("http://", "https://")):
            return False
        try:
            return Path(self._place).stat().st_mtime_ns != self._stamp
        except OSError:
            return False

    async def _refresh(self, wanted: str) -> None:
        async with self._lock:
            recent = time.monotonic() - self._read_at < REFRESH_SECONDS
            if not self._changed() and (wanted in self._keys or recent):
                return
            self._read_at = time.monotonic()
            try:
                document = json.loads(await asyncio.to_thread(self._read))
                keys = {key["kid"]: jwt.PyJWK(key) for key in document["keys"] if key.get("use", "sig") == "sig"}
            except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
                if self._keys:
                    return
                raise Unavailable("the identity provider's keys cannot be read") from error
            self._keys = keys

    def _read(self) -> bytes:
        if self._place.startswith(("http://", "https://")):
            with urlopen(self._place, timeout=ANSWER_SECONDS) as response:
                return bytes(response.read(MAX_JWKS_BYTES))
        file = Path(self._place)
        self._stamp = file.stat().st_mtime_ns
        return file.read_bytes()


class ProviderTokens:
    """Tokens of an identity provider. claim: the one that names the tenant; `permissions` may name a list of ours."""

    def __init__(
        self, keys: KeySet, issuer: str, audience: str, claim: str = "tenant", quota: Quota | None = None
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._claim = claim
        self._quota = quota or Quota()

    async def find(self, token: str) -> Caller | None:
        """The caller, or None for a token that does not hold: unknown key, wrong issuer or audience, expired, no tenant."""
        try:
            header = jwt.get_unverified_header(token)
            key = await self._keys.key(str(header.get("kid", "")))
            if key is None or header.get("alg") not in ALGORITHMS:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[header["alg"]],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
            tenant = check_tenant(str(claims.get(self._claim, "")))
            permissions = read_permissions(claims.get("permissions"), "permissions")
        except (jwt.PyJWTError, InvalidInput):
            return None
        return Caller(tenant, f"subject {str(claims.get('sub', ''))[:64]}", permissions, quota=self._quota)


class WorldTokens:
    """Our own tokens for one world each."""

    def __init__(self, store: Store) -> None:
        self._secret = _SharedSecret(store)

    async def issue(
        self, caller: Caller, world: str, permissions: frozenset[Permission], seconds: int
    ) -> tuple[str, int]:
        """(token, when it expires in seconds of the epoch). It never allows more than its maker may, and counts
        against the same quota."""
        expires = int(time.time()) + seconds
        claims = {
            "aud": AUDIENCE,
            "sub": caller.subject,
            "world": world,
            "permissions": sorted(one.value for one in permissions & caller.permissions),
            "quota": asdict(caller.quota),
            "exp": expires,
            "jti": secrets.token_hex(8),
        }
        return WORLD_PREFIX + jwt.encode(claims, await self._secret.get(0.0), algorithm="HS256"), expires

    async def find(self, token: str) -> Caller | None:
        """The caller, or None for a token that does not hold."""
        if not token.startswith(WORLD_PREFIX):
            return None
        signed = token.removeprefix(WORLD_PREFIX)
        try:
            try:
                claims = _claims(signed, await self._secret.get(SECRET_SECONDS))
            except jwt.InvalidSignatureError:  # of a secret that another replica knows by now, perhaps
                claims = _claims(signed, await self._secret.get(DOUBT_SECONDS))
        except jwt.PyJWTError:
            return None
        world = str(claims["world"])
        permissions = read_permissions(claims.get("permissions"), "permissions")
        return Caller(
            tenant_of(world), f"token of {claims.get('sub', '')}", permissions, world, Quota(**claims.get("quota", {}))
        )


class _SharedSecret:
    """The secret in the store, and what was last known of it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._value = b""
        self._asked = float("-inf")

    async def get(self, seconds: float) -> bytes:
        """The secret; the store is asked if it was not for `seconds`. Where it has none it gets the one that is known here, or
        a new one. Raises Unavailable when none was ever known."""
        now = time.monotonic()
        if not self._value or now - self._asked >= seconds:
            self._asked = now
            offered = self._value or secrets.token_bytes(32)
            try:
                kept = await self._store.ask(self._store.redis.set(SECRET_KEY, offered, nx=True, get=True))
                self._value = offered if kept is None else kept
            except Unavailable:
                if not self._value:
                    raise
        return self._value


def _claims(token: str, secret: bytes) -> Mapping[str, Any]:
    claims: Mapping[str, Any] = jwt.decode(
        token,
        secret,
        algorithms=["HS256"],
        audience=AUDIENCE,
        options={"require": ["exp", "aud", "world"]},
    )
    return claims
