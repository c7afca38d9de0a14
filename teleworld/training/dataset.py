"""Recorded episodes for the training programs, as lazily mapped arrays.

Nothing is read until it is asked for. Arrays are memory maps of plain files, so any number of processes share one
copy through the page cache; an `Episode` pickles as its folder. Low-resolution pictures, depth and masks are at
96x160; the 192x320 pictures are for super-resolution alone.

Split `U` holds maps that no training may touch: it must be asked for by name, and so must every split.
"""

from __future__ import annotations

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
