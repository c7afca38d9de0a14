"""Names of worlds. A resource name is `worlds/{id}`; an id is 26 lower-case characters, ordered by time of birth, behind
`{tenant}.` where the world belongs to a tenant. So every key and every name of a world tells whose it is."""

from __future__ import annotations

import hashlib
import re
import secrets
import time

from teleworld.world.errors import InvalidInput

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_ID = re.compile(rf"(?:{_TENANT.pattern}\.)?[0-9a-hjkmnp-tv-z]{{26}}")
TENANT_DIGITS = 12
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def new_world_id(tenant: str = "") -> str:
    """A fresh id: 48 bits of milliseconds, then 80 random bits, in Crockford base 32, so that a tenant's ids sort by birth."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    own = "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))
    return f"{tenant}.{own}" if tenant else own


def tenant_of(world_id: str) -> str:
    """Whose world it is; empty for nobody's."""
    return world_id.rpartition(".")[0]


def hashed_tenant(tenant: str) -> str:
    """A tenant as metrics and traces call it: 48 bits of its sha256 as hex digits; `none` for nobody."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:TENANT_DIGITS] if tenant else "none"


def traced(world_id: str) -> dict[str, str]:
    """How traces name a world: `teleworld.world`, its id without the tenant, and `teleworld.tenant`, hashed."""
    tenant, _, own = world_id.rpartition(".")
    return {"teleworld.world": own, "teleworld.tenant": hashed_tenant(tenant)}


def check_tenant(tenant: str, field: str = "tenant") -> str:
    """The name itself; raises InvalidInput unless it is 1 to 32 characters of a-z 0-9 -, not beginning with a dash."""
    if not _TENANT.fullmatch(tenant):
        raise InvalidInput(field, "expected 1 to 32 characters of a-z 0-9 -")
    return tenant


def world_name(world_id: str) -> str:
    """`worlds/{id}` of an id."""
    return f"worlds/{world_id}"


def parse_world_name(name: str, field: str = "name") -> str:
    """The id in `worlds/{id}`; raises InvalidInput naming `field`."""
    collection, _, world_id = name.partition("/")
    if collection != "worlds" or not _ID.fullmatch(world_id):
        raise InvalidInput(
            field, "expected worlds/{id}, the id being 26 characters, behind a tenant and a dot if there is one"
        )
    return world_id


def check_request_id(request_id: str) -> None:
    """Raise InvalidInput unless `request_id` is 1 to 128 characters of A-Z a-z 0-9 _ . : -."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise InvalidInput("request_id", "expected 1 to 128 characters of A-Z a-z 0-9 _ . : -")
