"""The door of the public API: every call names its caller here, before anything else is done.

A credential is `authorization: Bearer <...>` in the call's metadata: an API key, a token of the identity provider, or one of our
own for one world. Without any source of callers everybody is the same nameless one, which is only for loopback, or asked
for by name. Who did what, and who was refused, goes to the log `teleworld.audit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc

from services.gateway import metrics
from services.gateway.access.callers import ANYBODY, Caller, Permission
from services.gateway.access.keys import KeyFile, KeySource, StoredKeys
from services.gateway.access.quotas import Quotas
from services.gateway.access.tokens import KeySet, ProviderTokens, WorldTokens
from services.gateway.settings import GatewaySettings
from services.gateway.store import Store
from teleworld.rpc.tls import is_loopback
from teleworld.world.errors import InvalidInput, Overloaded, TeleWorldError, Unauthenticated, Unavailable

MAX_CREDENTIAL = 8192
_audit = logging.getLogger("teleworld.audit")
# What is only looked at is written down at a lower level.
_QUIET = frozenset({Permission.READ})


class Door:
    """Finds callers by `sources`, in order; none at all lets everybody in."""

    def __init__(self, sources: Sequence[KeySource], tokens: WorldTokens, quotas: Quotas) -> None:
        self._sources = sources
        self.tokens = tokens
        self._quotas = quotas

    async def enter(
        self, context: grpc.aio.ServicerContext, permission: Permission, world: str | None = None
    ) -> Caller:
        """The caller, who may do this. Raises Unauthenticated, PermissionDenied, NotFound (another tenant's), Overloaded."""
        caller: Caller | None = None
        try:
            caller = await self._who(_credential(context))
            caller.check(permission, world)
            await self._quotas.call(caller)
        except TeleWorldError as error:
            if isinstance(error, Overloaded):
                metrics.refused.add(1, {"reason": "rate"})
            self._note(logging.WARNING, "refused", caller, permission, world, reason=error.reason, peer=context.peer())
            raise
        level = logging.DEBUG if permission in _QUIET else logging.INFO
        self._note(level, "admitted", caller, permission, world)
        return caller

    async def touch(self, caller: Caller, world: str, fps: float, seconds: float) -> None:
        """Count a driven world for `seconds` from now. Raises Overloaded when the quota is used up."""
        with _counted():
            await self._quotas.drive(caller, world, fps, seconds)

    @asynccontextmanager
    async def driving(self, caller: Caller, world: str, fps: float, seconds: float) -> AsyncIterator[None]:
        """Count a driven world for as long as the context lasts. Raises Overloaded when the quota is used up."""
        await self.touch(caller, world, fps, seconds)
        renewing = asyncio.create_task(self._renew(caller, world, fps, seconds), name=f"{world}/quota")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            with contextlib.suppress(Unavailable):
                await self._quotas.rest(caller, world)

    async def _renew(self, caller: Caller, world: str, fps: float, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds / 2)
            with contextlib.suppress(Unavailable, Overloaded):
                await self.touch(caller, world, fps, seconds)

    async def _who(self, credential: str | None) -> Caller:
        if credential is not None and (found := await self.tokens.find(credential)) is not None:
            return found
        if not self._sources:
            return ANYBODY
        if credential is not None:
            for source in self._sources:
                if (found := await source.find(credential)) is not None:
                    return found
        raise Unauthenticated("a valid credential is needed: authorization: Bearer <key or token>")

    @staticmethod
    def _note(
        level: int, event: str, caller: Caller | None, permission: Permission, world: str | None, **more: str
    ) -> None:
        who = {"tenant": caller.tenant, "subject": caller.subject} if caller else {}
        _audit.log(level, event, extra={**who, "permission": permission.value, "world": world or "", **more})


def open_door(settings: GatewaySettings, store: Store) -> Door:
    """The door that the settings describe. Raises InvalidInput for keys that cannot be read, or a provider half described."""
    sources: list[KeySource] = []
    if settings.api_keys_file:
        sources.append(KeyFile(Path(settings.api_keys_file)))
    if settings.stored_api_keys:
        sources.append(StoredKeys(store))
    if settings.jwks:
        for name in ("issuer", "audience"):
            if not getattr(settings, name):
                raise InvalidInput(name, "must be set where jwks is")
        sources.append(ProviderTokens(KeySet(settings.jwks), settings.issuer, settings.audience, settings.tenant_claim))
    if not sources and not settings.insecure and not is_loopback(settings.host):
        raise InvalidInput("api_keys_file", f"on {settings.host} callers must be known; else set `insecure` by name")
    return Door(sources, WorldTokens(store), Quotas(store))


def _credential(context: grpc.aio.ServicerContext) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            kind, _, credential = str(value).partition(" ")
            if kind.lower() != "bearer" or not 0 < len(credential) <= MAX_CREDENTIAL:
                raise Unauthenticated("the authorization must be a Bearer credential")
            return credential.strip()
    return None


@contextmanager
def _counted() -> Iterator[None]:
    """Counts a refusal for a quota."""
    try:
        yield
    except Overloaded:
        metrics.refused.add(1, {"reason": "quota"})
        raise
