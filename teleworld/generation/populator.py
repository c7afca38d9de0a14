"""Content populating (paper 3.2.2, Eq. 3): what the populator service computes."""

from __future__ import annotations

import torch

from teleworld.generation.model import Model
from teleworld.generation.planner import generate_group
from teleworld.generation.stages import StageClock
from teleworld.world.work import LatentsResult, PopulateRequest


class Populator:
    """Fills the halves of segments between their key latents."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @torch.inference_mode()
    def populate(self, request: PopulateRequest) -> LatentsResult:
        """Tasks F1 and F2."""
        clock = StageClock()
        with clock.stage("populate"):
            latents = generate_group(
                self.model,
                request.context,
                request.timeline,
                request.group,
                request.clean,
                request.guidance,
                request.prompt,
            )
        return LatentsResult(request.timeline.members(request.group), latents, clock.milliseconds)
