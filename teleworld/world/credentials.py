"""API keys: how one is made, and what is kept of it."""

from __future__ import annotations

import hashlib
import re
import secrets

from teleworld.world.errors import InvalidInput

API_KEY = re.compile(r"tw_([A-Za-z0-9-]{1,64})_([A-Za-z0-9_-]{20,128})")
KEY_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def new_key(name: str) -> tuple[str, str]:
    """(a fresh key, its SHA-256 as 64 hex digits). The secret has 192 random bits, so that a plain hash keeps it.

    Raises InvalidInput unless `name` is 1 to 64 characters of A-Z a-z 0-9 -.
    """
    if not KEY_ID.fullmatch(name):
        raise InvalidInput("id", "must be 1 to 64 characters of A-Z a-z 0-9 -")
    key = f"tw_{name}_{secrets.token_urlsafe(24)}"
    return key, key_digest(key)


def key_digest(key: str) -> str:
    """What is kept of a key: 64 hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()
