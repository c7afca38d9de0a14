"""What an image-to-video network (Wan2.1 I2V) is told about the start picture.

Such a network was trained on noisy latents beside a mask and the latents of a video that shows the start picture and then
grey, and on a CLIP embedding of the picture. Here each segment starts from a picture: its prefix latent. All of it is made
anew from that latent, so that a task stays a function of its request; the last few are kept, as all groups of a segment
share theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from teleworld.generation.model import Model

_KEPT = 4


@dataclass(frozen=True, eq=False)
class StartPicture:
    """extra: [1, E, N, h, w], mask and latents of the N latents of a segment. embedding: [1, P, picture_dim] or None."""

    extra: Tensor
    embedding: Tensor | None

    def of(self, indices: tuple[int, ...]) -> Tensor:
        """The extra channels [1, E, n, h, w] of the latents `indices` (1-based)."""
        return self.extra[:, :, [index - 1 for index in indices]]


def start_picture(model: Model, prefix: Tensor, latents: int) -> StartPicture:
    """The condition of a segment of `latents` latents that starts at `prefix` [1, C, 1, h, w]."""
    kept, config, vae = model.start_pictures, model.dit.config, model.vae
    for known, found in tuple(kept):
        if known.shape == prefix.shape and torch.equal(known, prefix) and found.extra.shape[2] == latents:
            return found
    still = vae.decode(prefix)
    grey = still.new_zeros(1, 3, vae.temporal_stride * (latents - 1), *still.shape[3:])
    video = vae.encode(torch.cat([still, grey], dim=2))
    # The prefix itself, rather than what a round trip makes of it.
    video = torch.cat([prefix, video[:, :, 1:]], dim=2)
    mask = video.new_zeros(1, config.extra_channels - config.channels, *video.shape[2:])
    mask[:, :, 0] = 1
    embedding = model.place(model.picture_encoder.embed(still[:, :, 0])) if config.picture_dim else None
    found = StartPicture(torch.cat([mask, video], dim=1), embedding)
    kept.append((prefix, found))
    del kept[:-_KEPT]
    return found
