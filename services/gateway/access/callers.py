"""A caller: a tenant, what it may do, and where its credential came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from teleworld.world.errors import InvalidInput, NotFound, PermissionDenied
from teleworld.world.identifiers import tenant_of, world_name


class Permission(Enum):
    """What a call does. `read` covers listing, watching and exporting; `control` drives a world."""

    CREATE = "create"
    READ = "read"
    CONTROL = "control"
    DELETE = "delete"
    TOKEN = "token"


EVERYTHING = frozenset(Permission)


@dataclass(frozen=True)
class Quota:
    """What a tenant may use at a time; None does not bound.

    worlds: that exist. streams: worlds that are driven. fps: sum of the driven worlds' frame rates. memory_bytes: of the store,
    counted as the most that each world may take. calls_per_minute: of the API, streams counting once. weight: of the
    tenant's share where there is not enough for all.
    """

    worlds: int | None = None
    streams: int | None = None
    fps: float | None = None
    memory_bytes: int | None = None
    calls_per_minute: int | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Caller:
    """tenant: empty where nobody asks who calls. subject: the credential's name, for the audit log; never the secret.
    world: the only world that a world token is for."""

    tenant: str
    subject: str
    permissions: frozenset[Permission] = EVERYTHING
    world: str | None = None
    quota: Quota = field(default_factory=Quota)

    def check(self, permission: Permission, world: str | None = None) -> None:
        """Raise PermissionDenied, or NotFound for a world of somebody else, which is not told from one that never was."""
        if world is not None and (tenant_of(world) != self.tenant or self.world not in (None, world)):
            raise NotFound(world_name(world))
        if permission not in self.permissions or (world is None and self.world is not None):
            raise PermissionDenied(f"the credential does not allow to {permission.value} here")


ANYBODY = Caller("", "anonymous")


def read_permissions(names: object, name: str) -> frozenset[Permission]:
    """Permissions by name; all of them for None. Raises InvalidInput naming the field `name`."""
    if names is None:
        return EVERYTHING
    if not isinstance(names, list | tuple):
        raise InvalidInput(name, "must be a list")
    try:
        return frozenset(Permission(one) for one in names)
    except ValueError as error:
        raise InvalidInput(name, str(error)) from error
