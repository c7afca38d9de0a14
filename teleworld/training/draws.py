"""What a training step of the diffusion transformer is asked: a group of a segment, at a noise level, in a context.

Clean context and guidance pass through the network as they do when it samples. A share of the halves is populated between key
frames that the network planned itself (self-forcing).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from teleworld.models.dit import DiT
from teleworld.training.condition import Condition
from teleworld.training.segment_reader import SegmentBatch, SegmentReader
from teleworld.world.timeline import ChainMode, Group, Timeline

GROUPS = (Group.PLAN, Group.FIRST_HALF, Group.SECOND_HALF)


@dataclass(frozen=True)
class Drawing:
    """How steps are drawn. batch: segments a step. shares: how often each of `GROUPS` is drawn. drop_guidance, drop_text:
    probabilities of training without them. worn: share of segments that the reader wears. context_noise: largest sigma of
    noise left on clean context. own_context: how often a half stands between the network's own key frames, planned in one
    step, in place of the recorded ones. from_noise: share of samples at noise level 1, where one-step sampling starts; the
    other levels are even, then shifted by sigma_shift.
    """

    batch: int = 8
    shares: tuple[float, float, float] = (0.6, 0.3, 0.1)
    drop_guidance: float = 0.06
    drop_text: float = 0.1
    worn: float = 0.35
    context_noise: float = 0.15
    own_context: float = 0.3
    sigma_shift: float = 1.5
    from_noise: float = 0.6


@dataclass(frozen=True, eq=False)
class Draw:
    """One step's question. sigma [B]: noise levels; noise, context [B, C, N, h, w], of whole segments; invented: whether no
    recorded key frames around the group tell what it holds."""

    batch: SegmentBatch
    timeline: Timeline
    group: Group
    sigma: Tensor
    noise: Tensor
    context: Tensor
    invented: bool

    @property
    def guidance(self) -> Tensor:
        """[B, C + 1, F, h, w] of the group."""
        return self.batch.guidance[:, :, [index - 2 for index in self.timeline.members(self.group)]]

    @property
    def clean(self) -> Tensor:
        """The true latents [B, C, F, h, w] of the group."""
        return _of(self.batch.latents, self.timeline.members(self.group))

    @property
    def from_noise(self) -> Tensor:
        """[B], bool: which samples are at noise level 1."""
        return self.sigma == 1

    def predict(self, dit: DiT) -> Tensor:
        """`dit`'s guess at the clean latents [B, C, F, h, w], which is what it learns; `DiT.predict_clean` weighs it."""
        seen = _of(self.context, self.timeline.visible(self.group))
        condition = Condition(self.timeline, self.group, seen, self.guidance, self.batch.text)
        level = self.sigma.view(-1, 1, 1, 1, 1)
        noise = _of(self.noise, self.timeline.members(self.group))
        return condition.guess(dit, (1 - level) * self.clean + level * noise, self.sigma)

    @torch.no_grad()
    def with_own_plan(self, dit: DiT) -> Draw:
        """The same between the key frames that `dit` makes from the context in one step."""
        plan = replace(self, group=Group.PLAN, sigma=torch.ones_like(self.sigma))
        own = self.context.clone()
        own[:, :, [index - 1 for index in self.timeline.members(Group.PLAN)]] = plan.predict(dit)
        return replace(self, context=own, invented=True)


class Draws:
    """Random steps over segments of so many `latents`; a resumed run draws others than it has drawn, by `step`."""

    def __init__(self, reader: SegmentReader, drawing: Drawing, latents: int, seed: int, step: int) -> None:
        self._reader = reader
        self._drawing = drawing
        self._timeline = Timeline.of(latents, ChainMode.T_C)
        self._random = np.random.default_rng([seed, step])
        self._generator = torch.Generator().manual_seed(seed + step)

    def next(self, dit: DiT) -> Draw:
        """The next step's; `dit` plans its own key frames where that is drawn."""
        drawing, random, generator = self._drawing, self._random, self._generator
        batch = self._dropped(self._reader.batch(drawing.batch, random))
        group = GROUPS[random.choice(3, p=drawing.shares)]
        even = torch.rand(drawing.batch, generator=generator)
        sigma = drawing.sigma_shift * even / (1 + (drawing.sigma_shift - 1) * even)
        sigma[torch.rand(drawing.batch, generator=generator) < drawing.from_noise] = 1.0
        noise = torch.randn(batch.latents.shape, generator=generator)
        spoil = drawing.context_noise * torch.rand(drawing.batch, generator=generator).view(-1, 1, 1, 1, 1)
        context = batch.context + spoil * torch.randn(batch.latents.shape, generator=generator)
        draw = Draw(batch, self._timeline, group, sigma, noise, context, group is Group.PLAN)
        if not draw.invented and random.random() < drawing.own_context:
            return draw.with_own_plan(dit)
        return draw

    def _dropped(self, batch: SegmentBatch) -> SegmentBatch:
        size = len(batch.latents)
        seen = torch.from_numpy(self._random.random(size) >= self._drawing.drop_guidance).view(-1, 1, 1, 1, 1)
        read = torch.from_numpy(self._random.random(size) >= self._drawing.drop_text).view(-1, 1, 1)
        return replace(batch, guidance=batch.guidance * seen, text=batch.text * read)


def _of(latents: Tensor, indices: tuple[int, ...]) -> Tensor:
    """Latents of 1-based `indices` in their segment."""
    return latents[:, :, [index - 1 for index in indices]]
