"""Teacher-forced training of the diffusion transformer on groups of segments (paper 3.2; REFERENCE: MMPL).

Each step draws one group (plan, first half or second half) and a noise level; clean context and guidance pass through the
network as they do when it samples. A share of the halves is populated between key frames that the network planned itself
(self-forcing), and a share of what the memory shows is as worn as after many rounds of being shown and generated, so that its
own errors are no surprise and do not add up. The loss is on the clean latent, each channel weighted by the pixel
variance that it carries, since the latents themselves are whitened; what no recorded key frame tells must also pass a critic,
most of all where the memory knows nothing (`teleworld/training/critic.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from teleworld.generation.conditioning import visible_context
from teleworld.generation.model import Sampling, save_network
from teleworld.generation.pixels import coverage, to_pixels
from teleworld.models.dit import DiT, DiTConfig, KVCache
from teleworld.models.stream_vae.patch import PatchVAE
from teleworld.models.text import TextEncoder
from teleworld.training.critic import LatentCritic, critic_loss, mean_where
from teleworld.training.degradation import blur, fade
from teleworld.training.loop import Run
from teleworld.training.muon import MuonAdamW
from teleworld.training.segments import SegmentSet
from teleworld.world.timeline import ChainMode, Group, Timeline

SAVE_EVERY_S = 180.0
CRITIC_WARM_UP = 200
# Of worn guidance: pixels of blur at most; least contrast.
_WORN_BLUR, _WORN_CONTRAST = 4.0, 0.75
GROUPS = (Group.PLAN, Group.FIRST_HALF, Group.SECOND_HALF)


@dataclass(frozen=True)
class DiTTraining:
    """Settings of a run. shares: how often each of `GROUPS` is drawn. drop_guidance, drop_text: probabilities of training
    without them. worn: share of segments whose guidance is blurred and faded, and half the time their context blurred alike.
    context_noise: largest sigma of noise left on clean context. own_context: how often a half stands between the network's
    own key frames, planned in one step, in place of the recorded ones. from_noise: share of samples at noise level 1, where
    one-step sampling starts. hole_weight: of squared error there in cells of which the memory shows nothing, or nothing but
    fog, unless recorded key frames around them tell what they hold. adversarial: weight of the critic, at every noise level
    (at level 1 alone its pull makes confetti of what is made up); judged: how much it counts in cells that the memory shows
    unworn; critic_rate: its learning rate. sampling_steps: written into the checkpoint; a short training is sharpest in one
    step, more steps add uncorrelated noise."""

    minutes: float = 90.0
    batch: int = 8
    learning_rate: float = 1e-3
    shares: tuple[float, float, float] = (0.6, 0.3, 0.1)
    drop_guidance: float = 0.06
    drop_text: float = 0.1
    worn: float = 0.35
    context_noise: float = 0.15
    own_context: float = 0.3
    sigma_shift: float = 1.5
    from_noise: float = 0.6
    hole_weight: float = 0.2
    adversarial: float = 0.4
    judged: float = 0.6
    critic_rate: float = 5e-4
    sampling_steps: int = 1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class SegmentBatch:
    """latents [B, C, N, h, w]; context: the same, blurred in some worn segments; guidance [B, C + 1, N - 1, h, w] of latents
    2..N; text [B, T, D]; wear [B]: how much of the detail guidance has lost, 0 to 1."""

    latents: Tensor
    context: Tensor
    guidance: Tensor
    text: Tensor
    wear: Tensor


class SegmentReader:
    """Turns stored segments into training batches. worn: as of `DiTTraining`, for random batches."""

    def __init__(self, sets: Sequence[SegmentSet], vae: PatchVAE, encoder: TextEncoder, worn: float = 0.0) -> None:
        self.sets = list(sets)
        self._worn = worn
        self._vae = vae
        self._encoder = encoder
        self._captions: dict[str, Tensor] = {}

    @torch.no_grad()
    def batch(self, size: int, random: np.random.Generator) -> SegmentBatch:
        """`size` random segments."""
        weights = np.array([len(one) for one in self.sets], np.float64)
        picked = [self.sets[i] for i in random.choice(len(self.sets), size, p=weights / weights.sum())]
        return self.rows([(one, int(random.integers(len(one)))) for one in picked], random)

    @torch.no_grad()
    def rows(self, rows: Sequence[tuple[SegmentSet, int]], random: np.random.Generator | None = None) -> SegmentBatch:
        """The given rows, mirrored and worn at random when `random` is given."""
        parts = []
        for one, row in rows:
            pictures, guidance, mask, caption = one.read(row)
            if random is not None and random.random() < 0.5:
                pictures, guidance, mask = pictures[:, :, ::-1], guidance[:, :, ::-1], mask[:, :, ::-1]
            true, shown = to_pixels(pictures), to_pixels(guidance)
            latents = context = self._vae.encode(true)
            wear = 0.0
            if random is not None and random.random() < self._worn:
                wear = random.uniform(0.1, 1.0)
                sigma = wear * _WORN_BLUR
                shown = fade(blur(shown, sigma), random.uniform(_WORN_CONTRAST, 1.0))
                if random.random() < 0.5:
                    context = self._vae.encode(blur(true, sigma))
            known = coverage(torch.from_numpy(np.ascontiguousarray(mask)))
            hint = torch.cat([self._vae.project(shown), known], dim=1)
            parts.append((latents, context, hint, self._text(caption), torch.tensor([wear])))
        return SegmentBatch(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _text(self, caption: str) -> Tensor:
        if caption not in self._captions:
            self._captions[caption] = self._encoder.embed(caption)[None]
        return self._captions[caption]


def predict_group(
    dit: DiT, batch: SegmentBatch, timeline: Timeline, group: Group, sigma: Tensor, noise: Tensor, context: Tensor
) -> tuple[Tensor, Tensor]:
    """(predicted, true) clean latents [B, C, F, h, w] of a group at noise level `sigma` [B]; context [B, C, N, h, w]."""
    members, order = timeline.members(group), timeline.visible(group)
    of = lambda latents, indices: latents[:, :, [index - 1 for index in indices]]  # noqa: E731
    guidance = batch.guidance[:, :, [index - 2 for index in members]]
    text = dit.read_text(batch.text)
    visible = [
        visible_context(dit, timeline, group, of(context, order), text),
        dit.read_guidance(guidance, members, text),
    ]
    clean = of(batch.latents, members)
    level = sigma.view(-1, 1, 1, 1, 1)
    noisy = (1 - level) * clean + level * of(noise, members)
    return dit.predict_clean(noisy, sigma, members, text, KVCache.joined(visible), guidance), clean


@torch.no_grad()
def with_own_plan(dit: DiT, batch: SegmentBatch, timeline: Timeline, noise: Tensor, context: Tensor) -> Tensor:
    """`context` [B, C, N, h, w] with its planned latents as `dit` makes them from it in one step."""
    planned, _ = predict_group(dit, batch, timeline, Group.PLAN, torch.ones(len(noise)), noise, context)
    own = context.clone()
    own[:, :, [index - 1 for index in timeline.members(Group.PLAN)]] = planned
    return own


def train_dit(
    folder: Path,
    reader: SegmentReader,
    weights: Tensor,
    evaluate: Callable[[DiT], dict[str, float]],
    settings: DiTTraining,
    config: DiTConfig,
    latents: int,
    export: Path,
    *,
    refresh: Callable[[SegmentReader], None] = lambda reader: None,
    every: int = 1000,
) -> None:
    """Train until the time is spent; resumes. weights [C]: of each channel in the loss. Exports averaged weights."""
    torch.manual_seed(settings.seed)
    timeline = Timeline.of(latents, ChainMode.T_C)
    dit = DiT(config)
    run = Run(
        folder, dit, learning_rate=settings.learning_rate, total_seconds=60 * settings.minutes, save_every=math.inf
    )
    run.optimiser = MuonAdamW(dit.parameters(), settings.learning_rate)
    weights = weights / weights.mean()
    critic = LatentCritic(weights)
    critics = Run(
        folder / "critic",
        critic,
        learning_rate=settings.critic_rate,
        total_seconds=run.total_seconds,
        betas=(0.0, 0.99),
        save_every=math.inf,
    )
    # The critic is written first: where there is a network there is its critic.
    if run.resume():
        critics.resume()
    saved = run.seconds
    random = np.random.default_rng([settings.seed, run.step])
    generator = torch.Generator().manual_seed(settings.seed + run.step)
    weights = weights.view(1, -1, 1, 1, 1)
    history: defaultdict[str, list[float]] = defaultdict(list)
    while not run.finished:
        batch = reader.batch(settings.batch, random)
        batch = _drop(batch, settings, random)
        group = GROUPS[random.choice(3, p=settings.shares)]
        even = torch.rand(settings.batch, generator=generator)
        sigma = settings.sigma_shift * even / (1 + (settings.sigma_shift - 1) * even)
        sigma[torch.rand(settings.batch, generator=generator) < settings.from_noise] = 1.0
        noise = torch.randn(batch.latents.shape, generator=generator)
        spoil = settings.context_noise * torch.rand(settings.batch, generator=generator).view(-1, 1, 1, 1, 1)
        context = batch.context + spoil * torch.randn(batch.latents.shape, generator=generator)
        invented = group is Group.PLAN
        if not invented and random.random() < settings.own_context:
            context, invented = with_own_plan(dit, batch, timeline, noise, context), True
        predicted, clean = predict_group(dit, batch, timeline, group, sigma, noise, context)
        hint = batch.guidance[:, :, [index - 2 for index in timeline.members(group)]]
        unknown, start = 1 - hint[:, -1:], (sigma == 1).view(-1, 1, 1, 1, 1) & invented
        lost = torch.maximum(unknown, batch.wear.view(-1, 1, 1, 1, 1))
        matters = weights * (1 - (1 - settings.hole_weight) * lost * start)
        error = (matters * (predicted - clean).square()).mean()
        figures = {"error": error}
        loss = error
        if invented:
            judged = settings.judged + (1 - settings.judged) * lost
            made = mean_where(critic.judge(predicted, unknown), judged)
            loss = loss - settings.adversarial * min(1.0, critics.step / CRITIC_WARM_UP) * made
            figures["made"] = made
        run.update(loss)
        critics.seconds = run.seconds
        if invented:
            figures["critic"] = critic_loss(critic, predicted, clean, unknown, judged)
            critics.update(figures["critic"])
        figures["guidance"] = (matters * (hint[:, :-1] - clean).square()).mean()
        for name, value in figures.items():
            history[name].append(float(value.detach()))
        if run.step % 100 == 0:
            run.log(**{name: sum(values) / len(values) for name, values in history.items()})
            history.clear()
            refresh(reader)
        if run.seconds - saved > SAVE_EVERY_S or run.finished:
            critics.save()
            run.save()
            saved = run.seconds
        if run.step % every == 0 or run.finished:
            averaged = DiT(config)
            averaged.load_state_dict(run.average)
            run.log(**evaluate(averaged.eval()))
            save_network(export, "dit", averaged, sampling=Sampling(settings.sampling_steps), step=str(run.step))


def _drop(batch: SegmentBatch, settings: DiTTraining, random: np.random.Generator) -> SegmentBatch:
    size = len(batch.latents)
    seen = torch.from_numpy(random.random(size) >= settings.drop_guidance).view(-1, 1, 1, 1, 1)
    read = torch.from_numpy(random.random(size) >= settings.drop_text).view(-1, 1, 1)
    return replace(batch, guidance=batch.guidance * seen, text=batch.text * read)
