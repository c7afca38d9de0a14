"""Prompt embeddings, kept so that a large text encoder reads each prompt once.

A cache, not a record: it may forget anything at any time. `redis_embeddings.py` shares one between planners.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


class EmbeddingCache(Protocol):
    """Token embeddings float32 [T, D] by key."""

    def get(self, key: str) -> Float | None:
        """The embedding, or None."""

    def put(self, key: str, embedding: Float) -> None:
        """Keep an embedding."""


def embedding_key(identity: str, text: str) -> str:
    """The key of a prompt: sha256 over what the encoder is and the text. Neither can imitate the other: lengths come first."""
    parts = (identity.encode(), text.encode())
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


class LocalEmbeddingCache:
    """The `capacity` prompts asked for last, in this process."""

    def __init__(self, capacity: int = 64) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[str, Float] = OrderedDict()
        self._lock = Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        with self._lock:
            return sum(embedding.nbytes for embedding in self._kept.values())

    def get(self, key: str) -> Float | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, embedding: Float) -> None:
        with self._lock:
            self._kept[key] = embedding
            self._kept.move_to_end(key)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
