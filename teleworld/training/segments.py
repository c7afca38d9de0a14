"""Training samples for planner, populator and decoder: a segment of a recording beside what the memory would render for it.

For each segment the 4D memory is built from earlier key frames of the walk and rendered at the recorded cameras. Their depth
is the recorded one with the errors that the real loop has (noisy depth, missed movers, soft pictures), or what a trained
geometry network measures beside the memory that it made so far. Made once, read by all trainings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from teleworld.memory.fill import fill
from teleworld.memory.fusion import Observation, fuse
from teleworld.memory.points import Field
from teleworld.memory.splat import render
from teleworld.training.dataset import Episode
from teleworld.world.camera import CameraPath

FRAMES = 20


@dataclass(frozen=True)
class Corruption:
    """Errors that a simulated memory has. Relative depth errors: one per key frame, and a smooth field of them."""

    scale_error: float = 0.03
    smooth_error: float = 0.03
    clean: float = 0.3
    soften: float = 0.5
    miss_movers: float = 0.2


class SegmentSet:
    """The segments of one episode: `starts` [n], guidance uint8 [n, 20, H, W, 3], packed masks uint8 [n, 20, H, W / 8]."""

    def __init__(self, folder: Path, episode: Episode) -> None:
        self.folder = folder
        self.episode = episode

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """First frame of each segment, the prefix."""
        return np.load(self.folder / "starts.npy")

    @cached_property
    def guidance(self) -> NDArray[np.uint8]:
        """Rendered pictures. What is stored in their holes does not count: `shown` fills them."""
        return np.load(self.folder / "guidance.npy", mmap_mode="r")

    @cached_property
    def masks(self) -> NDArray[np.uint8]:
        """Bits of the pixels that the memory has seen."""
        return np.load(self.folder / "masks.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.starts)

    def shown(self, row: int, frames: slice = slice(None)) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(guidance uint8 [F, H, W, 3] with its holes filled, mask 0 or 255 uint8 [F, H, W]) of some frames of a segment."""
        mask = np.unpackbits(self.masks[row, frames], axis=-1) * np.uint8(255)
        return fill(np.array(self.guidance[row, frames]), mask), mask

    def read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], str]:
        """(pictures uint8 [21, H, W, 3], guidance uint8 [20, H, W, 3], mask 0 or 255 uint8 [20, H, W], caption)."""
        start = int(self.starts[row])
        pictures = np.array(self.episode.rgb[start : start + FRAMES + 1])
        return pictures, *self.shown(row), self.episode.caption(start + FRAMES // 2)

    def decoder_window(
        self, row: int, chunk: int, chunks: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        """A still frame and `chunks` four-frame chunks behind it, from chunk number `chunk` of the segment on.

        (pictures, guidance uint8 [1 + 4 * chunks, H, W, 3], mask uint8 [1 + 4 * chunks, H, W]); no guidance for the still.
        """
        pictures, guidance, mask, _ = self.read(row)
        shown = slice(4 * chunk, 4 * (chunk + chunks))
        return (
            pictures[4 * chunk : 4 * (chunk + chunks) + 1],
            np.concatenate([pictures[:1] * 0, guidance[shown]]),
            np.concatenate([mask[:1] * 0, mask[shown]]),
        )


Measure = Callable[[Field, NDArray[np.uint8], CameraPath, tuple[int, ...]], Observation]
"""Sees key frames beside a memory: `Reconstructor.measure`."""


def simulate(
    episode: Episode, start: int, random: np.random.Generator, corruption: Corruption, measure: Measure | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What a memory shows of the frames behind `start`, uint8 [20, H, W, 3], black in holes, and its mask uint8 [20, H, W];
    depth is recorded or measured."""
    spacing = int(random.integers(6, 13))
    recent = [start - spacing * number for number in range(int(random.integers(0, 6)), 0, -1)]
    elsewhere: list[int] = []
    if random.random() < 0.5:
        elsewhere = random.integers(0, max(start - 40, 1), size=int(random.integers(0, 5))).tolist()
    keys = sorted({frame for frame in (*elsewhere, *recent) if 0 <= frame < start}) + [start]
    clean = random.random() < corruption.clean
    field = Field()
    for first in range(0, len(keys), 2):
        frames = np.array(keys[first : first + 2])
        pictures = np.array(episode.rgb[frames])
        if not clean and random.random() < corruption.soften:
            pictures = _soften(pictures)
        if measure is None:
            seen = _recorded(
                episode, frames, pictures, random, Corruption(0, 0, miss_movers=0) if clean else corruption
            )
        else:
            seen = measure(field, pictures, episode.cameras[frames], tuple(frames.tolist()))
        field = fuse(field, seen)[1]
    height, width = episode.rgb.shape[1:3]
    view = render(field, episode.cameras[slice(start + 1, start + 1 + FRAMES)], width, height)
    return view.rgb, view.mask


def _recorded(
    episode: Episode,
    frames: NDArray[np.int64],
    pictures: NDArray[np.uint8],
    random: np.random.Generator,
    corruption: Corruption,
) -> Observation:
    depth, moving = episode.depth(frames), episode.dynamic(frames)
    depth = depth * _depth_error(depth.shape, random, corruption)
    if random.random() < corruption.miss_movers:
        moving = np.zeros_like(moving)
    known = (depth > 0).astype(np.float32)
    return Observation(pictures, depth, known, moving, episode.cameras[frames], tuple(frames.tolist()))


def build(
    episodes: Sequence[Episode],
    root: Path,
    *,
    stride: int = 10,
    seed: int = 0,
    corruption: Corruption = Corruption(),
    measure: Measure | None = None,
) -> int:
    """Make the segments of every episode that has none yet under `root`; returns how many were made."""
    made = 0
    for episode in episodes:
        folder = root / episode.folder.name
        if folder.exists():
            continue
        random = np.random.default_rng([seed, episode.manifest.seed, len(episode)])
        starts = np.arange(int(random.integers(0, stride)), len(episode) - FRAMES, stride)
        with torch.inference_mode():
            results = [simulate(episode, int(start), random, corruption, measure) for start in starts]
        temporary = root / f".{episode.folder.name}.{os.getpid()}"
        temporary.mkdir(parents=True, exist_ok=True)
        np.save(temporary / "starts.npy", starts)
        np.save(temporary / "guidance.npy", np.stack([guidance for guidance, _ in results]))
        np.save(temporary / "masks.npy", np.packbits(np.stack([mask for _, mask in results]) > 0, axis=-1))
        os.replace(temporary, folder)
        made += len(starts)
    return made


def load_sets(episodes: Sequence[Episode], root: Path) -> list[SegmentSet]:
    """The finished segment sets of `episodes`."""
    return [SegmentSet(root / e.folder.name, e) for e in episodes if (root / e.folder.name).exists()]


def _depth_error(shape: tuple[int, ...], random: np.random.Generator, corruption: Corruption) -> NDArray[np.float32]:
    frames, height, width = shape
    coarse = random.normal(0, corruption.smooth_error, (frames, 5, 7))
    rows, columns = np.linspace(0, 4, height), np.linspace(0, 6, width)
    smooth = np.stack([_bilinear(grid, rows, columns) for grid in coarse])
    return np.exp(smooth + random.normal(0, corruption.scale_error, (frames, 1, 1))).astype(np.float32)


def _bilinear(
    grid: NDArray[np.float64], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    across = np.stack([np.interp(columns, np.arange(grid.shape[1]), line) for line in grid])
    return np.stack([np.interp(rows, np.arange(grid.shape[0]), line) for line in across.T], axis=1)


def _soften(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A 3x3 binomial blur, about what a small decoder loses."""
    wide = np.pad(pictures.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4
    return ((rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4 + 0.5).astype(np.uint8)
