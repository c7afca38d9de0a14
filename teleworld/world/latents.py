"""Latents as values: how one is named by its content."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def latent_digest(latent: NDArray[np.float32]) -> str:
    """Lower-case hexadecimal sha256 of a latent's bytes: float32 little endian, C order."""
    return hashlib.sha256(np.ascontiguousarray(latent, "<f4").data.cast("B")).hexdigest()


class LastDigest:
    """The digest that was asked for last: it names a chunk, and soon after the state that the next one is decoded from."""

    def __init__(self) -> None:
        self._last: tuple[NDArray[np.float32] | None, str] = (None, "")

    def of(self, latent: NDArray[np.float32]) -> str:
        """The digest of a latent that nobody writes to any more. Threads may ask: at worst it is made twice."""
        known, digest = self._last
        if latent is not known:
            digest = latent_digest(latent)
            self._last = (latent, digest)
        return digest
