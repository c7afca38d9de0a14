"""Segments as training batches: what is worn and what is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from teleworld.models.dit import NANO
from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.models.text import TextEncoder
from teleworld.training.degradation import fade
from teleworld.training.segment_reader import SegmentBatch, SegmentReader


class Segments:
    """One segment of noise that the memory knows but for a quarter, over and over."""

    def __init__(self) -> None:
        self.pictures = np.random.default_rng(0).integers(0, 256, (21, 16, 32, 3), dtype=np.uint8)
        self.mask = np.full((20, 16, 32), 255, np.uint8)
        self.mask[:, :, :8] = 0

    def __len__(self) -> int:
        return 3

    def read(self, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
        return self.pictures, self.pictures[1:], self.mask, "a hall"


def drawn(worn: float, seed: int) -> SegmentBatch:
    vae = PatchVAE(PatchVAEConfig()).eval()
    vae.basis.copy_(
        torch.linalg.qr(torch.randn(768, 768, generator=torch.Generator().manual_seed(0)))[0][: len(vae.basis)]
    )
    reader = SegmentReader([Segments()], vae, TextEncoder(NANO.text_length), worn)  # type: ignore[list-item]
    return reader.batch(1, np.random.default_rng(seed))


@pytest.mark.parametrize("worn", [0.0, 1.0])
def test_worn_guidance_has_less_detail_and_the_truth_keeps_its_own(worn: float) -> None:
    seen = [drawn(worn, seed) for seed in range(8)]
    for batch in seen:
        assert (batch.wear.item() > 0) == bool(worn)
        channels = PatchVAEConfig().channels
        assert batch.latents.shape[:3] == (1, channels, 6) and batch.guidance.shape[:3] == (1, channels + 1, 5)
        assert set(batch.guidance[:, -1].unique().tolist()) == {0.0, 1.0}
        ratio = (batch.guidance[:, :-1].std() / batch.latents[:, :, 1:].std()).item()
        assert ratio < 0.95 if worn else ratio > 0.99
    same = [torch.equal(batch.context, batch.latents) for batch in seen]
    assert all(same) if not worn else any(same) and not all(same)


def test_fading_keeps_the_mean_and_so_much_contrast() -> None:
    pixels = torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    faded = fade(pixels, 0.5)
    torch.testing.assert_close(faded.mean(), pixels.mean())
    torch.testing.assert_close(faded.std(dim=(2, 3, 4)), 0.5 * pixels.std(dim=(2, 3, 4)))
