"""Teaching a one-step transformer the other noise levels, so that it can be a teacher (paper 3.5).

Below level 1 the target is the truth, under the flow-matching loss: squared error of the velocity, which is that of the
clean latent over sigma squared. At level 1 it is what the network answered before: its critic made it choose there where
squared error would make fog, and a network that learns both at once from the truth makes confetti.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from teleworld.generation.model import Sampling, save_network
from teleworld.models.dit import DiT
from teleworld.training.draws import Draw, Drawing, Draws
from teleworld.training.loop import Run
from teleworld.training.muon import MuonAdamW
from teleworld.training.segment_reader import SegmentReader


@dataclass(frozen=True)
class MultistepTraining:
    """Settings of a run. drawing: how steps are drawn. flow_cap: largest weight of the loss, whose 1 / sigma^2 would let the
    cleanest levels drown all others. sampling_steps: written into the checkpoint."""

    minutes: float = 60.0
    learning_rate: float = 5e-4
    drawing: Drawing = field(default_factory=lambda: Drawing(from_noise=0.3, drop_guidance=0.03))
    flow_cap: float = 16.0
    sampling_steps: int = 1
    seed: int = 0


def flow_loss(draw: Draw, predicted: Tensor, start: DiT, weights: Tensor, cap: float) -> Tensor:
    """Weighted squared error over sigma^2, of the truth and, from noise, of what `start` answers. weights [C]."""
    target, from_noise = draw.clean, draw.from_noise
    if from_noise.any():
        with torch.no_grad():
            target = target.index_put((from_noise,), draw.take(from_noise).predict(start))
    levels = draw.sigma.square().reciprocal().clamp_max(cap).view(-1, 1, 1, 1, 1)
    return (levels * weights.view(1, -1, 1, 1, 1) * (predicted - target).square()).mean()


def train_multistep(
    folder: Path,
    reader: SegmentReader,
    start: DiT,
    weights: Tensor,
    evaluate: Callable[[DiT], dict[str, float]],
    settings: MultistepTraining,
    latents: int,
    export: Path,
    *,
    every: int = 1000,
) -> None:
    """Train a copy of `start`, which stays as it is, until the time is spent; resumes. weights [C]: of each channel in the
    loss. Exports averaged weights."""
    torch.manual_seed(settings.seed)
    export.mkdir(parents=True, exist_ok=True)
    start.eval().requires_grad_(False)
    dit = copy.deepcopy(start).train().requires_grad_(True)
    run = Run(folder, dit, learning_rate=settings.learning_rate, total_seconds=60 * settings.minutes)
    run.optimiser = MuonAdamW(dit.parameters(), settings.learning_rate)
    run.resume()
    draws = Draws(reader, settings.drawing, latents, settings.seed, run.step)
    weights = weights / weights.mean()
    history: defaultdict[str, list[float]] = defaultdict(list)
    while not run.finished:
        draw = draws.next(dit)
        predicted = draw.predict(dit)
        loss = flow_loss(draw, predicted, start, weights, settings.flow_cap)
        run.update(loss)
        history["flow"].append(float(loss.detach()))
        history["error"].append(float((predicted.detach() - draw.clean).square().mean()))
        if run.step % 100 == 0:
            run.log(**{name: sum(values) / len(values) for name, values in history.items()})
            history.clear()
        if run.step % every == 0 or run.finished:
            averaged = copy.deepcopy(start)
            averaged.load_state_dict(run.average)
            run.log(**evaluate(averaged))
            save_network(export, "dit", averaged, sampling=Sampling(settings.sampling_steps), step=str(run.step))
        if run.finished:
            run.save()
