"""Names of worlds. A resource name is `worlds/{id}`; an id is 26 lower-case characters, ordered by time of birth."""

from __future__ import annotations

import re
import secrets
import time

from teleworld.world.errors import InvalidInput

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = re.compile(r"[0-9a-hjkmnp-tv-z]{26}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def new_world_id() -> str:
    """A fresh id: 48 bits of milliseconds, then 80 random bits, in Crockford base 32, so that ids sort by birth."""
    number = (int(time.time() * 1000) << 80) | secrets.randbits(80)
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def world_name(world_id: str) -> str:
    """`worlds/{id}` of an id."""
    return f"worlds/{world_id}"


def parse_world_name(name: str, field: str = "name") -> str:
    """The id in `worlds/{id}`; raises InvalidInput naming `field`."""
    collection, _, world_id = name.partition("/")
    if collection != "worlds" or not _ID.fullmatch(world_id):
        raise InvalidInput(field, "expected worlds/{id} with an id of 26 characters")
    return world_id


def check_request_id(request_id: str) -> None:
    """Raise InvalidInput unless `request_id` is 1 to 128 characters of A-Z a-z 0-9 _ . : -."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise InvalidInput("request_id", "expected 1 to 128 characters of A-Z a-z 0-9 _ . : -")
