"""Noise that depends on what is generated and on nothing else, so that any worker draws the same for the same task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def noise(seed: int, segment: int, indices: Sequence[int], step: int, shape: tuple[int, int, int]) -> Tensor:
    """Standard normal [1, C, F, h, w] for the latents `indices` of a segment at a denoising step; shape is (C, h, w).

    Philox keyed by (world seed, segment, latent, step); the attempt and the worker do not enter.
    """
    frames = []
    for index in indices:
        key = np.array([seed & (2**64 - 1), (segment << 24) | (index << 8) | step], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=key))
        frames.append(generator.standard_normal(shape, dtype=np.float32))
    return torch.from_numpy(np.stack(frames, axis=1))[None]
