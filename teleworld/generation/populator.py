"""Content populating (paper 3.2.2, Eq. 3): what the populator service computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from teleworld.generation.groups import Sample, generate_group
from teleworld.generation.model import Model
from teleworld.generation.stages import StageClock
from teleworld.world.work import LatentsResult, PopulateRequest


class Populator:
    """Fills the halves of segments between their key latents."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def populate(self, request: PopulateRequest) -> LatentsResult:
        """Tasks F1 and F2."""
        return self.populate_many([request])[0]

    @torch.inference_mode()
    def populate_many(self, requests: Sequence[PopulateRequest]) -> list[LatentsResult]:
        """Tasks F of one timeline and group in one pass; the stage timings of each are those of the call."""
        clock, timeline, group = StageClock(), requests[0].timeline, requests[0].group
        samples = [Sample(r.context, r.clean, r.guidance, r.prompt) for r in requests]
        with clock.stage("populate"):
            made = generate_group(self.model, timeline, group, samples)
        return [LatentsResult(timeline.members(group), latents, clock.milliseconds) for latents in made]
