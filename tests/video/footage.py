"""Moving pictures to encode."""

from __future__ import annotations

import numpy as np


def moving_pictures(frames: int, height: int = 192, width: int = 320, start: int = 0) -> np.ndarray:
    """uint8 [F, H, W, 3]: smooth colours that slide to the left, 3 pixels a frame."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    shown = []
    for number in range(start, start + frames):
        across = x + 3 * number
        red = 128 + 90 * np.sin(across / 17) * np.cos(y / 23)
        green = 128 + 80 * np.cos(across / 31 + y / 19)
        shown.append(np.stack([red, green, 255 * y / height], axis=-1))
    return np.stack(shown).round().astype(np.uint8)
