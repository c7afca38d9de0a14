"""Figures on pictures, depth and latents: plain functions of arrays, each with its unit.

Pictures are uint8 [F, H, W, 3] unless said otherwise. Nothing here knows networks or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Figure:
    """A mean over `count` samples and the half width of its 95 % confidence interval (normal approximation)."""

    mean: float
    interval: float
    count: int

    @classmethod
    def of(cls, samples: list[float]) -> Figure:
        """Of the finite samples; NaN when there is none."""
        values = np.array([value for value in samples if np.isfinite(value)], np.float64)
        if not len(values):
            return cls(float("nan"), float("nan"), 0)
        spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
        return cls(float(values.mean()), 1.96 * spread / float(np.sqrt(len(values))), len(values))

    @classmethod
    def resampled(cls, statistic: Callable[[NDArray[np.int64]], float], count: int, draws: int = 400) -> Figure:
        """Of a statistic that is no mean over samples, such as a ratio of sums: `statistic` takes row numbers.

        The interval is 1.96 standard deviations over bootstrap draws of the `count` rows, from a fixed seed.
        """
        if not count:
            return cls(float("nan"), float("nan"), 0)
        random = np.random.default_rng(count)
        values = [statistic(random.integers(count, size=count)) for _ in range(draws)] if count > 1 else []
        finite = [value for value in values if np.isfinite(value)]
        spread = 1.96 * float(np.std(finite)) if finite else float("nan")
        return cls(float(statistic(np.arange(count))), spread, count)

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.interval:.3f}"


def psnr(first: Pictures, second: Pictures, where: Mask | None = None) -> float:
    """dB over the pixels `where` [F, H, W] (all by default); NaN when it names fewer than 16."""
    square = np.square(first.astype(np.float32) - second.astype(np.float32)).mean(axis=-1)
    if where is not None:
        if where.sum() < 16:
            return float("nan")
        square = square[where]
    return float(10 * np.log10(255**2 / max(float(square.mean()), 1e-6)))


def gradient_energy(pictures: Pictures) -> float:
    """Mean absolute difference of neighbouring pixels: how much fine detail there is."""
    values = pictures.astype(np.float32)
    return float((np.abs(np.diff(values, axis=-2)).mean() + np.abs(np.diff(values, axis=-3)).mean()) / 2)


def sharpness(pictures: Pictures, truth: Pictures) -> float:
    """Gradient energy over that of the truth; 1 is as sharp."""
    return gradient_energy(pictures) / max(gradient_energy(truth), 1e-6)


def depth_error(depth: Floats, truth: Floats) -> tuple[float, float]:
    """(AbsRel, scale error) of z-depth [..., H, W] where the truth is known (> 0).

    AbsRel is the mean of |z - z*| / z*; the scale error |median(z / z*) - 1|.
    """
    known = (truth > 0) & (depth > 0)
    ratio = depth[known] / truth[known]
    return float(np.abs(ratio - 1).mean()), float(abs(np.median(ratio) - 1))


def seam_ratio(pictures: Pictures, boundaries: list[int]) -> float:
    """Mean picture change into the frames `boundaries` over the median change inside segments."""
    change = np.abs(np.diff(pictures.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))
    at = [frame - 1 for frame in boundaries if 0 < frame < len(pictures)]
    inside = np.delete(change, at)
    return float(change[at].mean() / max(float(inside.mean()), 1e-6)) if at else float("nan")


def drift(pictures: Pictures, fps: float) -> dict[str, float]:
    """Least-squares slopes per minute, relative to the mean: of the colour mean, the contrast and the sharpness."""
    values = pictures.astype(np.float32)
    minutes = np.arange(len(values)) / fps / 60
    series = {
        "colour": values.mean(axis=(1, 2, 3)),
        "contrast": values.std(axis=(1, 2, 3)),
        "sharpness": np.array([gradient_energy(picture[None]) for picture in pictures]),
    }
    return {name: float(np.polyfit(minutes, line, 1)[0] / max(line.mean(), 1e-6)) for name, line in series.items()}


def neighbour_correlation(latents: Floats, token: int = 1) -> float:
    """Mean correlation of latents [..., C, h, w] between cells beside and below each other that belong to different tokens.

    token: cells along a token's side. Cells of one token come out of one head, so they say nothing on coherence.
    """
    centred = latents - latents.mean(axis=(-2, -1), keepdims=True)
    energy = float(np.square(centred).mean())
    left, right = centred[..., token - 1 : -1 : token], centred[..., token::token]
    above, below = centred[..., token - 1 : -1 : token, :], centred[..., token::token, :]
    return float(np.mean([(left * right).mean(), (above * below).mean()]) / max(energy, 1e-12))


def frechet(first: Floats, second: Floats) -> float:
    """Fréchet distance between Gaussians fitted to feature rows [n, D]."""
    means = first.mean(axis=0) - second.mean(axis=0)
    one, two = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    # The trace of the root of a product of covariances, by the eigenvalues of the product.
    shared = np.sqrt(np.clip(np.linalg.eigvals(one @ two).real, 0, None)).sum()
    return float(means @ means + np.trace(one) + np.trace(two) - 2 * shared)


def overlap(guess: Mask, truth: Mask) -> tuple[int, int]:
    """(intersection, union) in pixels, to be summed over pictures before they are divided."""
    return int((guess & truth).sum()), int((guess | truth).sum())
