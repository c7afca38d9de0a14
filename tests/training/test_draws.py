"""What a training step asks: own key frames where drawn, levels and dropped guidance as often as asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from teleworld.models.dit import DiT
from teleworld.training.draws import Draw, Drawing, Draws
from teleworld.world.timeline import Group
from tests.training.half_known import CONFIG, Reader


@pytest.fixture(scope="module")
def dit() -> DiT:
    torch.manual_seed(0)
    network = DiT(CONFIG)
    torch.nn.init.normal_(network.head.head.weight, std=0.1)
    return network.requires_grad_(False)


def draws(drawing: Drawing, step: int = 0) -> Draws:
    return Draws(Reader(), drawing, 6, 0, step)  # type: ignore[arg-type]


def first_half(dit: DiT, own_context: float) -> Draw:
    return draws(Drawing(batch=3, shares=(0.0, 1.0, 0.0), own_context=own_context, context_noise=0.0)).next(dit)


def test_a_segment_stands_between_key_frames_of_its_own(dit: DiT) -> None:
    recorded, own = first_half(dit, 0.0), first_half(dit, 1.0)
    assert torch.equal(recorded.context, recorded.batch.latents) and not recorded.invented and own.invented
    changed = (own.context != own.batch.latents).flatten(3).any(dim=3).any(dim=1).all(dim=0)
    assert [index + 1 for index in range(6) if changed[index]] == list(own.timeline.members(Group.PLAN))
    assert own.group == Group.FIRST_HALF and torch.equal(own.clean, recorded.clean)


def test_levels_and_dropped_guidance_come_as_often_as_asked(dit: DiT) -> None:
    many = draws(Drawing(batch=400, from_noise=0.25, drop_guidance=0.5, drop_text=0.5, shares=(1.0, 0.0, 0.0))).next(
        dit
    )
    assert 0.15 < many.from_noise.float().mean() < 0.35
    assert 0.4 < (many.guidance.flatten(1) == 0).all(dim=1).float().mean() < 0.6
    below = many.sigma[~many.from_noise]
    assert 0 <= below.min() < 0.05 and 0.5 < below.mean() < 0.65, "even levels, shifted by 1.5: 0.57 on average"


def test_a_resumed_run_is_asked_something_else(dit: DiT) -> None:
    one, same, later = (draws(Drawing(batch=2), step).next(dit) for step in (0, 0, 7))
    assert torch.equal(one.noise, same.noise) and np.array_equal(one.sigma, same.sigma)
    assert not torch.equal(one.noise, later.noise)
