"""Denoising one group of a segment: the computation that planner and populator share (paper Eq. 1 and 3).

Several worlds that are at the same place of their timelines can share one call: they are the samples of a batch, and no
sample sees another. Whether a batch also has the bits of single calls is a matter of kernels, not of this code; workers find
that out before they offer it (services/common/batching.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from teleworld.generation.conditioning import (
    guidance_to_tensor,
    latents_to_tensor,
    tensor_to_latents,
    visible_context,
)
from teleworld.generation.model import Model
from teleworld.generation.sampler import Branch, sample_group
from teleworld.generation.start_picture import start_picture
from teleworld.models.dit import KVCache
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import Timeline
from teleworld.world.work import Float, Guidance, Prompt, TaskContext


@dataclass(frozen=True, eq=False)
class Sample:
    """What a world brings to a call. clean: float32 [m, C, h, w] of the latents that the group sees."""

    context: TaskContext
    clean: Float
    guidance: Guidance
    prompt: Prompt


def generate_group(model: Model, timeline: Timeline, group: int, samples: Sequence[Sample]) -> list[Float]:
    """For each of `samples` float32 [n, C, h, w], latents `timeline.members(group)`. Raises InvalidInput(`prompt.embedding`)."""
    dit, indices, seen = model.dit, timeline.members(group), timeline.visible(group)
    hint = model.place(torch.cat([guidance_to_tensor(sample.guidance) for sample in samples]))
    latents = model.place(torch.cat([latents_to_tensor(sample.clean) for sample in samples]))
    looks, around, about = None, None, None
    if dit.config.takes_picture:
        pictures = [start_picture(model, prefix[None], timeline.latents) for prefix in latents[:, :, :1]]
        around = torch.cat([picture.of(seen) for picture in pictures])
        about = torch.cat([picture.of(indices) for picture in pictures])
        embeddings = [picture.embedding for picture in pictures if picture.embedding is not None]
        looks = torch.cat(embeddings) if embeddings else None
    prompts = [_stacked(model, [torch.from_numpy(np.ascontiguousarray(s.prompt.embedding)) for s in samples])]
    if model.sampling.guided:
        prompts.append(_stacked(model, [model.negative_prompt] * len(samples)))
    branches = []
    for embedding in prompts:
        text = dit.read_text(embedding, looks)
        visible = [visible_context(dit, timeline, group, latents, text, around)]
        if dit.config.guidance_channels:
            visible.append(dit.read_guidance(hint, indices, text))
        branches.append(Branch(text, KVCache.joined(visible)))
    sampled = sample_group(
        dit,
        indices,
        sampling=model.sampling,
        places=[(sample.context.seed, sample.context.segment) for sample in samples],
        shape=model.spec.latent_shape,
        branches=branches,
        guidance=hint,
        extra=about,
        device=latents.device,
    )
    return [tensor_to_latents(sample) for sample in sampled.split(1)]


def _stacked(model: Model, embeddings: Sequence[Tensor]) -> Tensor:
    """Token embeddings [T, D] of several prompts as [B, text_length, D], filled up with zeros as `DiT.read_text` does it."""
    longest, width = model.dit.config.text_length, model.dit.config.text_dim
    for embedding in embeddings:
        if len(embedding) > longest or embedding.shape[1:] != (width,):
            raise InvalidInput(
                "prompt.embedding", f"expected [at most {longest}, {width}], got {list(embedding.shape)}"
            )
    return torch.stack([model.place(F.pad(e, (0, 0, 0, longest - len(e)))) for e in embeddings])
