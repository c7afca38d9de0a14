"""What every Stream-VAE offers: pixels to latents and back, chunk by chunk, with the cache in the caller's hands.

The paper decodes latents to pixels while later latents are still being denoised (3.6, Stream-VAE), so a VAE here is
causal in time and any chunking of a stream gives the same result as one call on the whole of it. Latent 1 stands for
one pixel frame and each later latent for `temporal_stride` frames. Planning, populating and decoding know this
interface only; whether Wan2.1's network or the small one stands behind it is configuration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.stream_vae.state import StreamState
from teleworld.world.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class DecoderGuidance:
    """The rendered 4D memory for the frames of a chunk, as a hint to a decoder that can use one.

    pixels: [B, 3, F, H, W] in [-1, 1]. mask: [B, 1, F, H, W], float in [0, 1]; 0 where there is no hint.
    """

    pixels: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.pixels.dim() != 5 or self.pixels.shape[1] != 3:
            raise InvalidInput("guidance.pixels", f"expected [B, 3, F, H, W], got {list(self.pixels.shape)}")
        batch, _, frames, height, width = self.pixels.shape
        if self.mask.shape != (batch, 1, frames, height, width):
            raise InvalidInput(
                "guidance.mask", f"expected {[batch, 1, frames, height, width]}, got {list(self.mask.shape)}"
            )

    @property
    def frames(self) -> int:
        """F, the number of pixel frames covered."""
        return self.pixels.shape[2]

    def between(self, start: int, stop: int) -> DecoderGuidance:
        """The guidance for frames start..stop-1."""
        return DecoderGuidance(self.pixels[:, :, start:stop], self.mask[:, :, start:stop])

    def behind_still(self) -> DecoderGuidance:
        """The same behind a first frame of which there is no hint: that of a stream which starts with a picture."""
        return DecoderGuidance(*(F.pad(part, (0, 0, 0, 0, 1, 0)) for part in (self.pixels, self.mask)))


class StreamVAE(nn.Module, ABC):
    """A causal video autoencoder that works chunk by chunk.

    `latent_channels` is C; one latent pixel covers `spatial_stride` x `spatial_stride` pixels, and one latent after the
    first covers `temporal_stride` frames. Latents are normalised to about zero mean and unit variance per channel.

    Chunks are differentiable; a stream that is only served should run under `torch.inference_mode()`, or the state
    keeps the graph of every chunk before. `kind` names the states of a network's streams, so that one of another network is
    refused.
    """

    kind: str
    latent_channels: int
    spatial_stride: int = 8
    temporal_stride: int = 4

    @property
    def encoding(self) -> str:
        """The kind of the state of a stream that is encoded."""
        return f"{self.kind}.encoder"

    @property
    def decoding(self) -> str:
        """The kind of the state of a stream that is decoded."""
        return f"{self.kind}.decoder"

    def new_encoder_state(self) -> StreamState:
        """The state of a stream that has encoded nothing yet."""
        return StreamState(self.encoding)

    def new_decoder_state(self) -> StreamState:
        """The state of a stream that has decoded nothing yet."""
        return StreamState(self.decoding)

    @abstractmethod
    def encode_chunk(self, pixels: Tensor, state: StreamState) -> Tensor:
        """Encode the next frames of a stream and advance `state`.

        pixels: [B, 3, F, H, W] in [-1, 1]; F = 1 for the first chunk, then any positive multiple of `temporal_stride`.
        Returns normalised latents [B, C, f, H / spatial_stride, W / spatial_stride], f = 1, then F / temporal_stride.
        Raises InvalidInput for a wrong shape or a state of another kind; `state` is then unchanged.
        """

    @abstractmethod
    def decode_chunk(self, latents: Tensor, state: StreamState, guidance: DecoderGuidance | None = None) -> Tensor:
        """Decode the next latents of a stream and advance `state`.

        latents: normalised, [B, C, f, h, w], f >= 1. Returns pixels [B, 3, F, H, W] in [-1, 1]: one frame for the
        first latent of the stream and `temporal_stride` for each later one. `guidance` covers exactly those F frames; it is
        a hint, and a decoder that has no use for one takes no notice of it.
        Raises InvalidInput for a wrong shape or a state of another kind; `state` is then unchanged.
        """

    def decode_doubled(self, prefix: Tensor, keys: Tensor, guidance: DecoderGuidance) -> Tensor:
        """The last frame of decode([x^1, x^k, x^k]) for each key x^k: pixels [B, 3, 1, H, W].

        prefix: x^1 [1, C, 1, h, w]. keys: [B, C, 1, h, w], each alone. guidance: of each key's frames, seen in both of
        its turns. Doubling makes the sequence contiguous for a temporal VAE (paper 3.2.1). Raises as `decode_chunk`.
        """
        start = self.new_decoder_state()
        self.decode_chunk(prefix, start)
        frames = []
        for row in range(len(keys)):
            here, state = slice(row, row + 1), start.clone()
            hint = DecoderGuidance(guidance.pixels[here], guidance.mask[here])
            self.decode_chunk(keys[here], state, hint)
            frames.append(self.decode_chunk(keys[here], state, hint)[:, :, -1:])
        return torch.cat(frames)

    def pixel_frames(self, latents: int, *, first: bool) -> int:
        """How many pixel frames `latents` latents decode to, when the stream begins with them (`first`) or goes on."""
        return self.temporal_stride * latents - (self.temporal_stride - 1 if first else 0)

    def encode(self, pixels: Tensor) -> Tensor:
        """Encode a whole sequence [B, 3, 1 + k * temporal_stride, H, W] to latents [B, C, 1 + k, h, w]."""
        self.check_shape("pixels", pixels, 3)
        frames = pixels.shape[2]
        if frames % self.temporal_stride != 1:
            raise InvalidInput("pixels", f"a sequence has 1 + k * {self.temporal_stride} frames, got {frames}")
        state = self.new_encoder_state()
        ends = range(1, frames + 1, self.temporal_stride)
        return torch.cat([self.encode_chunk(chunk, state) for chunk in _split(pixels, ends)], dim=2)

    def decode(self, latents: Tensor, guidance: DecoderGuidance | None = None) -> Tensor:
        """Decode a whole sequence [B, C, f, h, w] to pixels [B, 3, 1 + (f - 1) * temporal_stride, H, W]."""
        self.check_shape("latents", latents, self.latent_channels)
        self.check_guidance(latents, guidance, first=True)
        state = self.new_decoder_state()
        chunks = []
        shown = 0
        for latent in latents.split(1, dim=2):
            until = shown + self.pixel_frames(1, first=state.fresh)
            hint = None if guidance is None else guidance.between(shown, until)
            chunks.append(self.decode_chunk(latent, state, hint))
            shown = until
        return torch.cat(chunks, dim=2)

    def check_pixels(self, pixels: Tensor, *, first: bool) -> None:
        """Raise InvalidInput unless `pixels` is a chunk that `encode_chunk` takes."""
        self.check_shape("pixels", pixels, 3)
        frames, height, width = pixels.shape[2:]
        if height % self.spatial_stride or width % self.spatial_stride:
            raise InvalidInput("pixels", f"{height} x {width} is not a multiple of {self.spatial_stride}")
        if first and frames != 1:
            raise InvalidInput("pixels", f"the first chunk of a stream has 1 frame, got {frames}")
        if not first and frames % self.temporal_stride:
            raise InvalidInput("pixels", f"a later chunk has a multiple of {self.temporal_stride} frames, got {frames}")

    def check_guidance(self, latents: Tensor, guidance: DecoderGuidance | None, *, first: bool) -> None:
        """Raise InvalidInput unless `guidance` is None or covers exactly what `latents` [B, C, f, h, w] decode to."""
        if guidance is None:
            return
        batch, _, count, height, width = latents.shape
        frames = self.pixel_frames(count, first=first)
        expected = (batch, 3, frames, height * self.spatial_stride, width * self.spatial_stride)
        if guidance.pixels.shape != expected:
            raise InvalidInput("guidance.pixels", f"expected {list(expected)}, got {list(guidance.pixels.shape)}")

    def check_shape(self, field: str, tensor: Tensor, channels: int) -> None:
        """Raise InvalidInput unless `tensor` is floating, [B, channels, F, H, W], and not empty."""
        if tensor.dim() != 5 or tensor.shape[1] != channels or 0 in tensor.shape:
            raise InvalidInput(field, f"expected [B, {channels}, F, H, W], got {list(tensor.shape)}")
        if not tensor.is_floating_point():
            raise InvalidInput(field, f"expected a floating dtype, got {tensor.dtype}")


def _split(frames: Tensor, ends: Sequence[int]) -> list[Tensor]:
    """Cut [B, C, F, H, W] in time at each of `ends`."""
    starts = [0, *ends[:-1]]
    return [frames[:, :, start:end] for start, end in zip(starts, ends, strict=True)]
