"""Training of the geometry network on the engine's own depth, masks and poses.

One step draws a batch of key frames. In most batches the dynamic mask is learned from the attention of an undisturbed
pass; in the others the true dynamic tokens lend no keys, so that depth learns the second pass. Confidence learns the
size of the depth error without ever changing the depth: a network that may buy low loss with low confidence gives up on
the hard pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from teleworld.models.checkpoint import save_safetensors
from teleworld.models.geometry.config import NANO_GEOMETRY, GeometryConfig
from teleworld.models.geometry.heads import bin_centres, normalised_log
from teleworld.models.geometry.network import GeometryNetwork, GeometryOutput, rebase
from teleworld.models.geometry.saliency import dynamic_tokens
from teleworld.training.dataset import Episode
from teleworld.training.geometry_data import GeometryBatch, SampleStyle, crop_batch, draw_batch
from teleworld.training.loop import Run
from teleworld.training.muon import MuonAdamW

# Where the truth is unknown (the sky) the confidence is taught this log-depth error.
_UNKNOWN_ERROR = 1.5


@dataclass(frozen=True)
class GeometryTraining:
    """Settings of a run.

    frames: key frames a step (samples x frames a sample). suppressed: share of second-pass batches. cropped: share of
    batches of crops (height, width), which show twice as many walks for the same work. starts: share of batches of single pictures
    without guidance, as a world starts.
    lengths: share of batches with 1, 2, 3, ... key frames a sample. evaluate_every: seconds of training.
    """

    minutes: float = 90.0
    frames: int = 8
    lengths: tuple[float, ...] = (0.2, 0.3, 0.4, 0.1)
    suppressed: float = 0.3
    cropped: float = 0.2
    starts: float = 0.5
    crop: tuple[int, int] = (64, 104)
    learning_rate: float = 3e-3
    evaluate_every: float = 300.0
    style: SampleStyle = field(default_factory=SampleStyle)
    seed: int = 0


def geometry_loss(output: GeometryOutput, batch: GeometryBatch, saliency: bool) -> tuple[Tensor, dict[str, float]]:
    """The loss of a batch and its parts by name. `saliency`: whether the dynamic mask is learned from this pass."""
    known = batch.depth > 0
    error = output.log_depth - batch.depth.clamp_min(1e-3).log()
    size = error.abs().clamp_max(3.0)
    nearness = (torch.exp(-output.log_depth) - 1 / batch.depth.clamp_min(1e-3)).abs()
    # Squares teach the broad layout first, absolute differences the rest.
    depth = _mean(size + 0.5 * size.square(), known) + 0.3 * _mean(nearness, known)
    slope = sum((_slope_error(error, known, step) for step in (1, 2, 4)), torch.zeros(()))
    surprise = torch.where(known, size.detach(), torch.full_like(size, _UNKNOWN_ERROR))
    confidence = (output.confidence * surprise - output.confidence.log()).mean()
    camera = F.smooth_l1_loss(output.pose_correction, batch.correction, beta=0.02)
    loss = depth + 0.2 * slope + 0.03 * confidence + 0.5 * camera
    parts = {
        "log_error": _mean(size, known),
        "depth": depth,
        "slope": slope,
        "confidence": confidence,
        "camera": camera,
    }
    if output.bins is not None:
        parts["bins"] = _bin_loss(output.bins, batch.depth)
        loss = loss + 0.6 * parts["bins"]
    if saliency:
        parts["mask"] = _mask_loss(output.dynamic_logits, batch.dynamic.float())
        loss = loss + 0.3 * parts["mask"]
    return loss, {name: float(value.detach()) for name, value in parts.items()}


def train_geometry(
    folder: Path,
    episodes: Callable[[], Sequence[Episode]],
    evaluate: Callable[[GeometryNetwork], dict[str, float]],
    settings: GeometryTraining,
    export: Path,
    config: GeometryConfig = NANO_GEOMETRY,
) -> None:
    """Train until the time is spent; resumes from `folder`.

    `episodes` is asked anew at each evaluation, so that recordings may still grow. The averaged weights are written to
    `export` as fp16 at each evaluation, whole or not at all.
    """
    torch.manual_seed(settings.seed)
    network = GeometryNetwork(config)
    run = Run(folder, network, learning_rate=settings.learning_rate, total_seconds=60 * settings.minutes, decay=0.998)
    run.optimiser = MuonAdamW(network.parameters(), settings.learning_rate)
    run.resume()
    random = np.random.default_rng([settings.seed, run.step])
    walks, evaluated = episodes(), run.seconds
    history: dict[str, list[float]] = {}
    while not run.finished:
        parts = train_step(run, network, draw_training_batch(walks, random, settings), random, settings)
        for name, value in parts.items():
            history.setdefault(name, []).append(value)
        if run.step % 100 == 0:
            run.log(**{name: float(np.mean(values)) for name, values in history.items()})
            history.clear()
        if run.seconds - evaluated > settings.evaluate_every or run.finished:
            evaluated = run.seconds
            averaged = GeometryNetwork(config).eval()
            averaged.load_state_dict(run.average)
            export_geometry(export, averaged, run.step)
            run.log(**evaluate(averaged))
            walks = episodes()
    run.save()


def draw_training_batch(
    episodes: Sequence[Episode], random: np.random.Generator, settings: GeometryTraining
) -> GeometryBatch:
    """A batch of start pictures, or of one window length: whole pictures, or as many more crops as cost the same."""
    if random.random() < settings.starts:
        start = replace(settings.style, bare=1.0, clean=0.8, wrong_pose=0.0)
        return draw_batch(episodes, random, settings.frames, 1, start)
    length = 1 + int(random.choice(len(settings.lengths), p=settings.lengths))
    if random.random() >= settings.cropped:
        return draw_batch(episodes, random, max(1, settings.frames // length), length, settings.style)
    batch = draw_batch(episodes, random, max(1, 2 * settings.frames // length), length, settings.style)
    (full_height, full_width), (height, width) = batch.depth.shape[-2:], settings.crop
    top, left = random.integers(full_height - height + 1), random.integers(full_width - width + 1)
    return crop_batch(batch, int(top), int(left), height, width)


def train_step(
    run: Run, network: GeometryNetwork, batch: GeometryBatch, random: np.random.Generator, settings: GeometryTraining
) -> dict[str, float]:
    """One optimiser step; returns the parts of the loss."""
    suppressed = None
    if random.random() < settings.suppressed:
        suppressed = dynamic_tokens(batch.dynamic.float(), network.config.patch, network.config.suppress_above)
    poses = rebase(batch.camera_to_world).float()
    output = network(batch.pictures, batch.intrinsics, poses, batch.guidance, suppressed)
    loss, parts = geometry_loss(output, batch, saliency=suppressed is None)
    run.update(loss)
    return parts


def export_geometry(path: Path, network: GeometryNetwork, step: int) -> None:
    """Write the weights as fp16 safetensors, which load into an fp32 network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half() for name, value in network.state_dict().items()}
    save_safetensors(path, tensors, {"kind": "geometry", "step": str(step)})


@torch.inference_mode()
def evaluate_geometry(
    network: GeometryNetwork, episodes: Sequence[Episode], windows: int = 24, frames: int = 3, seed: int = 1
) -> dict[str, float]:
    """Figures over fixed random windows of `episodes`, through `infer`.

    abs_rel_guided, abs_rel_bare: mean |z - z*| / z* with the memory's guidance and without any. mask_iou: of dynamic
    pixels at probability 0.5, over all windows together (half of them show something moving). within_10: share of
    guided pixels with less than 10 % error; confidence: the mean that the network claims for it.
    """
    totals: dict[str, list[float]] = {}
    common = union = 0
    for bare in (1.0, 0.0):
        style = SampleStyle(bare=bare, moving=0.5, wrong_pose=0.0, clean=0.5, spoil=0.7, flip=0.0)
        random = np.random.default_rng(seed)
        for _ in range(windows):
            batch = draw_batch(episodes, random, 1, frames, style)
            answer = network.infer(batch.pictures[0], batch.intrinsics[0], batch.camera_to_world[0], batch.guidance[0])
            truth, known = batch.depth[0], batch.depth[0] > 0
            error = ((answer.depth - truth).abs() / truth.clamp_min(1e-3))[known]
            totals.setdefault("abs_rel_bare" if bare else "abs_rel_guided", []).append(float(error.mean()))
            if bare:
                continue
            totals.setdefault("within_10", []).append(float((error < 0.1).float().mean()))
            totals.setdefault("confidence", []).append(float(answer.confidence[known].mean()))
            guess, moving = answer.dynamic > 0.5, batch.dynamic[0]
            common += int((guess & moving).sum())
            union += int((guess | moving).sum())
    figures = {name: float(np.mean(values)) for name, values in totals.items()}
    return {**figures, "mask_iou": common / max(union, 1)}


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp_min(1)


def _bin_loss(logits: Tensor, depth: Tensor) -> Tensor:
    """Cross-entropy of depth bins [B, S, bins, h, w] with the two bins around the true depth [B, S, 2h, 2w]."""
    truth = depth[..., ::2, ::2].flatten(0, 1)
    centres = bin_centres(logits.shape[2])
    place = (normalised_log(truth) - centres[0]) / (centres[1] - centres[0])
    place = place.clamp(0, len(centres) - 1.001)
    lower = place.floor().long()[:, None]
    share = place[:, None] - lower
    chances = logits.flatten(0, 1).log_softmax(1)
    entropy = -(1 - share) * chances.gather(1, lower) - share * chances.gather(1, lower + 1)
    return _mean(entropy[:, 0], truth > 0)


def _slope_error(error: Tensor, known: Tensor, step: int) -> Tensor:
    """Mean difference of the log-depth error between pixels `step` apart, where both are known."""
    total = torch.zeros(())
    for axis in (-1, -2):
        length = error.shape[axis] - step
        change = error.narrow(axis, step, length) - error.narrow(axis, 0, length)
        both = known.narrow(axis, step, length) & known.narrow(axis, 0, length)
        total = total + _mean(change.abs().clamp_max(1.0), both) / 2
    return total


def _mask_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy with moving pixels weighted up, plus the Dice distance over the batch (few pixels move)."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=torch.tensor(4.0))
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum() / (probability.sum() + truth.sum() + 50.0)
    return 4 * entropy + (1 - overlap) * float(truth.any())
