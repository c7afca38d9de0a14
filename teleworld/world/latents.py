"""Latents as values: how one is named by its content."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def latent_digest(latent: NDArray[np.float32]) -> str:
    """Lower-case hexadecimal sha256 of a latent's bytes: float32 little endian, C order."""
    return hashlib.sha256(np.ascontiguousarray(latent, "<f4").tobytes()).hexdigest()
