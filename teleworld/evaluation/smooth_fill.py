"""The baseline that generated pictures must beat: what the memory shows, its holes filled smoothly.

By squared error nothing that knows no more can do better, which is why it is the yardstick; it looks like fog, which is why the
mesh fills otherwise (`teleworld/memory/fill.py`).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F


def smoothly_filled(pictures: NDArray[np.uint8], known: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pictures [F, H, W, 3] with what is not known [F, H, W] filled by a push-pull pyramid.

    Push: each coarser level averages what is known. Pull: from the coarsest level back, what is missing takes the bilinear
    value of the level above.
    """
    weight = torch.from_numpy(known).float().unsqueeze(1)
    colour = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() * weight
    levels = [(colour, weight)]
    while max(colour.shape[2:]) > 1:
        odd = (0, colour.shape[3] % 2, 0, colour.shape[2] % 2)
        colour, weight = (4 * F.avg_pool2d(F.pad(x, odd), 2) for x in (colour, weight))
        share = weight.clamp_max(1) / weight.clamp_min(1e-6)
        colour, weight = colour * share, weight * share
        levels.append((colour, weight))
    filled = torch.full_like(colour, 128.0)
    for colour, weight in reversed(levels):
        above = F.interpolate(filled, size=colour.shape[2:], mode="bilinear")
        filled = colour + (1 - weight) * above
    return filled.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
