"""Dynamic saliency from attention: Gram statistics of global queries and keys over a sliding window (paper 3.3.2).

For each patch token the products of its query or key with those of all patch tokens of the other frames are taken
raw, without softmax; their mean and standard deviation, averaged over heads and layers, are large or small where the
picture does not move with the camera. Neither the products nor their squares are ever formed: the mean needs the mean
vector of the other frames, the deviation their second moment, so the cost is linear in the tokens.

A statistic is a hint, not a mask. `SaliencyHead` is supervised, because at the nano model's size single layers do not separate
motion by themselves; the published training-free combination, for VGGT, is in `vggt/saliency.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleworld.models.geometry.config import GeometryConfig, SaliencyGroups

STATISTICS = ("qq_mean", "qq_std", "qk_mean", "qk_std", "kk_mean", "kk_std")
GROUPS = ("shallow", "middle", "deep")


def gram_maps(queries: Sequence[Tensor], keys: Sequence[Tensor], groups: SaliencyGroups) -> Tensor:
    """Normalised Gram statistics [B, S, 18, P]: the groups of `GROUPS`, each with the six `STATISTICS`.

    queries, keys: one tensor [B, S, heads, P, head_dim] per attention pair, patch tokens only. The window of a frame is
    every other frame; a frame that is alone is compared with itself. Each map is min-max scaled to [0, 1] per frame.
    """
    maps = []
    for group in groups:
        layers = [layer_statistics(queries[pair], keys[pair]) for pair in group]
        maps.append(torch.stack(layers).mean(0))
    return min_max(torch.cat(maps, dim=2))


def layer_statistics(q: Tensor, k: Tensor) -> Tensor:
    """Mean and deviation of QQᵀ, QKᵀ, KKᵀ over the window, averaged over heads [B, S, 6, P]; q, k as in `gram_maps`."""
    q_window, k_window = _window_moments(q), _window_moments(k)
    rows = []
    for source, window in ((q, q_window), (q, k_window), (k, k_window)):
        mean, second = window
        products = (source @ mean[..., None])[..., 0]
        squares = ((source @ second) * source).sum(-1)
        rows += [products, (squares - products**2).clamp_min(1e-8).sqrt()]
    return torch.stack([row.mean(dim=2) for row in rows], dim=2)


def _window_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """First and second moments, [B, S, heads, d] and [B, S, heads, d, d], of the tokens of all frames but one's own."""
    first = x.mean(dim=3)
    second = x.transpose(3, 4) @ x / x.shape[3]
    frames = x.shape[1]
    if frames == 1:
        return first, second
    others = frames - 1
    return (first.sum(1, keepdim=True) - first) / others, (second.sum(1, keepdim=True) - second) / others


def min_max(maps: Tensor) -> Tensor:
    """Scale each map [..., P] to [0, 1]; a constant map becomes 0."""
    low, high = maps.amin(-1, keepdim=True), maps.amax(-1, keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-6)


def dynamic_tokens(probability: Tensor, patch: int, above: float) -> Tensor:
    """Tokens [B, S, h, w] bool whose patch has a mean dynamic probability [B, S, H, W] greater than `above`."""
    return F.avg_pool2d(probability, patch) > above


class SaliencyHead(nn.Module):
    """Gram maps, token features and the two coarsest levels of the stem -> logits of the dynamic mask.

    It decodes to four times the patch grid, since moving things are often smaller than a patch, and enlarges the result
    bilinearly.
    """

    def __init__(self, config: GeometryConfig) -> None:
        super().__init__()
        width = config.saliency_width
        maps = len(GROUPS) * len(STATISTICS)
        self.tokens = nn.Linear(config.width, width)
        self.mix = nn.Conv2d(maps + width, width, 1)
        coarse, fine = config.stem_channels[-1], config.stem_channels[-2]
        self.skip_coarse, self.skip_fine = nn.Conv2d(coarse, width, 1), nn.Conv2d(fine, width, 1)
        self.refine_coarse = nn.Conv2d(width, width, 3, padding=1)
        self.refine_fine = nn.Conv2d(width, width, 3, padding=1)
        self.logits = nn.Conv2d(width, 1, 1)

    def start(self) -> None:
        """Initially little moves: moving pixels are few."""
        nn.init.normal_(self.logits.weight, std=0.02)
        nn.init.constant_(self.logits.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, maps: Tensor, tokens: Tensor, skips: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Logits [N, H, W] for a size, from maps [N, 18, h, w], tokens [N, h*w, D] and stem skips (fine to coarse)."""
        count, _, rows, columns = maps.shape
        features = self.tokens(tokens).transpose(1, 2).reshape(count, -1, rows, columns)
        x = F.gelu(self.mix(torch.cat([maps, features], dim=1)))
        x = F.gelu(self.refine_coarse(F.interpolate(x, scale_factor=2.0) + self.skip_coarse(skips[-1])))
        x = F.gelu(self.refine_fine(F.interpolate(x, scale_factor=2.0) + self.skip_fine(skips[-2])))
        return F.interpolate(self.logits(x), size=size, mode="bilinear", align_corners=False)[:, 0]
