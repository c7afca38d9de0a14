"""API keys: `tw_<id>_<secret>`. Only the SHA-256 of a key is kept, in a mounted file or in Redis.

    keys:
      - id: backend-1
        sha256: 9f86d081884c7d65...
        tenant: acme
        permissions: [create, read, control, delete, token]   # default: all
        quota: {worlds: 100, streams: 20, calls_per_minute: 600}

The file is read again when it changes (a Secret that is mounted as a folder changes in place); a change that cannot be read
leaves the keys as they were. In Redis the hash `teleworld:gateway:api_keys` maps an id to the same fields as JSON.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import TypeAdapter, ValidationError

from services.gateway.access.callers import Caller, Quota, read_permissions
from services.gateway.scripts import PREFIX
from services.gateway.store import Store
from teleworld.world.credentials import API_KEY, KEY_ID, key_digest
from teleworld.world.errors import InvalidInput
from teleworld.world.identifiers import check_tenant

REDIS_KEY = f"{PREFIX}:api_keys"
REDIS_SECONDS = 10.0
_DIGEST = re.compile(r"[0-9a-f]{64}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Entry:
    digest: str
    caller: Caller

    def matches(self, key: str) -> bool:
        return hmac.compare_digest(self.digest, key_digest(key))


class KeySource(Protocol):
    """Finds the caller behind a key, or None."""

    async def find(self, key: str) -> Caller | None: ...


class KeyFile:
    """Keys of a YAML file. Raises InvalidInput naming the entry and the field when it is first read."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp = self._stat()
        self._entries = _read(file)

    async def find(self, key: str) -> Caller | None:
        self._refresh()
        matched = API_KEY.fullmatch(key)
        entry = self._entries.get(matched[1]) if matched else None
        return entry.caller if entry is not None and entry.matches(key) else None

    def _refresh(self) -> None:
        try:
            stamp = self._stat()
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._entries = _read(self._file)
            _log.info("API keys were read anew", extra={"keys": len(self._entries)})
        except InvalidInput as error:
            _log.error("API keys stay as they were", extra={"reason": error.message})

    def _stat(self) -> tuple[int, int, int]:
        try:
            stat = self._file.stat()
        except OSError as error:
            raise InvalidInput("api_keys_file", f"cannot be read: {error.strerror}") from error
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


class StoredKeys:
    """Keys in Redis, asked for at most every few seconds each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, tuple[float, _Entry | None]] = {}

    async def find(self, key: str) -> Caller | None:
        matched = API_KEY.fullmatch(key)
        if matched is None:
            return None
        now = time.monotonic()
        until, entry = self._seen.get(matched[1], (0.0, None))
        if until <= now:
            data = await self._store.ask(self._store.redis.hget(REDIS_KEY, matched[1]))
            entry = None if data is None else _entry(f"api_keys.{matched[1]}", json.loads(data))
            if len(self._seen) > 10_000:
                self._seen.clear()
            self._seen[matched[1]] = (now + REDIS_SECONDS, entry)
        return entry.caller if entry is not None and entry.matches(key) else None


def _read(file: Path) -> Mapping[str, _Entry]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput("api_keys_file", f"cannot be read: {type(error).__name__}") from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise InvalidInput("api_keys_file", "must hold a list under `keys`")
    entries: dict[str, _Entry] = {}
    for number, fields in enumerate(listed):
        name = str(fields.get("id", "")) if isinstance(fields, dict) else ""
        if not KEY_ID.fullmatch(name) or name in entries:
            raise InvalidInput(f"keys[{number}].id", "must be 1 to 64 characters of A-Z a-z 0-9 -, and unique")
        entries[name] = _entry(f"keys[{number}]", fields)
    return entries


def _entry(where: str, fields: Mapping[str, Any]) -> _Entry:
    digest = str(fields.get("sha256", ""))
    if not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"{where}.sha256", "must be 64 hex digits")
    tenant = check_tenant(str(fields.get("tenant", "")), f"{where}.tenant")
    permissions = read_permissions(fields.get("permissions"), f"{where}.permissions")
    quota = read_quota(fields.get("quota") or {}, f"{where}.quota")
    return _Entry(digest, Caller(tenant, f"key {fields.get('id', where)}", permissions, quota=quota))


def read_quota(fields: Any, where: str) -> Quota:
    """A quota from its fields. Raises InvalidInput naming the field."""
    if not isinstance(fields, Mapping):
        raise InvalidInput(where, "must map names to numbers")
    if unknown := set(fields) - set(Quota.__dataclass_fields__):
        raise InvalidInput(f"{where}.{sorted(unknown)[0]}", "is no quota")
    try:
        return TypeAdapter(Quota).validate_python(dict(fields))
    except ValidationError as error:
        fault = error.errors()[0]
        raise InvalidInput(f"{where}.{'.'.join(map(str, fault['loc']))}", fault["msg"]) from error
