"""Stored segments as training batches of the diffusion transformer: latents, guidance and text, as new or worn.

A share of what the memory shows is as worn as after many rounds of being shown and generated, so that a network's own errors
are no surprise to it and do not add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from teleworld.generation.pixels import coverage, to_pixels
from teleworld.models.stream_vae.patch import PatchVAE
from teleworld.models.text import TextEncoder
from teleworld.training.degradation import blur, fade
from teleworld.training.segments import SegmentSet

# Of worn guidance: pixels of blur at most; least contrast.
_WORN_BLUR, _WORN_CONTRAST = 4.0, 0.75


@dataclass(frozen=True, eq=False)
class SegmentBatch:
    """latents [B, C, N, h, w]; context: the same, blurred in some worn segments; guidance [B, C + 1, N - 1, h, w] of latents
    2..N; text [B, T, D]; wear [B]: how much of the detail guidance has lost, 0 to 1."""

    latents: Tensor
    context: Tensor
    guidance: Tensor
    text: Tensor
    wear: Tensor


class SegmentReader:
    """Turns stored segments into training batches. worn: share of random batches' segments whose guidance is blurred
    and faded, and half the time their context blurred alike."""

    def __init__(self, sets: Sequence[SegmentSet], vae: PatchVAE, encoder: TextEncoder, worn: float = 0.0) -> None:
        self.sets = list(sets)
        self._worn = worn
        self._vae = vae
        self._encoder = encoder
        self._captions: dict[str, Tensor] = {}

    @torch.no_grad()
    def batch(self, size: int, random: np.random.Generator) -> SegmentBatch:
        """`size` random segments."""
        weights = np.array([len(one) for one in self.sets], np.float64)
        picked = [self.sets[i] for i in random.choice(len(self.sets), size, p=weights / weights.sum())]
        return self.rows([(one, int(random.integers(len(one)))) for one in picked], random)

    @torch.no_grad()
    def rows(self, rows: Sequence[tuple[SegmentSet, int]], random: np.random.Generator | None = None) -> SegmentBatch:
        """The given rows, mirrored and worn at random when `random` is given."""
        parts = []
        for one, row in rows:
            pictures, guidance, mask, caption = one.read(row)
            if random is not None and random.random() < 0.5:
                pictures, guidance, mask = pictures[:, :, ::-1], guidance[:, :, ::-1], mask[:, :, ::-1]
            true, shown = to_pixels(pictures), to_pixels(guidance)
            latents = context = self._vae.encode(true)
            wear = 0.0
            if random is not None and random.random() < self._worn:
                wear = random.uniform(0.1, 1.0)
                sigma = wear * _WORN_BLUR
                shown = fade(blur(shown, sigma), random.uniform(_WORN_CONTRAST, 1.0))
                if random.random() < 0.5:
                    context = self._vae.encode(blur(true, sigma))
            known = coverage(torch.from_numpy(np.ascontiguousarray(mask)))
            hint = torch.cat([self._vae.project(shown), known], dim=1)
            parts.append((latents, context, hint, self._text(caption), torch.tensor([wear])))
        return SegmentBatch(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _text(self, caption: str) -> Tensor:
        if caption not in self._captions:
            self._captions[caption] = self._encoder.embed(caption)[None]
        return self._captions[caption]
