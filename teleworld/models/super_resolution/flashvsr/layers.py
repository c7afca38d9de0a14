"""FlashVSR's parts around the transformer: the projection of low-quality frames and the conditional decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.stream_vae.state import StreamState
from teleworld.models.stream_vae.tiny import FrameSequential, Grow, MemBlock, Squash
from teleworld.models.super_resolution.flashvsr.config import FRAMES

_PATCH = 16
_LATENT = 8
_TAIL = 2
_BLOCKS = 3


class ChannelNorm(nn.Module):
    """Each voxel's channels to unit length, times the square root of their number and a gain."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * x.shape[1] ** 0.5 * self.gamma


class LowQualityProjection(nn.Module):
    """Four low-quality frames at the target size to the transformer's tokens of one latent.

    In the public network a clip is preceded by its own last two frames where a stream would put the clip before, so each
    clip stands alone; the weights were used like that, so it is kept. Linear layers follow, one for each block fed.
    """

    def __init__(self, hidden: tuple[int, int], width: int, layers: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3 * _PATCH**2, hidden[0], (4, 3, 3), stride=(2, 1, 1))
        self.norm1 = ChannelNorm(hidden[0])
        self.conv2 = nn.Conv3d(hidden[0], hidden[1], (4, 3, 3), stride=(2, 1, 1))
        self.norm2 = ChannelNorm(hidden[1])
        self.linear_layers = nn.ModuleList(nn.Linear(hidden[1], width) for _ in range(layers))

    def forward(self, frames: Tensor) -> list[Tensor]:
        """[B, 3, 4 * f, H, W] -> for each layer [B, f * H/16 * W/16, width], latent by latent, row by row."""
        batch = len(frames)
        clips = frames.unflatten(2, (-1, FRAMES)).transpose(1, 2).flatten(0, 1)  # [B * f, 3, 4, H, W]
        x = F.pixel_unshuffle(clips.transpose(1, 2), _PATCH).transpose(1, 2)
        x = F.silu(self.norm1(self.conv1(_preceded(x))))
        x = F.silu(self.norm2(self.conv2(_preceded(x))))
        tokens = x.squeeze(2).flatten(2).transpose(1, 2).reshape(batch, -1, x.shape[1])
        return [layer(tokens) for layer in self.linear_layers]


def _preceded(x: Tensor) -> Tensor:
    return F.pad(torch.cat([x[:, :, -_TAIL:], x], dim=2), (1, 1, 1, 1, 0, 0), mode="replicate")


class ConditionalDecoder(nn.Module):
    """Latents and the low-quality frames that they stand for -> frames; a TAEHV-like decoder, made deeper after each ReLU."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        first = channels + 3 * FRAMES * _LATENT**2
        layers: list[nn.Module] = [Squash(), nn.Conv2d(first, widths[0], 3, padding=1), nn.ReLU()]
        layers += _deeper(widths[0])
        for level, stride in enumerate((1, 2, 2)):
            layers += [MemBlock(widths[level]) for _ in range(_BLOCKS)]
            layers += [nn.Upsample(scale_factor=2), Grow(widths[level], stride)]
            layers.append(nn.Conv2d(widths[level], widths[level + 1], 3, padding=1, bias=False))
        layers += [nn.ReLU(), *_deeper(widths[3]), nn.Conv2d(widths[3], 3, 3, padding=1)]
        self.decoder = FrameSequential(*layers)
        for name, layer in self.named_modules():
            if isinstance(layer, MemBlock):
                layer.slot = f"decoder.{name}"

    def forward(self, latents: Tensor, low: Tensor, state: StreamState) -> Tensor:
        """latents [B, C, f, h, w], low [B, 3, 4 * f, H, W] in [-1, 1] -> frames [B, 3, 4 * f, H, W]; advances `state`."""
        batch, colours, _, height, width = low.shape
        cells = low.view(batch, colours, -1, FRAMES, height // _LATENT, _LATENT, width // _LATENT, _LATENT)
        cells = cells.permute(0, 2, 1, 3, 5, 7, 4, 6).flatten(2, 5)
        frames = self.decoder(torch.cat([cells, latents.transpose(1, 2)], dim=2), state)
        return frames.transpose(1, 2) * 2 - 1


def _deeper(width: int) -> list[nn.Module]:
    extra = nn.Conv2d(width, width, 3, padding=1, bias=False)
    nn.init.dirac_(extra.weight)
    return [extra, nn.ReLU()]


def matched_colours(frames: Tensor, low: Tensor) -> Tensor:
    """Frames [B, 3, F, H, W] with each colour's mean and deviation per frame taken from `low` (AdaIN)."""
    deviation, mean = torch.var_mean(frames, dim=(3, 4), correction=0, keepdim=True)
    target, centre = torch.var_mean(low, dim=(3, 4), correction=0, keepdim=True)
    return (frames - mean) / (deviation + 1e-5).sqrt() * (target + 1e-5).sqrt() + centre
