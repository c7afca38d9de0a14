"""Teacher-forced training of the diffusion transformer on groups of segments (paper 3.2; REFERENCE: MMPL).

The loss is on the clean latent, each channel weighted by the pixel variance that it carries, since the latents themselves are
whitened; what no recorded key frame tells must also pass a critic, most of all where the memory knows nothing
(`teleworld/training/critic.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from teleworld.generation.model import Sampling, save_network
from teleworld.models.dit import DiT, DiTConfig
from teleworld.training.critic import LatentCritic, critic_loss, mean_where
from teleworld.training.draws import Drawing, Draws
from teleworld.training.loop import Run
from teleworld.training.muon import MuonAdamW
from teleworld.training.segment_reader import SegmentReader

SAVE_EVERY_S = 180.0
CRITIC_WARM_UP = 200


@dataclass(frozen=True)
class DiTTraining:
    """Settings of a run. drawing: how steps are drawn. hole_weight: of squared error at noise level 1 in cells of which the
    memory shows nothing, or nothing but fog, unless recorded key frames around them tell what they hold. adversarial: weight
    of the critic, at every noise level (at level 1 alone its pull makes confetti of what is made up); judged: how much it
    counts in cells that the memory shows unworn; critic_rate: its learning rate. sampling_steps: written into the checkpoint.
    """

    minutes: float = 90.0
    learning_rate: float = 1e-3
    drawing: Drawing = field(default_factory=Drawing)
    hole_weight: float = 0.2
    adversarial: float = 0.4
    judged: float = 0.6
    critic_rate: float = 5e-4
    sampling_steps: int = 1
    seed: int = 0


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
    every: int = 1000,
) -> None:
    """Train until the time is spent; resumes. weights [C]: of each channel in the loss. Exports averaged weights."""
    torch.manual_seed(settings.seed)
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
    draws = Draws(reader, settings.drawing, latents, settings.seed, run.step)
    weights = weights.view(1, -1, 1, 1, 1)
    history: defaultdict[str, list[float]] = defaultdict(list)
    while not run.finished:
        draw = draws.next(dit)
        predicted, clean, hint = draw.predict(dit), draw.clean, draw.guidance
        unknown, start = 1 - hint[:, -1:], draw.from_noise.view(-1, 1, 1, 1, 1) & draw.invented
        lost = torch.maximum(unknown, draw.batch.wear.view(-1, 1, 1, 1, 1))
        matters = weights * (1 - (1 - settings.hole_weight) * lost * start)
        error = (matters * (predicted - clean).square()).mean()
        figures = {"error": error}
        loss = error
        if draw.invented:
            judged = settings.judged + (1 - settings.judged) * lost
            made = mean_where(critic.judge(predicted, unknown), judged)
            loss = loss - settings.adversarial * min(1.0, critics.step / CRITIC_WARM_UP) * made
            figures["made"] = made
        run.update(loss)
        critics.seconds = run.seconds
        if draw.invented:
            figures["critic"] = critic_loss(critic, predicted, clean, unknown, judged)
            critics.update(figures["critic"])
        figures["guidance"] = (matters * (hint[:, :-1] - clean).square()).mean()
        for name, value in figures.items():
            history[name].append(float(value.detach()))
        if run.step % 100 == 0:
            run.log(**{name: sum(values) / len(values) for name, values in history.items()})
            history.clear()
        if run.seconds - saved > SAVE_EVERY_S or run.finished:
            critics.save()
            run.save()
            saved = run.seconds
        if run.step % every == 0 or run.finished:
            averaged = DiT(config)
            averaged.load_state_dict(run.average)
            run.log(**evaluate(averaged.eval()))
            save_network(export, "dit", averaged, sampling=Sampling(settings.sampling_steps), step=str(run.step))
