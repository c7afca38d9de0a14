"""Macro and micro planning (paper 3.2.1): what the planner service computes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from teleworld.generation.conditioning import (
    guidance_to_tensor,
    latents_to_tensor,
    tensor_to_latents,
    visible_context,
)
from teleworld.generation.model import Model
from teleworld.generation.pixels import decoder_guidance, to_frames, to_pixels
from teleworld.generation.sampler import sample_group
from teleworld.generation.stages import StageClock
from teleworld.models.dit import KVCache
from teleworld.world.timeline import Group, Timeline
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
    Float,
    Guidance,
    LatentsResult,
    PlanRequest,
    Prompt,
    TaskContext,
)


def generate_group(
    model: Model,
    context: TaskContext,
    timeline: Timeline,
    group: Group,
    clean: Float,
    guidance: Guidance,
    prompt: Prompt,
) -> Float:
    """Denoise one group: float32 [n, C, h, w] for `timeline.members(group)`. The core of planner and populator."""
    dit, indices = model.dit, timeline.members(group)
    text = dit.read_text(torch.from_numpy(np.ascontiguousarray(prompt.embedding))[None])
    hint = guidance_to_tensor(guidance)
    visible = [visible_context(dit, timeline, group, latents_to_tensor(clean), text)]
    if dit.config.guidance_channels:
        visible.append(dit.read_guidance(hint, indices, text))
    latents = sample_group(
        dit,
        indices,
        sigmas=model.sampling.sigmas,
        seed=context.seed,
        segment=context.segment,
        shape=model.spec.latent_shape,
        text=text,
        visible=KVCache.joined(visible),
        guidance=hint,
    )
    return tensor_to_latents(latents)


class Planner:
    """Embeds prompts, encodes start pictures, plans segments and bridges them."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @torch.inference_mode()
    def embed(self, request: EmbedRequest) -> Prompt:
        """Token embeddings of a prompt."""
        return Prompt(request.text, self.model.text.embed(request.text).numpy())

    @torch.inference_mode()
    def encode(self, request: EncodeRequest) -> EncodeResult:
        """Task I: the prefix latent of segment 0."""
        clock = StageClock()
        with clock.stage("encode_picture"):
            latent = self._encode_still(to_pixels(request.picture[None]))
        return EncodeResult(latent, clock.milliseconds)

    @torch.inference_mode()
    def plan(self, request: PlanRequest) -> LatentsResult:
        """Task P (Eq. 1): the key latents, jointly from the prefix."""
        clock, group = StageClock(), Group.PLAN
        with clock.stage("plan"):
            latents = generate_group(
                self.model,
                request.context,
                request.timeline,
                group,
                request.prefix[None],
                request.guidance,
                request.prompt,
            )
        return LatentsResult(request.timeline.members(group), latents, clock.milliseconds)

    @torch.inference_mode()
    def bridge(self, request: BridgeRequest) -> BridgeResult:
        """Task K: each key frame's last picture, from decode([x^1, x^k, x^k]), and the boundary's picture encoded afresh.

        The doubled key latent makes the sequence contiguous for the temporal VAE (drift-resilient re-encoding, paper 3.2.1).
        """
        clock = StageClock()
        with clock.stage("bridge"):
            start = self.model.vae.new_decoder_state()
            self.model.vae.decode_chunk(latents_to_tensor(request.prefix[None]), start)
            pictures = []
            for row in range(len(request.keys)):
                key = latents_to_tensor(request.keys[row : row + 1])
                hint = decoder_guidance(request.guidance, row)
                state = start.clone()
                self.model.vae.decode_chunk(key, state, hint)
                pictures.append(self.model.vae.decode_chunk(key, state, hint)[:, :, -1:])
            last = request.timeline.key_frames.index(request.timeline.boundary)
            boundary = self._encode_still(pictures[last])
        return BridgeResult(np.concatenate([to_frames(p) for p in pictures]), boundary, clock.milliseconds)

    def _encode_still(self, picture: Tensor) -> Float:
        return tensor_to_latents(self.model.vae.encode_chunk(picture, self.model.vae.new_encoder_state()))[0]
