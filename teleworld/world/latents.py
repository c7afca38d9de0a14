"""Latents as values: how one is named by its content."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def latent_digest(latent: NDArray[np.float32]) -> str:
    """Lower-case hexadecimal sha256 of a latent's bytes: float32 little endian, C order."""
    return hashlib.sha256(memoryview(np.ascontiguousarray(latent, "<f4")).cast("B")).hexdigest()


class LastDigest:
    """The digest that was asked for last: it names a chunk, and soon after the state that the next one is decoded from."""

    def __init__(self) -> None:
        self._latent: NDArray[np.float32] | None = None
        self._digest = ""

    def of(self, latent: NDArray[np.float32]) -> str:
        """The digest of a latent that nobody writes to any more."""
        if latent is not self._latent:
            self._latent, self._digest = latent, latent_digest(latent)
        return self._digest
