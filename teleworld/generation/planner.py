"""Macro and micro planning (paper 3.2.1): what the planner service computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from teleworld.generation.conditioning import latents_to_tensor, tensor_to_latents
from teleworld.generation.groups import Sample, generate_group
from teleworld.generation.model import Model
from teleworld.generation.pixels import decoder_guidance, to_frames, to_pixels
from teleworld.generation.stages import StageClock
from teleworld.memory.embeddings import EmbeddingCache, LocalEmbeddingCache, embedding_key
from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.world.timeline import Group
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
    Float,
    LatentsResult,
    PlanRequest,
    Prompt,
)


class Planner:
    """Embeds prompts, encodes start pictures, plans segments and bridges them."""

    def __init__(self, model: Model, embeddings: EmbeddingCache | None = None) -> None:
        self.model = model
        self._embeddings = embeddings or LocalEmbeddingCache()

    @torch.inference_mode()
    def embed(self, request: EmbedRequest) -> Prompt:
        """Token embeddings of a prompt, from the cache if it was read before."""
        encoder = self.model.text
        key = embedding_key(encoder.identity, request.text)
        found = self._embeddings.get(key)
        if found is None:
            found = encoder.embed(request.text).numpy()
            self._embeddings.put(key, found)
        return Prompt(request.text, found)

    @torch.inference_mode()
    def encode(self, request: EncodeRequest) -> EncodeResult:
        """Task I: the prefix latent of segment 0."""
        clock = StageClock()
        with clock.stage("encode_picture"):
            latent = self._encode_still(self.model.place(to_pixels(request.picture[None])))
        return EncodeResult(latent, clock.milliseconds)

    def plan(self, request: PlanRequest) -> LatentsResult:
        """Task P (Eq. 1): the key latents, jointly from the prefix."""
        return self.plan_many([request])[0]

    @torch.inference_mode()
    def plan_many(self, requests: Sequence[PlanRequest]) -> list[LatentsResult]:
        """Tasks P of one timeline in one pass; the stage timings of each are those of the call."""
        clock, timeline = StageClock(), requests[0].timeline
        samples = [Sample(r.context, r.prefix[None], r.guidance, r.prompt) for r in requests]
        with clock.stage("plan"):
            made = generate_group(self.model, timeline, Group.PLAN, samples)
        return [LatentsResult(timeline.members(Group.PLAN), latents, clock.milliseconds) for latents in made]

    @torch.inference_mode()
    def bridge(self, request: BridgeRequest) -> BridgeResult:
        """Task K: each key frame's last picture, from decode([x^1, x^k, x^k]), and the boundary's picture encoded afresh.

        The doubled key latent makes the sequence contiguous for the temporal VAE (drift-resilient re-encoding, paper 3.2.1).
        """
        clock = StageClock()
        with clock.stage("bridge"):
            place = self.model.place
            keys = place(latents_to_tensor(request.keys).transpose(0, 2))
            rows = [decoder_guidance(request.guidance, row) for row in range(len(request.keys))]
            hint = DecoderGuidance(torch.cat([row.pixels for row in rows]), torch.cat([row.mask for row in rows]))
            prefix = place(latents_to_tensor(request.prefix[None]))
            pictures = self.model.vae.decode_doubled(prefix, keys, self.model.place_hint(hint))
            last = request.timeline.key_frames.index(request.timeline.boundary)
            boundary = self._encode_still(pictures[last : last + 1])
        return BridgeResult(to_frames(pictures.transpose(0, 2)), boundary, clock.milliseconds)

    def _encode_still(self, picture: Tensor) -> Float:
        return tensor_to_latents(self.model.vae.encode_chunk(picture, self.model.vae.new_encoder_state()))[0]
