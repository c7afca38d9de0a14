"""Latent to video (paper 3.6.2, 3.6.3): Stream-VAE, super-resolution, H.264; what the decoder service computes.

The networks run here (`LocalFrames`) or elsewhere, behind the same `FrameMaker`; H.264 is always made here, because
each chunk starts with an IDR and so needs no state.
"""

from __future__ import annotations

import threading
from typing import Protocol

import torch
from torch import Tensor

from teleworld.generation.conditioning import latents_to_tensor
from teleworld.generation.model import Model
from teleworld.generation.pixels import decoder_guidance, to_frames
from teleworld.generation.stages import StageClock
from teleworld.generation.streams import StreamTable, mark
from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.video.h264 import encode_chunk
from teleworld.world.errors import InvalidInput
from teleworld.world.latents import latent_digest
from teleworld.world.work import Bytes, DecodeRequest, DecodeResult


class FrameMaker(Protocol):
    """Latents to shown pictures, chunk by chunk."""

    def frames(self, request: DecodeRequest, clock: StageClock) -> Bytes:
        """uint8 [F, H, W, 3] for the last latent of the request. Raises StateLost if it continues a stream not held."""
        ...


class LocalFrames:
    """Stream-VAE and super-resolution in this process.

    A pipeline for threads that decode chunks of different worlds: each network serves one of them at a time, so that one
    chunk is upscaled, and its H.264 made, while the next one is decoded.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._decoding, self._upscaling = threading.Lock(), threading.Lock()
        self.streams = StreamTable()

    @torch.inference_mode()
    def frames(self, request: DecodeRequest, clock: StageClock) -> Bytes:
        """See `FrameMaker.frames`."""
        model, context, first = self._model, request.context, first_latent(request)
        if first > 1:
            vae, upscaler = self.streams.resume(context.world, mark(context, first - 1, request.previous))
        else:
            vae, upscaler = model.vae.new_decoder_state(), model.super_resolution.new_state()
        upscaled: Tensor | None = None
        for row, index in enumerate(range(first, request.index + 1)):
            with self._decoding, clock.stage("decode"):
                hint = self._hint(request, index)
                latent = model.place(latents_to_tensor(request.latents[row : row + 1]))
                pixels = model.vae.decode_chunk(latent, vae, hint)
            with self._upscaling, clock.stage("super_resolution"):
                upscaled = model.super_resolution.upscale_chunk(pixels, upscaler, hint)
        assert upscaled is not None
        here = mark(context, request.index, latent_digest(request.latents[-1]))
        self.streams.keep(context.world, here, (vae, upscaler))
        return to_frames(upscaled)

    def _hint(self, request: DecodeRequest, index: int) -> DecoderGuidance | None:
        guidance = request.guidance
        if guidance is None or index not in guidance.indices:
            return None
        return self._model.place_hint(decoder_guidance(guidance, guidance.indices.index(index)))


class Decoder:
    """Decodes chunk by chunk. `frames` makes the pictures; by default the model's networks in this process do."""

    def __init__(self, model: Model, frames: FrameMaker | None = None) -> None:
        self.model = model
        self._frames = frames or LocalFrames(model)

    def decode(self, request: DecodeRequest) -> DecodeResult:
        """Task D. Raises StateLost when the request continues a stream that is not held."""
        clock = StageClock()
        frames = self._frames.frames(request, clock)
        with clock.stage("encode"):
            video = encode_chunk(frames, self.model.spec.fps)
        return DecodeResult(video, len(frames), frames.shape[2], frames.shape[1], clock.milliseconds)


def first_latent(request: DecodeRequest) -> int:
    """The number in its segment of the first latent that is sent. Raises InvalidInput if there can be no such number."""
    first = request.index - len(request.latents) + 1
    if first < 1 or not len(request.latents):
        raise InvalidInput("latents", f"{len(request.latents)} latents cannot end with number {request.index}")
    return first
