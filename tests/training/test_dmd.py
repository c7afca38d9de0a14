"""Distribution matching: the loss pulls samples from the critic's guess to the teacher's, and runs are resumable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from teleworld.models.dit import DiT
from teleworld.training.condition import Condition
from teleworld.training.dmd import Distillation, critic_loss, distil, matching_loss, rollout
from teleworld.training.loop import Run
from teleworld.training.segment_reader import SegmentBatch
from teleworld.world.timeline import ChainMode, Group, Timeline
from tests.training.half_known import CONFIG

TIMELINE = Timeline.of(6, ChainMode.T_C)
SETTINGS = Distillation(batch=2, steps=3)


def network(seed: int) -> DiT:
    torch.manual_seed(seed)
    dit = DiT(CONFIG)
    torch.nn.init.normal_(dit.head.head.weight, std=0.1)
    return dit


def segments(seed: int = 0) -> SegmentBatch:
    random = torch.Generator().manual_seed(seed)
    of = lambda *shape: torch.randn(shape, generator=random)  # noqa: E731
    latents = of(2, 4, 6, 4, 4)
    return SegmentBatch(latents, latents, of(2, 5, 5, 4, 4), of(2, 3, CONFIG.text_dim), torch.zeros(2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def planned(batch: SegmentBatch) -> Condition:
    members = TIMELINE.members(Group.PLAN)
    hint = batch.guidance[:, :, [index - 2 for index in members]]
    return Condition(TIMELINE, Group.PLAN, batch.latents[:, :, :1], hint, batch.text)


def test_the_gradient_is_the_normalised_difference_of_the_scores() -> None:
    teacher, critic, condition = network(1), network(2), planned(segments())
    sample = torch.randn(2, 4, 3, 4, 4, generator=generator(5)).requires_grad_()
    matching_loss(teacher, critic, condition, sample, SETTINGS, generator(7)).backward()
    with torch.no_grad():
        random = generator(7)
        even = torch.rand(2, generator=random)
        sigma = SETTINGS.noise_shift * even / (1 + (SETTINGS.noise_shift - 1) * even)
        level = sigma.clamp(*SETTINGS.noise_range).view(-1, 1, 1, 1, 1)
        noisy = (1 - level) * sample + level * torch.randn(sample.shape, generator=random)
        fake, real = (condition.denoise(dit, noisy, level.flatten()) for dit in (critic, teacher))
        expected = (fake - real) / (sample - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
    assert sample.grad is not None
    torch.testing.assert_close(sample.grad * sample.numel(), expected, rtol=1e-4, atol=1e-5)


def test_where_critic_and_teacher_agree_nothing_moves() -> None:
    teacher, condition = network(1), planned(segments())
    sample = torch.randn(2, 4, 3, 4, 4).requires_grad_()
    matching_loss(teacher, teacher, condition, sample, SETTINGS, generator()).backward()
    assert sample.grad is not None and not sample.grad.any()


def test_teacher_guidance_moves_away_from_the_unread_text() -> None:
    teacher, condition = network(1), planned(segments())
    sample = torch.randn(2, 4, 3, 4, 4).requires_grad_()
    strong = replace(SETTINGS, text_scale=3.0)
    matching_loss(teacher, teacher, condition, sample, strong, generator()).backward()
    assert sample.grad is not None and sample.grad.any()


def test_a_rollout_populates_from_its_own_plan_and_learns_from_each_last_step() -> None:
    made = rollout(network(3), segments(), TIMELINE, SETTINGS, generator())
    assert [condition.group for condition, _ in made] == list(TIMELINE.groups)
    (_, plan), (first, _), *_ = made
    order = TIMELINE.visible(first.group)
    for place, index in enumerate(TIMELINE.members(Group.PLAN)):
        if index in order:
            torch.testing.assert_close(first.context[:, :, order.index(index)], plan[:, :, place].detach())
    assert all(x.requires_grad and not condition.context.requires_grad for condition, x in made)


def test_the_critic_learns_what_the_generator_makes() -> None:
    critic, condition = network(4), planned(segments())
    sample = torch.randn(2, 4, 3, 4, 4, generator=generator(1))
    optimiser = torch.optim.AdamW(critic.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        loss = critic_loss(critic, condition, sample, SETTINGS, generator(2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


class Reader:
    """Batches without recordings."""

    def batch(self, size: int, random: object) -> SegmentBatch:
        assert size == SETTINGS.batch
        return segments()


def test_a_run_distils_exports_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    arguments = (tmp_path / "run", Reader(), network(1), lambda dit: seen.append(dit) or {}, SETTINGS, 6)
    for steps in (6, 12):
        monkeypatch.setattr(Run, "finished", property(lambda run, steps=steps: run.step >= steps))
        distil(*arguments, tmp_path / "out")  # type: ignore[arg-type]
    assert (tmp_path / "out" / "dit.safetensors").is_file() and len(seen) == 2
    resumed = Run(tmp_path / "run" / "generator", network(1), learning_rate=1.0, total_seconds=1.0)
    assert resumed.resume() and resumed.step == 3  # steps 0, 5 and 10 of twelve
    before = network(1).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in resumed.average.items())
