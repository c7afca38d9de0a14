"""Few-step flow-matching sampling of one group of latents (REFERENCE: Self-Forcing).

x_sigma = (1 - sigma) x_0 + sigma eps. Each step predicts x_0; all but the last renoise it with fresh noise to the next level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from teleworld.generation.noise import noise
from teleworld.models.dit import DiT, KVCache


def shifted_sigmas(steps: int, shift: float) -> tuple[float, ...]:
    """`steps` noise levels from 1 down, spaced evenly and warped by s' = k s / (1 + (k - 1) s) towards the noisy end."""
    even = [1 - step / steps for step in range(steps)]
    return tuple(shift * sigma / (1 + (shift - 1) * sigma) for sigma in even)


def sample_group(
    dit: DiT,
    indices: Sequence[int],
    *,
    sigmas: Sequence[float],
    seed: int,
    segment: int,
    shape: tuple[int, int, int],
    text: KVCache,
    visible: KVCache | None,
    guidance: Tensor | None,
) -> Tensor:
    """Clean latents [1, C, F, h, w] of a group.

    visible: caches of the clean latents that the group may see and of its guidance. guidance: [1, C + 1, F, h, w].
    """
    x = noise(seed, segment, indices, 0, shape)
    clean = x
    for step, sigma in enumerate(sigmas):
        clean = dit.predict_clean(x, torch.tensor([sigma]), indices, text, visible, guidance)
        if step + 1 < len(sigmas):
            after = sigmas[step + 1]
            x = (1 - after) * clean + after * noise(seed, segment, indices, step + 1, shape)
    return clean
