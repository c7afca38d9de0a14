"""Prompt embeddings in Redis, shared by all planners of a mesh: keys `tw:embedding:{<sha256>}`.

An error of Redis is a miss: the planner then reads the prompt itself. Values are numpy's own file format without pickles;
what comes back is checked before it is believed.
"""

from __future__ import annotations

import io
import logging
from typing import cast

import numpy as np
import redis

from teleworld.memory.embeddings import Float
from teleworld.world.errors import InvalidInput

_PREFIX = "tw:embedding:"
_log = logging.getLogger(__name__)


class RedisEmbeddingCache:
    """Shared by all planners; each value lives `seconds` after it was last asked for."""

    def __init__(self, client: redis.Redis, seconds: int = 30 * 24 * 3600) -> None:
        self._client = client
        self._seconds = seconds

    @classmethod
    def from_url(cls, url: str) -> RedisEmbeddingCache:
        """A cache in the Redis at `url`. Raises InvalidInput(`redis_url`). Waits briefly: a cache to be waited for is none."""
        try:
            return cls(redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0))
        except ValueError as error:
            raise InvalidInput("redis_url", str(error)) from error

    def get(self, key: str) -> Float | None:
        try:
            document = self._client.getex(_PREFIX + key, ex=self._seconds)
        except redis.RedisError as error:
            _log.warning("the embedding cache cannot be read: %s", error)
            return None
        return None if document is None else _read(cast("bytes", document))

    def put(self, key: str, embedding: Float) -> None:
        document = io.BytesIO()
        np.save(document, np.ascontiguousarray(embedding, np.float32), allow_pickle=False)
        try:
            self._client.set(_PREFIX + key, document.getvalue(), ex=self._seconds)
        except redis.RedisError as error:
            _log.warning("the embedding cache cannot be written: %s", error)


def _read(document: bytes) -> Float | None:
    try:
        found = np.load(io.BytesIO(document), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return None
    fits = isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype == np.float32
    return found if fits and bool(np.isfinite(found).all()) else None
