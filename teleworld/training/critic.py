"""A critic of latents, for what the memory does not know.

There, squared error has one answer: the mean of all that might be, which is fog. The critic asks that what is made up could
be a recording: it tells recorded latents from made ones cell by cell, and counts most where nothing is known, or what is
shown is worn. It sees single frames, weighted as the loss weighs channels; that frames agree with each other is the business
of guidance and context.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


class LatentCritic(nn.Module):
    """Scores how real each latent cell looks among its neighbours, seven cells across."""

    gains: Tensor

    def __init__(self, weights: Tensor, width: int = 96) -> None:
        """weights [C]: of each channel in the loss, 1 on average."""
        super().__init__()
        self.register_buffer("gains", weights.sqrt().view(1, -1, 1, 1, 1))
        widths = (len(weights) + 1, width, width, width)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(first, second, 3, padding=1)) for first, second in itertools.pairwise(widths)
        )
        self.score = spectral_norm(nn.Conv2d(width, 1, 1))

    def forward(self, latents: Tensor, unknown: Tensor) -> Tensor:
        """latents [B, C, F, h, w], unknown [B, 1, F, h, w] in 0..1 -> scores [B, 1, F, h, w], higher for real."""
        x = torch.cat([latents * self.gains, unknown], dim=1).transpose(1, 2).flatten(0, 1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.score(x).unflatten(0, (len(latents), -1)).transpose(1, 2)

    def judge(self, latents: Tensor, unknown: Tensor) -> Tensor:
        """Scores with the critic held fixed: gradients reach the latents only."""
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        return torch.func.functional_call(self, fixed, (latents, unknown))


def critic_loss(critic: LatentCritic, made: Tensor, recorded: Tensor, unknown: Tensor, judged: Tensor) -> Tensor:
    """Hinge loss of the critic, cells weighted by `judged`, how much each counts; no gradient for `made`."""
    real, false = critic(recorded, unknown), critic(made.detach(), unknown)
    return mean_where(F.relu(1 - real) + F.relu(1 + false), judged)


def mean_where(values: Tensor, share: Tensor) -> Tensor:
    """Mean weighted by `share`; 0 where all of it is 0."""
    return (values * share).sum() / share.sum().clamp_min(1e-6)
