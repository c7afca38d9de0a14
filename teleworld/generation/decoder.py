"""Latent to video (paper 3.6.2, 3.6.3): Stream-VAE, super-resolution, H.264; what the decoder service computes.

The state of a stream is kept per world between chunks. It is only a shortcut: a request that carries the segment's
whole history gives the same video on any decoder.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from teleworld.generation.conditioning import latents_to_tensor
from teleworld.generation.model import Model
from teleworld.generation.pixels import decoder_guidance, to_frames
from teleworld.generation.stages import StageClock
from teleworld.models.stream_vae.state import StreamState
from teleworld.video.h264 import encode_chunk
from teleworld.world.errors import InvalidInput, StateLost
from teleworld.world.latents import latent_digest
from teleworld.world.work import DecodeRequest, DecodeResult

MAX_STREAMS = 64


@dataclass(frozen=True, eq=False)
class _Stream:
    """State after latent `index` of a segment; `digest` is that latent's."""

    epoch: int
    segment: int
    index: int
    digest: str
    vae: StreamState
    upscaler: StreamState


class Decoder:
    """Decodes chunk by chunk; holds the state of the `MAX_STREAMS` worlds decoded last."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._lock = threading.Lock()

    @torch.inference_mode()
    def decode(self, request: DecodeRequest) -> DecodeResult:
        """Task D. Raises StateLost when the request continues a stream that is not held here."""
        clock, context = StageClock(), request.context
        first = request.index - len(request.latents) + 1
        if first < 1 or not len(request.latents):
            raise InvalidInput("latents", f"{len(request.latents)} latents cannot end with number {request.index}")
        stream = self._stream(request) if first > 1 else None
        vae_state = stream.vae.clone() if stream else self.model.vae.new_decoder_state()
        upscaler_state = stream.upscaler.clone() if stream else self.model.super_resolution.new_state()
        pixels = upscaled = None
        for row, index in enumerate(range(first, request.index + 1)):
            with clock.stage("decode"):
                pixels = self._decode(request, row, index, vae_state)
            with clock.stage("super_resolution"):
                upscaled = self.model.super_resolution.upscale_chunk(pixels, upscaler_state)
        assert upscaled is not None
        with clock.stage("encode"):
            frames = to_frames(upscaled)
            video = encode_chunk(frames, self.model.spec.fps)
        self._keep(
            request,
            _Stream(
                context.epoch,
                context.segment,
                request.index,
                latent_digest(request.latents[-1]),
                vae_state,
                upscaler_state,
            ),
        )
        return DecodeResult(video, len(frames), frames.shape[2], frames.shape[1], clock.milliseconds)

    def _decode(self, request: DecodeRequest, row: int, index: int, state: StreamState) -> Tensor:
        latent = latents_to_tensor(np.ascontiguousarray(request.latents[row : row + 1]))
        hint = None
        if (guidance := request.guidance) is not None and index in guidance.indices:
            hint = decoder_guidance(guidance, guidance.indices.index(index))
        return self.model.vae.decode_chunk(latent, state, hint)

    def _stream(self, request: DecodeRequest) -> _Stream:
        with self._lock:
            stream = self._streams.get(request.context.world)
        if (
            stream is None
            or (stream.epoch, stream.segment, stream.index)
            != (request.context.epoch, request.context.segment, request.index - 1)
            or stream.digest != request.previous
        ):
            raise StateLost(f"no state after latent {request.index - 1} of segment {request.context.segment}")
        return stream

    def _keep(self, request: DecodeRequest, stream: _Stream) -> None:
        with self._lock:
            self._streams[request.context.world] = stream
            self._streams.move_to_end(request.context.world)
            while len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
