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

from teleworld.models.initial import start_at_zero
from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE
from teleworld.models.stream_vae.state import StreamState


@dataclass(frozen=True)
class PatchVAEConfig:
    """channels: C of the latent. widths, depths: channels and memory blocks at 1/8, 1/4 and 1/2 resolution."""

    channels: int = 80
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
    """A residual block that sees its own normalised input of one chunk before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.ones(width))
        self.mix = nn.Conv2d(2 * width, width, 3, padding=1)
        self.out = nn.Conv2d(width, width, 3, padding=1)
        start_at_zero(self.out)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, D, H, W], past [B or 1, D, H, W] or None -> (the same shape as x, what the next chunk must be given).

        A convolution is linear: a past that is nothing costs nothing, and one that a batch shares is convolved once.
        """
        own = _normal(x, self.norm)
        width = own.shape[1]
        if past is not None and len(past) == len(own):
            mixed = self.mix(torch.cat([own, _packed(past)], dim=1))
        else:
            mixed = F.conv2d(own, self.mix.weight[:, :width], self.mix.bias, padding=1)
            if past is not None:
                mixed = mixed + F.conv2d(past, self.mix.weight[:, width:], padding=1)
        return x + self.out(F.silu(mixed)), own


@dataclass(frozen=True, eq=False)
class _Hint:
    """What a latent and the rendered memory show before any learning, as [B, 3, F, H, W]: the linear inverse image and the
    detail that the latent cannot express; and the network's view of both, [B, channels, H, W].
    """

    linear: Tensor
    detail: Tensor
    picture: Tensor

    def last(self) -> _Hint:
        """For the last frame alone."""
        return _Hint(self.linear[:, :, -1:], self.detail[:, :, -1:], self.picture)


class PatchVAE(StreamVAE):
    """Linear encoder, residual decoder; see the module's text."""

    kind = "patch"
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
        start_at_zero(self.head)

    def encode_chunk(self, pixels: Tensor, state: StreamState) -> Tensor:
        self.check_pixels(pixels, first=state.fresh)
        with state.chunk(self.encoding, pixels.shape[2]):
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
        with state.chunk(self.decoding, latents.shape[2]) as draft:
            for index in range(latents.shape[2]):
                count = self.pixel_frames(1, first=state.fresh and index == 0)
                hint = None if guidance is None else guidance.between(shown, shown + count)
                pictures.append(self._decode_one(latents[:, :, index], draft, hint)[:, :, -count:])
                shown += count
        return torch.cat(pictures, dim=2)

    def decode_doubled(self, prefix: Tensor, keys: Tensor, guidance: DecoderGuidance) -> Tensor:
        """As the base class says, with what leads to no shown pixel left out and the keys as one batch."""
        self.check_shape("prefix", prefix, self.latent_channels)
        self.check_shape("keys", keys, self.latent_channels)
        start, state = self.new_decoder_state(), self.new_decoder_state()
        self._advance(
            self.latent_in(_packed(prefix[:, :, 0])), self._picture_in(self._hint(prefix, None)), start, start
        )
        hint = self._hint(keys, guidance)
        latent, picture = self.latent_in(_packed(keys[:, :, 0])), self._picture_in(hint)
        self._advance(latent, picture, start, state)
        return self._answer(self._features(latent, picture, state, state), hint.last(), last_only=True)

    def _decode_one(self, latent: Tensor, state: StreamState, guidance: DecoderGuidance | None) -> Tensor:
        """One latent [B, C, h, w] -> [B, 3, 4, H, W]."""
        hint = self._hint(latent.unsqueeze(2), guidance)
        return self._answer(self._features(self.latent_in(_packed(latent)), self._picture_in(hint), state, state), hint)

    def _hint(self, latent: Tensor, guidance: DecoderGuidance | None) -> _Hint:
        """latent [B, C, 1, h, w]."""
        linear = self.unproject(latent)
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
        return _Hint(linear, detail, picture)

    def _picture_in(self, hint: _Hint) -> Tensor:
        # A 3x3 convolution after a pixel unshuffle is a 6x6 one of stride 2 before it: the same products, and nothing is moved.
        weight = self.picture_in.weight.reshape(-1, hint.picture.shape[1], 2, 2, 3, 3).permute(0, 1, 4, 2, 5, 3)
        whole = _packed(weight.reshape(*weight.shape[:2], 6, 6))
        return F.conv2d(_packed(hint.picture), whole, self.picture_in.bias, stride=2, padding=2)

    def _features(self, latent: Tensor, picture: Tensor, before: StreamState, after: StreamState) -> Tensor:
        """What the head answers from, [B, D, H / 2, W / 2]. Reads the past from `before` and leaves the next in `after`."""
        x = self._approach(latent, picture, before, after)
        return self._block(self.fine[-1], f"fine.{len(self.fine) - 1}", x, before, after)

    def _advance(self, latent: Tensor, picture: Tensor, before: StreamState, after: StreamState) -> None:
        """What `_features` leaves in `after`, without an answer: the last block's own output has no part in that."""
        x, last = self._approach(latent, picture, before, after), self.fine[-1]
        assert isinstance(last, MemoryBlock)
        after.put(f"fine.{len(self.fine) - 1}", _normal(x, last.norm))

    def _approach(self, latent: Tensor, picture: Tensor, before: StreamState, after: StreamState) -> Tensor:
        """The input of the last block."""
        x = latent
        for number, block in enumerate(self.coarse):
            x = self._block(block, f"coarse.{number}", x, before, after)
        x = self.to_middle(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        for number, block in enumerate(self.middle):
            x = self._block(block, f"middle.{number}", x, before, after)
        x = self.to_fine(F.interpolate(x, scale_factor=2.0, mode="nearest")) + picture
        for number, block in enumerate(self.fine[:-1]):
            x = self._block(block, f"fine.{number}", x, before, after)
        return x

    @staticmethod
    def _block(block: nn.Module, slot: str, x: Tensor, before: StreamState, after: StreamState) -> Tensor:
        x, own = block(x, before.past(slot, x, shared=before is not after))
        after.put(slot, own)
        return x

    def _answer(self, x: Tensor, hint: _Hint, *, last_only: bool = False) -> Tensor:
        """Features -> frames [B, 3, F, H, W]; of the last frame's channels alone if that is all that is wanted."""
        weight, bias, frames = self.head.weight, self.head.bias, self.frames
        if last_only:
            rows = torch.arange(len(weight)).view(4, frames, 4)[:, -1].flatten()
            weight, bias, frames = weight[rows], bias if bias is None else bias[rows], 1
        answer = F.conv2d(_normal(x, self.norm), weight, bias, padding=1)
        out = RESIDUAL_UNIT * F.pixel_shuffle(answer, 2).unflatten(1, (4, frames))
        residual, gate = out[:, :3], out[:, 3:]
        return hint.linear + gate * hint.detail + residual


def _packed(grid: Tensor) -> Tensor:
    return grid.contiguous(memory_format=torch.channels_last)
