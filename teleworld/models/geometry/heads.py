"""The convolutional ends of the geometry network: the stem that sees pixels, and the heads that answer in metres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleworld.models.geometry.config import GeometryConfig

# Depth in the network is (ln z - LOG_CENTRE) / LOG_SPREAD with z in metres: rooms are metres to tens of metres deep.
LOG_CENTRE, LOG_SPREAD = 1.2, 1.0
STEM_INPUTS = 8
# Rays flatter than this meet a level plane too far away to matter.
_FLATTEST = 0.01


def stem_inputs(pictures: Tensor, guidance: Tensor, rays: Tensor, fall: Tensor) -> Tensor:
    """The stem's input [N, 8, H, W]: pictures [N, 3, H, W] in [-1, 1], guidance depth [N, H, W], rays [N, 2, H, W].

    The guidance, in metres with 0 = hole, enters as normalised logarithm beside its mask: errors in depth are relative.
    `fall` [N, H, W] is how far a ray sinks for each metre of depth (up is negative). Its logarithm is a channel, because
    a floor h metres below the eye has the log-depth ln h - ln fall, a ceiling likewise: what is left to find is h.
    """
    known = (guidance > 0).to(pictures)
    level = (-fall.abs().clamp_min(_FLATTEST).log() - LOG_CENTRE) / LOG_SPREAD
    return torch.cat([pictures, torch.stack([normalised_log(guidance), known, level], dim=1), rays], dim=1)


def normalised_log(depth: Tensor) -> Tensor:
    """Depth in metres -> the network's logarithmic unit; holes (0) become 0."""
    known = depth > 0
    return torch.where(known, (depth.clamp_min(1e-3).log() - LOG_CENTRE) / LOG_SPREAD, torch.zeros_like(depth))


def activate(x: Tensor) -> Tensor:
    """Leaky, because narrow convolutions without normalisation lose whole channels to a plain ReLU."""
    return F.leaky_relu(x, 0.1)


def bin_centres(bins: int) -> Tensor:
    """Centres [bins] of the depth bins in the network's logarithmic unit, from 0.25 to 64 metres."""
    nearest, farthest = ((math.log(depth) - LOG_CENTRE) / LOG_SPREAD for depth in (0.25, 64.0))
    return torch.linspace(nearest, farthest, bins)


class ResidualConv(nn.Module):
    """x + conv(act(conv(act(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def start(self) -> None:
        """Initially the block changes nothing."""
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(activate(self.first(activate(x))))
        return x + change


class Stem(nn.Module):
    """Pixels to features at full, 1/2, 1/4, ... resolution, and to patch tokens one step below."""

    def __init__(self, config: GeometryConfig) -> None:
        super().__init__()
        channels = config.stem_channels
        self.first = nn.Conv2d(STEM_INPUTS, channels[0], 3, padding=1)
        self.downs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in pairwise(channels)
        )
        self.blocks = nn.ModuleList(ResidualConv(width) for width in channels[1:])
        self.tokens = nn.Conv2d(channels[-1], config.width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """[N, 8, H, W] -> (features, fine to coarse; tokens [N, h*w, D])."""
        skips = [self.first(x)]
        for down, block in zip(self.downs, self.blocks, strict=True):
            skips.append(block(down(activate(skips[-1]))))
        return skips, self.tokens(activate(skips[-1])).flatten(2).transpose(1, 2)


class DepthHead(nn.Module):
    """Dense prediction in the DPT manner: tokens of every pair, fused coarse to fine with the stem's features.

    It answers three channels at full resolution: log-depth, the gate with which known guidance is trusted, and the
    logarithm of (confidence - 1). Through the gate the detail of good guidance passes unblurred; bad guidance is
    overruled. With `depth_bins`, depth is first chosen among bins at half resolution, since a picture alone often leaves
    several answers open and a regression learns their average; the first channel then refines the expected bin.
    """

    centres: Tensor

    def __init__(self, config: GeometryConfig) -> None:
        super().__init__()
        widths = config.head_channels
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.pairs))
        self.taps = nn.ModuleList(nn.Linear(config.width, widths[0], bias=i == 0) for i in range(config.pairs))
        self.narrows = nn.ModuleList(nn.Conv2d(below, width, 3, padding=1) for below, width in pairwise(widths))
        levels = reversed(config.stem_channels)
        self.skips = nn.ModuleList(nn.Conv2d(skip, width, 1) for skip, width in zip(levels, widths[1:], strict=True))
        # Full resolution is where memory traffic costs most: no residual block there.
        self.blocks = nn.ModuleList(ResidualConv(width) for width in widths[:-1])
        self.bins = nn.Conv2d(widths[-2], config.depth_bins, 1) if config.depth_bins else None
        self.answer = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.register_buffer("centres", bin_centres(config.depth_bins), persistent=False)

    def start(self) -> None:
        """Initially the answer is small: all bins alike, no refinement, guidance half trusted."""
        if self.bins is not None:
            nn.init.normal_(self.bins.weight, std=0.01)
        nn.init.normal_(self.answer.weight, std=0.1 / self.answer.weight[0].numel() ** 0.5)

    def forward(
        self, taps: Sequence[Tensor], skips: Sequence[Tensor], guidance: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(ln depth [N, H, W], ln(confidence - 1) [N, H, W], bin logits [N, bins, H/2, W/2] if any) for a grid (h, w).

        taps [N, h*w, D] of each pair, skips of the stem (fine to coarse), guidance [N, H, W] in metres.
        """
        mixed = sum(tap(norm(x)) for tap, norm, x in zip(self.taps, self.norms, taps, strict=True))
        assert isinstance(mixed, Tensor)
        logits: Tensor | None = None
        x = self.blocks[0](mixed.transpose(1, 2).reshape(len(mixed), -1, *grid))
        for level, (narrow, skip) in enumerate(zip(self.narrows, self.skips, strict=True), start=1):
            x = F.interpolate(narrow(activate(x)), scale_factor=2.0, mode="nearest") + skip(skips[-level])
            if level < len(self.blocks):
                x = self.blocks[level](x)
            if self.bins is not None and level == len(self.blocks) - 1:
                logits = self.bins(activate(x))
        own, gate, confidence = self.answer(activate(x)).unbind(1)
        if logits is not None:
            expected = torch.einsum("nkhw,k->nhw", logits.softmax(1), self.centres)[:, None]
            own = own + F.interpolate(expected, scale_factor=2.0, mode="bilinear", align_corners=False)[:, 0]
        trust = torch.where(guidance > 0, gate.sigmoid(), torch.zeros_like(gate))
        value = own + trust * (normalised_log(guidance) - own)
        return value * LOG_SPREAD + LOG_CENTRE, confidence, logits


class CameraHead(nn.Module):
    """Camera tokens -> how far the pictures disagree with the commanded poses.

    The answer is a correction in each frame's own axes, translation in metres and rotation vector in radians: true pose
    = commanded pose * correction. It is near zero when the commanded poses are right; a check, never a driver.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.answer = nn.Linear(width, 6)

    def start(self) -> None:
        """Initially the commanded poses are right."""
        nn.init.zeros_(self.answer.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, S, D] -> corrections [B, S, 6]."""
        correction: Tensor = self.answer(F.gelu(self.hidden(self.norm(tokens))))
        return correction
