"""Recorded episodes for the training programs: lazily mapped arrays and seeded windows.

Nothing is read until it is asked for. Arrays are memory maps of plain files, so any number of processes share one
copy through the page cache; an `Episode` pickles as its folder. Low-resolution pictures, depth and masks are at
96x160; the 192x320 pictures are for super-resolution alone.

Split `U` holds maps that no training may touch: it must be asked for by name, and so must every split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from teleworld.training.recording.manifest import MANIFEST, Manifest, read_manifest
from teleworld.world.camera import CameraPath
from teleworld.world.errors import InvalidInput, NotFound

SPLITS = ("train", "E", "U", "L")


class Episode:
    """One recorded walk of `len(episode)` frames at 17.5 frames a second.

    All accessors take a slice or an index array, and copy nothing before it is applied.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: Manifest = read_manifest(folder)

    def __len__(self) -> int:
        return self.manifest.frames

    def __reduce__(self) -> tuple[type[Episode], tuple[Path]]:
        return Episode, (self.folder,)

    def __repr__(self) -> str:
        return f"Episode({self.manifest.split}/{self.folder.name}, {len(self)} frames)"

    @cached_property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """`[T, 96, 160, 3]` u8 pictures."""
        return self._map("rgb96")

    @cached_property
    def rgb_high(self) -> npt.NDArray[np.uint8]:
        """`[T, 192, 320, 3]` u8 pictures, of which `rgb` is the 2x2 average."""
        return self._map("rgb192")

    @cached_property
    def depth_half(self) -> npt.NDArray[np.float16]:
        """`[T, 96, 160]` f16 z-depth in metres as stored, 0 where unknown."""
        return self._map("depth")

    @cached_property
    def keys(self) -> npt.NDArray[np.uint8]:
        """`[T]` u8 bits of `Keys` held on the way into each frame; the first frame has none."""
        return self._meta["keys"]

    @cached_property
    def cameras(self) -> CameraPath:
        """Camera of every frame, intrinsics in pixels at 96x160."""
        return CameraPath(self._meta["camera_to_world"], self._meta["intrinsics"].astype(np.float64))

    def depth(self, frames: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """`[F, 96, 160]` f32 z-depth in metres, 0 where unknown (the sky)."""
        return self.depth_half[frames].astype(np.float32)

    def dynamic(self, frames: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """`[F, 96, 160]` bool, True where something moves (monsters, missiles, doors in motion)."""
        return np.unpackbits(self._packed[frames], axis=-1).astype(bool)

    def caption(self, frame: int) -> str:
        """The sentence that describes the frame's surroundings."""
        captions = self.manifest.captions
        return captions[min(frame // self.manifest.frames_per_caption, len(captions) - 1)] if captions else ""

    @cached_property
    def _packed(self) -> npt.NDArray[np.uint8]:
        return self._map("dynamic")

    @cached_property
    def _meta(self) -> dict[str, npt.NDArray[Any]]:
        with np.load(self.folder / "meta.npz") as file:
            return {name: file[name] for name in file.files}

    def _map(self, name: str) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array


@dataclass(frozen=True)
class Window:
    """`frames` neighbouring frames of an episode, from `start` on; a light handle until an accessor is called."""

    episode: Episode
    start: int
    frames: int

    @property
    def span(self) -> slice:
        """Its frames as a slice of the episode."""
        return slice(self.start, self.start + self.frames)

    @property
    def rgb(self) -> npt.NDArray[np.uint8]:
        """`[F, 96, 160, 3]` u8."""
        return np.array(self.episode.rgb[self.span])

    @property
    def rgb_high(self) -> npt.NDArray[np.uint8]:
        """`[F, 192, 320, 3]` u8."""
        return np.array(self.episode.rgb_high[self.span])

    @property
    def depth(self) -> npt.NDArray[np.float32]:
        """`[F, 96, 160]` f32 metres, 0 unknown."""
        return self.episode.depth(self.span)

    @property
    def dynamic(self) -> npt.NDArray[np.bool_]:
        """`[F, 96, 160]` bool."""
        return self.episode.dynamic(self.span)

    @property
    def cameras(self) -> CameraPath:
        """Cameras of the frames."""
        return self.episode.cameras[self.span]

    @property
    def keys(self) -> npt.NDArray[np.uint8]:
        """`[F]` u8."""
        return self.episode.keys[self.span]

    @property
    def caption(self) -> str:
        """Caption at the window's middle frame."""
        return self.episode.caption(self.start + self.frames // 2)


def load_split(root: Path, split: str) -> list[Episode]:
    """The complete episodes of a split, in order of map and seed. Episodes recorded later need another call.

    Raises:
        InvalidInput: no such split.
        NotFound: the split holds no episode.
    """
    if split not in SPLITS:
        raise InvalidInput("split", f"{split!r} is none of {', '.join(SPLITS)}")
    folders = [path.parent for path in (root / split).glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")]
    if not folders:
        raise NotFound(f"split {split} in {root.name}")
    return sorted(map(Episode, folders), key=lambda episode: (episode.manifest.map, episode.manifest.seed))


def sample_windows(
    episodes: Sequence[Episode], frames: int, seed: int, reader: int = 0, readers: int = 1
) -> Iterator[Window]:
    """Endless random windows, each start of each episode equally likely.

    Args:
        episodes: where to draw from; those shorter than a window are left out.
        frames: frames a window.
        seed: of the draw; the same seed gives the same windows.
        reader: number of this reader. The readers of a seed share one sequence and take turns, so that no two of
            them see the same draw and their union does not depend on how many there are.
        readers: number of readers.

    Raises:
        InvalidInput: no episode is long enough, or `reader` is out of range.
    """
    if not 0 <= reader < readers:
        raise InvalidInput("reader", f"must lie in 0..{readers - 1}, got {reader}")
    starts = np.array([max(0, len(episode) - frames + 1) for episode in episodes], np.int64)
    if frames < 1 or starts.sum() == 0:
        raise InvalidInput("frames", f"no episode holds a window of {frames} frames")
    return _draw_windows(episodes, frames, np.cumsum(starts), seed, reader, readers)


def _draw_windows(
    episodes: Sequence[Episode], frames: int, bounds: npt.NDArray[np.int64], seed: int, reader: int, readers: int
) -> Iterator[Window]:
    rng = np.random.default_rng(seed)
    turn = 0
    while True:
        draw = int(rng.integers(bounds[-1]))
        if turn == reader:
            which = int(np.searchsorted(bounds, draw, side="right"))
            yield Window(episodes[which], draw - int(bounds[which - 1] if which else 0), frames)
        turn = (turn + 1) % readers
