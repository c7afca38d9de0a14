"""The recipes of the nano networks: which data, which settings and which measurements make each checkpoint.

One call trains one network from recordings on disk until its minutes are spent, resuming what the run's folder holds.
The order matters: `dit` and `vsr` read the `vae` checkpoint of the same model folder, and `dmd` distils its `dit`. Segments
beside simulated memory guidance, which all but `geometry` learn from, are made on first use next to the recordings and kept;
train `geometry` first, and they also show the errors of its depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from teleworld.generation.model import Model
from teleworld.generation.pixels import hint_from, to_pixels
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.models.dit import NANO, DiT
from teleworld.models.geometry import GeometryNetwork
from teleworld.models.stream_vae import StreamVAE
from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.models.super_resolution import SuperResolution, SuperResolutionConfig
from teleworld.models.text import TextEncoder
from teleworld.training.dataset import Episode, load_split
from teleworld.training.degradation import patch_loss, vae_round_trip
from teleworld.training.dit import DiTTraining, train_dit
from teleworld.training.dmd import Distillation, distil
from teleworld.training.draws import GROUPS, Draw
from teleworld.training.geometry import GeometryTraining, evaluate_geometry, train_geometry
from teleworld.training.segment_reader import SegmentReader
from teleworld.training.segments import Measure, SegmentSet, build, load_sets
from teleworld.training.super_resolution import SuperResolutionTraining, measure, train_super_resolution
from teleworld.training.vae import VAETraining, psnr, train_vae
from teleworld.world.errors import CheckpointError, InvalidInput, NotFound
from teleworld.world.spec import spec_of
from teleworld.world.timeline import ChainMode, Timeline

TRAIN, HELD_OUT, UNSEEN = "train", "E", "U"
STRIDES = {TRAIN: 12, HELD_OUT: 24}
STILL_SHARE = 0.15
Windows = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Job:
    """recordings: made by `record`. run: resumable state. export: the model folder that checkpoints go to."""

    model: str
    recordings: Path
    run: Path
    export: Path
    minutes: float
    seed: int = 0


def train(network: str, job: Job, said: Callable[[str], None] = lambda line: None) -> None:
    """Train one of RECIPES. `said` hears what is prepared before the first step; the run logs its own figures.

    Raises InvalidInput for an unknown network, NotFound without recordings, CheckpointError without the VAE it needs.
    """
    if network not in RECIPES:
        raise InvalidInput("network", f"unknown network {network!r}; known: {', '.join(RECIPES)}")
    if job.minutes <= 0:
        raise InvalidInput("minutes", "must be more than 0")
    job.export.mkdir(parents=True, exist_ok=True)
    RECIPES[network](job, said)


def _train_vae(job: Job, said: Callable[[str], None]) -> None:
    settings = VAETraining(minutes=job.minutes, seed=job.seed, batch=4)
    episodes, sets = load_split(job.recordings, TRAIN), _segments(job, TRAIN, said)
    held_out = _segments(job, HELD_OUT, said)

    def windows(random: np.random.Generator) -> Windows:
        if random.random() >= STILL_SHARE:
            one = sets[random.integers(len(sets))]
            first = int(random.integers(6 - settings.chunks))
            return one.decoder_window(int(random.integers(len(one))), first, settings.chunks)
        episode, frames = episodes[random.integers(len(episodes))], 1 + 4 * settings.chunks
        start = random.integers(len(episode) - frames)
        pictures = np.array(episode.rgb[start : start + frames])
        return pictures, np.zeros_like(pictures), np.zeros(pictures.shape[:3], np.uint8)

    train_vae(
        job.run, episodes, windows, lambda vae: measure_vae(vae, held_out), settings, PatchVAEConfig(), job.export
    )


@dataclass(frozen=True, eq=False)
class _Latents:
    """What a recipe of the transformer reads: the codec, training and held-out segments, latents in a segment."""

    vae: PatchVAE
    reader: SegmentReader
    tester: SegmentReader
    count: int

    @classmethod
    def of(cls, job: Job, said: Callable[[str], None], text_length: int, worn: float = 0.0) -> _Latents:
        vae, encoder = _vae(job), TextEncoder(text_length)
        reader = SegmentReader(_segments(job, TRAIN, said), vae, encoder, worn)
        tester = SegmentReader(_segments(job, HELD_OUT, said), vae, encoder)
        return cls(vae, reader, tester, spec_of(job.model).latents)

    @property
    def weights(self) -> Tensor:
        """[C]: a channel counts by how much of the picture it carries, between its amplitude and its energy."""
        return self.vae.scale.pow(1.5)

    def measure(self, dit: DiT) -> dict[str, float]:
        """See `measure_dit`."""
        return measure_dit(dit, self.tester, self.vae, self.count)


def _train_dit(job: Job, said: Callable[[str], None]) -> None:
    settings = DiTTraining(minutes=job.minutes, seed=job.seed, learning_rate=1.5e-3)
    data = _Latents.of(job, said, NANO.text_length, settings.drawing.worn)
    train_dit(job.run, data.reader, data.weights, data.measure, settings, NANO, data.count, job.export)


def _train_dmd(job: Job, said: Callable[[str], None]) -> None:
    settings = Distillation(minutes=job.minutes, seed=job.seed)
    teacher = Model(spec_of(job.model), job.export).dit
    said(f"the teacher is {job.export / 'dit.safetensors'}; the generator goes to {job.run / 'export'}")
    data = _Latents.of(job, said, teacher.config.text_length)
    distil(job.run, data.reader, teacher, data.measure, settings, data.count, job.run / "export")


def _train_geometry(job: Job, said: Callable[[str], None]) -> None:
    settings = GeometryTraining(minutes=job.minutes, seed=job.seed)
    file = job.export / "geometry.safetensors"

    def evaluate(network: GeometryNetwork) -> dict[str, float]:
        return _per_split(job, lambda episodes: evaluate_geometry(network, episodes))

    train_geometry(job.run, lambda: load_split(job.recordings, TRAIN), evaluate, settings, file)


def _train_vsr(job: Job, said: Callable[[str], None]) -> None:
    settings = SuperResolutionTraining(minutes=job.minutes, seed=job.seed)
    held_out = _segments(job, HELD_OUT, said)

    def codec() -> StreamVAE | None:
        try:
            return _vae(job)
        except CheckpointError:
            said("there is no vae yet: its losses are imitated")
            return None

    def evaluate(network: SuperResolution, vae: StreamVAE | None) -> dict[str, float]:
        random = np.random.default_rng(job.seed)
        spoil = (lambda low, hint: vae_round_trip(low, vae, hint)) if vae else (lambda low, _: patch_loss(low, random))
        return measure(network, held_out, spoil)

    train_super_resolution(
        job.run,
        lambda: _segments(job, TRAIN, said),
        settings,
        SuperResolutionConfig(guided=True),
        job.export / "super_resolution.safetensors",
        vae=codec,
        evaluate=evaluate,
    )


RECIPES: dict[str, Callable[[Job, Callable[[str], None]], None]] = {
    "vae": _train_vae,
    "dit": _train_dit,
    "dmd": _train_dmd,
    "geometry": _train_geometry,
    "vsr": _train_vsr,
}


@torch.inference_mode()
def measure_vae(vae: PatchVAE, sets: Sequence[SegmentSet], windows: int = 12) -> dict[str, float]:
    """Mean PSNR in dB over fixed random windows: decoded with guidance, without it, and by the linear codec alone."""
    random = np.random.default_rng(5)
    rows = []
    for _ in range(windows):
        one = sets[int(random.integers(len(sets)))]
        window = one.decoder_window(int(random.integers(len(one))), int(random.integers(4)), 2)
        pixels, hint = to_pixels(window[0]), hint_from(torch.from_numpy(window[1][1:])).behind_still()
        latents = vae.encode(pixels)
        truth = pixels[:, :, 1:]
        decoded = (vae.decode(latents, hint)[:, :, 1:], vae.decode(latents)[:, :, 1:], vae.unproject(latents)[:, :, 4:])
        rows.append([psnr(out, truth) for out in decoded])
    return dict(zip(("guided", "unguided", "linear"), np.mean(rows, axis=0).tolist(), strict=True))


@torch.inference_mode()
def measure_dit(dit: DiT, reader: SegmentReader, vae: PatchVAE, latents: int, rows: int = 48) -> dict[str, float]:
    """PSNR in dB, in the linear codec's pixels, of each group made in one step from recorded context, and of its guidance;
    `holes`: of the cells that the memory does not know."""
    timeline, random = Timeline.of(latents, ChainMode.T_C), np.random.default_rng(7)
    picked = [reader.sets[int(random.integers(len(reader.sets)))] for _ in range(rows)]
    batch = reader.rows([(one, int(random.integers(len(one)))) for one in picked])
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    figures = {}
    for group in GROUPS:
        draw = Draw(batch, timeline, group, torch.ones(rows), noise, batch.latents, invented=False)
        hint, predicted, truth = draw.guidance, draw.predict(dit), vae.unproject(draw.clean)
        unknown = (hint[:, -1:] < 0.5).repeat_interleave(vae.frames, dim=2)
        unknown = unknown.repeat_interleave(vae.spatial_stride, dim=3).repeat_interleave(vae.spatial_stride, dim=4)
        holes, name = unknown.expand_as(truth), group.name.lower()
        for suffix, picture in (("", vae.unproject(predicted)), ("_guidance", vae.unproject(hint[:, :-1]))):
            figures[f"{name}{suffix}"] = psnr(picture, truth)
            figures[f"{name}_holes{suffix}"] = psnr(picture[holes], truth[holes])
    return figures


def _vae(job: Job) -> PatchVAE:
    vae = Model(spec_of(job.model), job.export).vae
    if not isinstance(vae, PatchVAE):
        raise CheckpointError("vae", "is not the linear patch codec that this recipe is for")
    return vae


def _segments(job: Job, split: str, said: Callable[[str], None]) -> list[SegmentSet]:
    """Segments whose memory was made from recorded depth, and, once there is a geometry network, others from its own."""
    episodes, root = load_split(job.recordings, split), job.recordings / "segments"
    sets = _made(episodes, root / split, STRIDES[split], None, said)
    if (job.export / "geometry.safetensors").exists():
        reconstructor = Reconstructor(Model(spec_of(job.model), job.export), Memory(LocalMemoryStore()))
        sets += _made(episodes, root / f"{split}-measured", 2 * STRIDES[split], reconstructor.measure_recorded, said)
    return sets


def _made(
    episodes: Sequence[Episode], root: Path, stride: int, measure: Measure | None, said: Callable[[str], None]
) -> list[SegmentSet]:
    missing = [episode for episode in episodes if not (root / episode.folder.name).exists()]
    for number, episode in enumerate(missing):
        said(f"guidance in {root.name}: episode {number + 1} of {len(missing)}")
        build([episode], root, stride=stride, measure=measure)
    return load_sets(episodes, root)


def _per_split(job: Job, figures: Callable[[Sequence[Episode]], dict[str, float]]) -> dict[str, float]:
    result: dict[str, float] = {}
    for split in (HELD_OUT, UNSEEN):
        try:
            episodes = load_split(job.recordings, split)
        except NotFound:
            continue
        result |= {f"{split}_{name}": value for name, value in figures(episodes).items()}
    return result
