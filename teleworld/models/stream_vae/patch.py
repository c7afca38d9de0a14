"""The small Stream-VAE: a linear patch codec and a streaming, guided residual decoder.

The encoder is a fixed projection of 8x8 patches of four frames onto their principal components. It needs no cache and no
training by gradients, so that latents keep their meaning while every other network trains. Quality comes from the
decoder: it sees the linear inverse image and, where the 4D memory has something to show, the detail of the rendered
guidance that the latent cannot express, and decides per pixel how much of it to take.

One chunk is four frames folded into channels at half resolution; a still frame (the first of a stream) is encoded as
four equal frames, and of its decoded four the last one is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE
from teleworld.models.stream_vae.state import StreamState


@dataclass(frozen=True)
class PatchVAEConfig:
    """channels: C of the latent. widths, depths: channels and memory blocks at 1/8, 1/4 and 1/2 resolution."""

    channels: int = 48
    widths: tuple[int, int, int] = (128, 96, 48)
    depths: tuple[int, int, int] = (2, 2, 3)


# The head answers in tenths of the pixel range and sees normalised features: without these the first steps of training
# overshoot, and the decoder learns to answer nothing at all.
RESIDUAL_UNIT = 0.1
DETAIL_GAIN = 8.0


def _normal(x: Tensor, weight: Tensor) -> Tensor:
    """RMS norm over the channels of [B, D, H, W]."""
    return F.rms_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight, 1e-6).permute(0, 3, 1, 2)


class MemoryBlock(nn.Module):
    """A residual block that sees its own input of one chunk before: [B, D, H, W] twice -> [B, D, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.ones(width))
        self.mix = nn.Conv2d(2 * width, width, 3, padding=1)
        self.out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, past: Tensor) -> Tensor:
        both = torch.cat([_normal(x, self.norm), _normal(past, self.norm)], dim=1)
        return x + self.out(F.silu(self.mix(both)))


class PatchVAE(StreamVAE):
    """Linear encoder, residual decoder; see the module's text."""

    frames = 4
    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, config: PatchVAEConfig) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.channels
        values = 3 * self.frames * self.spatial_stride**2
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("basis", torch.eye(values)[: config.channels].clone())
        self.register_buffer("scale", torch.ones(config.channels))
        coarse, middle, fine = config.widths
        self.latent_in = nn.Conv2d(config.channels, coarse, 3, padding=1)
        self.picture_in = nn.Conv2d(4 * self.frames * (3 + 3 + 1 + 1), fine, 3, padding=1)
        self.coarse = nn.ModuleList(MemoryBlock(coarse) for _ in range(config.depths[0]))
        self.to_middle = nn.Conv2d(coarse, middle, 3, padding=1)
        self.middle = nn.ModuleList(MemoryBlock(middle) for _ in range(config.depths[1]))
        self.to_fine = nn.Conv2d(middle, fine, 3, padding=1)
        self.fine = nn.ModuleList(MemoryBlock(fine) for _ in range(config.depths[2]))
        self.norm = nn.Parameter(torch.ones(fine))
        self.head = nn.Conv2d(fine, 4 * self.frames * (3 + 1), 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def new_encoder_state(self) -> StreamState:
        return StreamState("patch.encoder")

    def new_decoder_state(self) -> StreamState:
        return StreamState("patch.decoder")

    def encode_chunk(self, pixels: Tensor, state: StreamState) -> Tensor:
        self.check_pixels(pixels, first=state.fresh)
        with state.chunk("patch.encoder", pixels.shape[2]):
            if state.fresh:
                pixels = pixels.expand(-1, -1, self.frames, -1, -1)
            return self.project(pixels)

    def project(self, pixels: Tensor) -> Tensor:
        """Linear latents [B, C, F/4, h, w] of pixels [B, 3, F, H, W], F a multiple of 4."""
        batch, _, frames, height, width = pixels.shape
        stride = self.spatial_stride
        patches = pixels.reshape(
            batch, 3, frames // self.frames, self.frames, height // stride, stride, width // stride, stride
        )
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
        latents = ((patches - self.mean) @ self.basis.T) / self.scale
        return latents.permute(0, 4, 1, 2, 3).contiguous()

    def unproject(self, latents: Tensor) -> Tensor:
        """The linear inverse image [B, 3, f*4, H, W] of latents [B, C, f, h, w]."""
        batch, _, count, height, width = latents.shape
        stride = self.spatial_stride
        patches = (latents.permute(0, 2, 3, 4, 1) * self.scale) @ self.basis + self.mean
        patches = patches.reshape(batch, count, height, width, 3, self.frames, stride, stride)
        return patches.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(
            batch, 3, count * self.frames, height * stride, width * stride
        )

    def decode_chunk(self, latents: Tensor, state: StreamState, guidance: DecoderGuidance | None = None) -> Tensor:
        self.check_shape("latents", latents, self.latent_channels)
        self.check_guidance(latents, guidance, first=state.fresh)
        shown, pictures = 0, []
        with state.chunk("patch.decoder", latents.shape[2]) as draft:
            for index in range(latents.shape[2]):
                count = self.pixel_frames(1, first=state.fresh and index == 0)
                hint = None if guidance is None else guidance.between(shown, shown + count)
                pictures.append(self._decode_one(latents[:, :, index], draft, hint)[:, :, -count:])
                shown += count
        return torch.cat(pictures, dim=2)

    def _decode_one(self, latent: Tensor, state: StreamState, guidance: DecoderGuidance | None) -> Tensor:
        """One latent [B, C, h, w] -> [B, 3, 4, H, W]."""
        linear = self.unproject(latent.unsqueeze(2))
        batch, _, _, height, width = linear.shape
        if guidance is None:
            detail, mask = torch.zeros_like(linear), linear.new_zeros(batch, 1, self.frames, height, width)
            doubt = torch.zeros_like(mask)
        else:
            mask = guidance.mask.expand(-1, -1, self.frames, -1, -1)
            filled = linear + mask * (guidance.pixels - linear)
            smooth = self.unproject(self.project(filled))
            detail, doubt = filled - smooth, (smooth - linear).abs().mean(dim=1, keepdim=True)
        picture = torch.cat([linear, DETAIL_GAIN * detail, mask, DETAIL_GAIN * doubt], dim=1).flatten(1, 2)
        picture = F.pixel_unshuffle(picture, 2).contiguous(memory_format=torch.channels_last)
        x = self._blocks(self.coarse, "coarse", self.latent_in(latent), state)
        x = self.to_middle(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self._blocks(self.middle, "middle", x, state)
        x = self.to_fine(F.interpolate(x, scale_factor=2.0, mode="nearest")) + self.picture_in(picture)
        x = self._blocks(self.fine, "fine", x, state)
        out = RESIDUAL_UNIT * F.pixel_shuffle(self.head(_normal(x, self.norm)), 2).unflatten(1, (4, self.frames))
        residual, gate = out[:, :3], out[:, 3:]
        return linear + gate * detail + residual

    @staticmethod
    def _blocks(blocks: nn.ModuleList, name: str, x: Tensor, state: StreamState) -> Tensor:
        for number, block in enumerate(blocks):
            slot = f"{name}.{number}"
            past = state.past(slot, x)
            state.put(slot, x)
            x = block(x, torch.zeros_like(x) if past is None else past)
        return x
