"""Few-step distillation by distribution matching, with the generator's own context (paper 3.5; REFERENCE: Self-Forcing, DMD).

Three networks of one architecture: the generator, which learns to sample in few steps; the teacher, frozen, whose score is
that of the data; the critic, whose score follows what the generator makes. Where critic and teacher disagree about a
noised sample, the sample moves. Segments are rolled out the way they are served: key frames from the prefix, halves
from the generated key frames, so that the generator meets its own errors (self-forcing).

The functions here know nothing of processes: each takes networks and tensors, and may run wherever its networks live. Two
time scales keep the scores honest: the critic learns at each step, the generator at every fifth.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from teleworld.generation.model import Sampling, save_network
from teleworld.models.dit import DiT
from teleworld.training.condition import Condition
from teleworld.training.loop import Run
from teleworld.training.segment_reader import SegmentBatch, SegmentReader
from teleworld.world.timeline import ChainMode, Timeline

SAVE_EVERY_S = 180.0


@dataclass(frozen=True)
class Distillation:
    """Settings of a run.

    steps, shift: of the sampler that the generator becomes; the number of steps is fixed, and the gradient passes through
    the last one alone. critic_steps: critic updates to one of the generator (two time scales). generator_rate,
    critic_rate: learning rates. text_scale: teacher guidance, x_c + text_scale * (x_c - x_u); 0 leaves the text as it is.
    noise_range: noise levels at which the scores are compared. flow_cap: largest weight of the critic's loss, whose
    1 / sigma^2 would let the cleanest levels drown all others.
    """

    minutes: float = 60.0
    batch: int = 4
    steps: int = 4
    shift: float = 1.0
    critic_steps: int = 5
    generator_rate: float = 1e-4
    critic_rate: float = 2e-4
    text_scale: float = 0.0
    noise_shift: float = 1.5
    noise_range: tuple[float, float] = (0.02, 0.98)
    flow_cap: float = 16.0
    seed: int = 0


def rollout(
    generator: DiT, batch: SegmentBatch, timeline: Timeline, settings: Distillation, random: torch.Generator
) -> list[tuple[Condition, Tensor]]:
    """Every group of the segments as the generator makes it, from its own earlier groups; gradients through each last step."""
    sigmas = Sampling(settings.steps, settings.shift).sigmas
    latents = {1: batch.latents[:, :, 0]}
    made = []
    for group in timeline.groups:
        members = timeline.members(group)
        condition = Condition(
            timeline,
            group,
            torch.stack([latents[index] for index in timeline.visible(group)], dim=2),
            batch.guidance[:, :, [index - 2 for index in members]],
            batch.text,
        )
        x = torch.randn(batch.latents[:, :, : len(members)].shape, generator=random)
        with torch.no_grad():
            for sigma, after in pairwise(sigmas):
                clean = condition.denoise(generator, x, torch.full((len(x),), sigma))
                x = (1 - after) * clean + after * torch.randn(x.shape, generator=random)
        clean = condition.denoise(generator, x, torch.full((len(x),), sigmas[-1]))
        latents |= {index: clean[:, :, place].detach() for place, index in enumerate(members)}
        made.append((condition, clean))
    return made


def matching_loss(
    teacher: DiT, critic: DiT, condition: Condition, sample: Tensor, settings: Distillation, random: torch.Generator
) -> Tensor:
    """0.5 MSE(x, stopgrad(x - grad)) in float64, grad = (x0_fake - x0_real) / mean|x - x0_real| over all but the batch."""
    with torch.no_grad():
        sigma = _levels(len(sample), settings, random)
        noisy = _mix(sample, torch.randn(sample.shape, generator=random), sigma)
        fake = condition.denoise(critic, noisy, sigma)
        real = condition.denoise(teacher, noisy, sigma)
        if settings.text_scale:
            real = real + settings.text_scale * (real - condition.denoise(teacher, noisy, sigma, read=False))
        size = (sample - real).abs().mean(dim=(1, 2, 3, 4), keepdim=True)
        push = torch.nan_to_num((fake - real) / size, nan=0.0, posinf=0.0, neginf=0.0)
    return 0.5 * nn.functional.mse_loss(sample.double(), (sample - push).double().detach())


def critic_loss(
    critic: DiT, condition: Condition, sample: Tensor, settings: Distillation, random: torch.Generator
) -> Tensor:
    """Flow-matching loss of the critic on generated `sample`: |v - (eps - x)|^2 is |x0 - x|^2 / sigma^2."""
    sample = sample.detach()
    sigma = _levels(len(sample), settings, random)
    noisy = _mix(sample, torch.randn(sample.shape, generator=random), sigma)
    weight = sigma.square().reciprocal().clamp_max(settings.flow_cap).view(-1, 1, 1, 1, 1)
    return (weight * (condition.denoise(critic, noisy, sigma) - sample).square()).mean()


def distil(
    folder: Path,
    reader: SegmentReader,
    teacher: DiT,
    evaluate: Callable[[DiT], dict[str, float]],
    settings: Distillation,
    latents: int,
    export: Path,
    *,
    every: int = 200,
) -> None:
    """Distil `teacher` until the time is spent; resumes from `folder`. The averaged generator goes to `export`.

    Generator and critic start as the teacher. Time is counted by the critic's run, which takes every step.
    """
    torch.manual_seed(settings.seed)
    export.mkdir(parents=True, exist_ok=True)
    timeline = Timeline.of(latents, ChainMode.T_C)
    teacher.eval().requires_grad_(False)
    generator, critic = (copy.deepcopy(teacher).requires_grad_(True) for _ in range(2))
    seconds = 60 * settings.minutes
    makers = Run(
        folder / "generator",
        generator,
        learning_rate=settings.generator_rate,
        total_seconds=seconds,
        decay=0.99,
        betas=(0.0, 0.999),
        save_every=math.inf,
    )
    critics = Run(
        folder / "critic",
        critic,
        learning_rate=settings.critic_rate,
        total_seconds=seconds,
        betas=(0.0, 0.999),
        save_every=math.inf,
    )
    # The critic is written first: where there is a generator there is a critic.
    if makers.resume():
        critics.resume()
    saved = critics.seconds
    draws = np.random.default_rng([settings.seed, critics.step])
    random = torch.Generator().manual_seed(settings.seed + critics.step)
    totals: dict[str, list[float]] = {}
    while not critics.finished:
        batch = reader.batch(settings.batch, draws)
        turn = critics.step % settings.critic_steps == 0
        with torch.set_grad_enabled(turn):
            made = rollout(generator, batch, timeline, settings, random)
        if turn:
            losses = [matching_loss(teacher, critic, condition, x, settings, random) for condition, x in made]
            makers.seconds = critics.seconds
            makers.update(torch.stack(losses).mean().float(), clip=10.0)
            totals.setdefault("matching", []).append(float(torch.stack(losses).mean().detach()))
        loss = torch.stack([critic_loss(critic, condition, x, settings, random) for condition, x in made]).mean()
        critics.update(loss, clip=10.0)
        totals.setdefault("critic", []).append(float(loss.detach()))
        if critics.step % 50 == 0:
            critics.log(**{name: float(np.mean(values)) for name, values in totals.items()})
            totals.clear()
        if critics.seconds - saved > SAVE_EVERY_S or critics.finished:
            critics.save()
            makers.save()
            saved = critics.seconds
        if critics.step % every == 0 or critics.finished:
            averaged = copy.deepcopy(teacher)
            averaged.load_state_dict(makers.average)
            critics.log(**evaluate(averaged.eval()))
            save_network(
                export, "dit", averaged, sampling=Sampling(settings.steps, settings.shift), step=str(makers.step)
            )


def _levels(count: int, settings: Distillation, random: torch.Generator) -> Tensor:
    """Noise levels [count], uniform, then shifted towards the noisy end and kept off both ends."""
    even = torch.rand(count, generator=random)
    shifted = settings.noise_shift * even / (1 + (settings.noise_shift - 1) * even)
    return shifted.clamp(*settings.noise_range)


def _mix(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    level = sigma.view(-1, 1, 1, 1, 1)
    return (1 - level) * clean + level * noise
