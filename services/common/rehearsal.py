"""A rehearsal of a worker before it says that it serves: each of its tasks once, at the largest shapes.

The first task of each shape is several times as slow as the next ones: kernels are chosen, memory is taken from the system,
tables are built. That belongs to the start of a process and not to somebody's walk. The inputs are noise; what they make is
thrown away.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT, ChainMode, Timeline
from teleworld.world.work import (
    BridgeRequest,
    DecodeRequest,
    EmbedRequest,
    EncodeRequest,
    Float,
    Guidance,
    PlanRequest,
    PopulateRequest,
    Prompt,
    TaskContext,
)

if TYPE_CHECKING:
    from teleworld.generation.decoder import Decoder
    from teleworld.generation.model import Model
    from teleworld.generation.planner import Planner
    from teleworld.generation.populator import Populator

WORLD = "rehearsal"
ROUNDS = 2
"""Twice, because what the allocator learns from the first time it uses in the second."""


def rehearse_planner(core: Planner) -> None:
    """Embed, encode, plan and bridge, as the mode of maximum throughput does it, which has the most key frames."""
    stage = Stage(core.model)
    prompt = core.embed(EmbedRequest(core.model.digest, WORLD))
    for timeline in stage.timelines():
        core.encode(EncodeRequest(stage.context, stage.pictures(1)[0]))
        planned = PlanRequest(stage.context, timeline, stage.latents(1)[0], stage.guidance(timeline.members(1)), prompt)
        keys = core.plan(planned).latents[: len(timeline.key_frames)]
        core.bridge(BridgeRequest(stage.context, timeline, planned.prefix, keys, stage.guidance(timeline.key_frames)))


def rehearse_populator(core: Populator) -> None:
    """Every group that a populator makes."""
    stage, config = Stage(core.model), core.model.dit.config
    prompt = Prompt(WORLD, np.zeros((config.text_length, config.text_dim), np.float32))
    for timeline in stage.timelines():
        for group in range(2, len(timeline.stages) + 1):
            if members := timeline.members(group):
                clean = stage.latents(len(timeline.visible(group)))
                core.populate(PopulateRequest(stage.context, timeline, group, clean, stage.guidance(members), prompt))


def rehearse_decoder(core: Decoder) -> None:
    """A segment's first latents, and one that goes on from them."""
    stage = Stage(core.model)
    for _ in range(ROUNDS):
        core.decode(DecodeRequest(stage.context, 0, 2, stage.latents(2), "", stage.guidance((2,))))


class Stage:
    """Noise in the shapes of a model, as a world of that seed would see it."""

    def __init__(self, model: Model, seed: int = 0) -> None:
        self._spec = model.spec
        self._noise = np.random.default_rng(seed)
        self.context = TaskContext(WORLD, epoch=0, segment=0, task=WORLD, attempt=0, seed=seed, weights=model.digest)

    def timelines(self) -> Iterator[Timeline]:
        """The layouts that worlds may have, those with the largest groups."""
        for _ in range(ROUNDS):
            yield self._spec.timeline(ChainMode.T_C)

    def pictures(self, count: int) -> np.ndarray:
        lens = self._spec.lens
        return self._noise.integers(0, 256, (count, lens.height, lens.width, 3), np.uint8)

    def latents(self, count: int) -> Float:
        return self._noise.standard_normal((count, *self._spec.latent_shape), np.float32)

    def guidance(self, indices: tuple[int, ...]) -> Guidance:
        count, (_, rows, columns) = len(indices), self._spec.latent_shape
        pixels = self.pictures(count * PIXEL_FRAMES_PER_LATENT)
        seen = np.full(pixels.shape[:3], 255, np.uint8)
        return Guidance(indices, pixels, seen, self.latents(count), np.ones((count, rows, columns), np.float32))
