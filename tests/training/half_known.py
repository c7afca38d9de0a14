"""Segments of noise of which the memory knows the left half, for runs of the transformer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from teleworld.models.dit import NANO
from teleworld.training.segment_reader import SegmentBatch

CONFIG = replace(NANO, dim=48, ffn=48, heads=2, layers=1, channels=4, extra_channels=5, guidance_channels=5)


class Reader:
    """A `SegmentReader`: in the right half the truth is noise, and guidance another noise."""

    def __init__(self) -> None:
        self.draws = 0

    def batch(self, size: int, random: np.random.Generator) -> SegmentBatch:
        self.draws += 1
        of = lambda *shape: torch.from_numpy(random.normal(size=shape)).float()  # noqa: E731
        latents, hint = of(size, 4, 6, 4, 8), of(size, 4, 5, 4, 8)
        known = torch.zeros(size, 1, 5, 4, 8)
        known[..., :4] = 1
        hint = known * latents[:, :, 1:] + (1 - known) * hint
        return SegmentBatch(
            latents, latents, torch.cat([hint, known], dim=1), torch.zeros(size, 3, CONFIG.text_dim), torch.zeros(size)
        )
